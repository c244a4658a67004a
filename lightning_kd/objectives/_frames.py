"""What objectives over frames share: masks of both calls, one rate, and layer-to-layer hints."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative
from lightning_kd.adapters import Probe
from lightning_kd.adapters.frames import Resampling, UpsamplingHead, align_frames
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.speech.encoders import SpeechEncoder, speech_encoder
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


def frames_at(observation: Observation, tap: Tap) -> Tensor:
    """The feature read at ``tap``; raise `LayoutError` unless it is ``(N, T, D)``."""
    feature = observation.features[tap]
    if feature.ndim != 3 or tap.axes not in (None, "NTD"):
        raise LayoutError(
            f"the tap {tap.path!r} must give frames (N, T, D), got shape {tuple(feature.shape)}, axes {tap.axes!r}: "
            "tap a transformer layer."
        )
    return feature


def aligned_frames(
    prediction: Tensor,
    student: tuple[Observation, Tap],
    teacher: tuple[Observation, Tap],
    *,
    mask_padding: bool,
    method: Resampling = "linear",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A prediction made from a student's frames, the teacher's frames at its rate, and the mask of both.

    Args:
        prediction: Shape ``(N, T, D)``; of a whole multiple of the student's frames, or as many.
        student: The call of the student and where it was read.
        teacher: Likewise of the teacher.
        mask_padding: Whether padding is masked.
        method: How the teacher is resampled if its rate is another.

    Returns:
        Prediction, target, mask.
    """
    source, target = frames_at(*student), frames_at(*teacher)
    if not mask_padding:
        return align_frames(prediction, target, method=method)
    own, its = (
        observation.frame_mask(feature.shape[1], tap)
        for (observation, tap), feature in ((student, source), (teacher, target))
    )
    if own is not None and prediction.shape[1] != source.shape[1]:
        own = own.repeat_interleave(prediction.shape[1] // source.shape[1], dim=1)
    return align_frames(prediction, target, own, its, method=method)


class FrameObjective(Objective):
    """A term over frames.

    Args:
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        mask_padding: Whether padded frames are left out.
        name: Name of the term.
        weight: Factor of the term.
    """

    needs_teacher_output = False

    def __init__(self, *, reduction: FrameReduction, mask_padding: bool, name: str, weight: Weight) -> None:
        super().__init__(name=name, weight=weight)
        check_frame_reduction(reduction)
        self.reduction: FrameReduction = reduction
        self.mask_padding = mask_padding


class HintsObjective(FrameObjective):
    """Layer to layer: the last layer's term, and the sum of those of the layers below it with a weight.

    Args:
        layers: Hidden states that are compared, counted from 1 in both networks; ``None`` for all, of equally deep
            ones.
        hint_weight: Factor of each layer but the last.
        random_layers: Number of hints that count in an epoch, drawn anew for each; ``None`` for all.
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        mask_padding: Whether padded frames are left out.
        name: Name of the term.
        weight: Factor of the term.
    """

    def __init__(
        self,
        layers: Sequence[int] | None,
        *,
        hint_weight: float,
        random_layers: int | None,
        reduction: FrameReduction,
        mask_padding: bool,
        name: str,
        weight: Weight,
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, name=name, weight=weight)
        check_not_negative("hint_weight", hint_weight)
        if layers is not None and list(layers) != sorted(set(layers)):
            raise ValueError(f"`layers` must rise, the last one last, got {tuple(layers)}.")
        if random_layers is not None and random_layers < 0:
            raise ValueError(f"`random_layers` must be a number of layers, or None for all, got {random_layers}.")
        self.layers = None if layers is None else tuple(layers)
        self.hint_weight = hint_weight
        self.random_layers = random_layers
        self.heads = nn.ModuleList()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        encoders = speech_encoder(student, "student"), speech_encoder(teacher, "teacher")
        for encoder in encoders:
            encoder.check_layerdrop()
        depths = [encoder.depth for encoder in encoders]
        if self.layers is None and depths[0] != depths[1]:
            raise SetupError(
                f"`layers` must be given where the depths differ: the student has {depths[0]} layers and the teacher "
                f"{depths[1]}."
            )
        self.student_taps, self.teacher_taps = self.places(
            *encoders, range(1, depths[0] + 1) if self.layers is None else self.layers
        )

    def places(
        self, student: SpeechEncoder, teacher: SpeechEncoder, layers: Sequence[int]
    ) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
        """Taps of both networks on ``layers``."""
        return tuple(student.layer(layer) for layer in layers), tuple(teacher.layer(layer) for layer in layers)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        factor = int(getattr(speech_encoder(student.model, "student").module, "time_reduction", 1))
        widths = student.observation.features, teacher.observation.features
        pairs = zip(self.student_taps, self.teacher_taps, strict=False)
        self.heads = nn.ModuleList(
            UpsamplingHead(widths[0][s].shape[2], widths[1][t].shape[2], factor=factor) for s, t in pairs
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        last = len(self.heads) - 1
        hints = self.hints_of(step.progress.epoch)
        term = self.compare(last, student, teacher)
        if hints:
            term = term + self.hint_weight * torch.stack([self.compare(i, student, teacher) for i in hints]).sum()
        # DDP waits for a gradient of every head, also of those that rest in this epoch.
        idle = [p for i in set(range(last)) - set(hints) for p in self.heads[i].parameters()]
        return term + sum(p.flatten()[:0].sum() for p in idle)

    def hints_of(self, epoch: int) -> list[int]:
        """Indices of the heads whose hints count in ``epoch``, the same in every process."""
        every = range(len(self.heads) - 1)
        if self.random_layers is None:
            return list(every)
        return sorted(random.Random(epoch).sample(every, min(self.random_layers, len(every))))  # noqa: S311 - no secret

    def compare(self, index: int, student: Observation, teacher: Observation) -> Tensor:
        """The term of the head ``index``."""
        raise NotImplementedError
