"""Distillation of a speech encoder into a supernet that sees its input with hidden spans."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError
from lightning_kd.losses.contextual import DISTANCES, HiddenFrameDistance, contextual_target, hidden_frame_regression
from lightning_kd.losses.frames import FrameReduction
from lightning_kd.objectives._frames import FrameObjective, frames_at
from lightning_kd.schedules import Weight
from lightning_kd.speech.encoders import speech_encoder
from lightning_kd.step import Step
from lightning_kd.students._find import find_part
from lightning_kd.students.supernet import SpeechSupernet
from lightning_kd.taps import Inputs, Observation, Tap

SPANS = "mask_time_indices"


class LightHuBERTKD(FrameObjective):
    r"""LightHuBERT: what a supernet predicts for the frames hidden from it, against a teacher that sees them.

    .. math::
        L = \frac{1}{|M|} \sum_{t \in M} \frac{1}{D} \lVert W_{:, :d}\, s_t - y_t \rVert^2

    :math:`W` has no bias; a sub-network of width :math:`d` uses its first columns. The student must be called with the
    spans, ``net(audio, attention_mask=..., mask_time_indices=spans)``, and the teacher without: give
    ``input_transform=without_spans`` to the teacher, as `lightning_kd.recipes.lighthubert` does.

    Args:
        average_top: ``None`` takes the teacher's last layer as it is; a number the mean of so many of its last layers,
            each frame standardised, see `lightning_kd.losses.contextual_target`.
        distance: ``"mse"``, ``"l1"`` or ``"smooth_l1"``.
        reduction: ``"frame"`` or ``"utterance"``, see `lightning_kd.losses.reduce_frames`.
        mask_padding: Whether padded frames are left out, should some of them be hidden.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if student or teacher holds no encoder, or the student's ignores spans; in training, if it
            was called without.
        ValueError: If ``average_top``, ``distance`` or ``reduction`` is out of range.

    Source:
        Wang et al., "LightHuBERT: Lightweight and Configurable Speech Representation Learning with Once-for-All
        Hidden-Unit BERT", arXiv:2203.15610; target and distance are from memory, as its training code is not public.

    Example:
        >>> LightHuBERTKD(distance="l1").distance
        'l1'
    """

    def __init__(
        self,
        *,
        average_top: int | None = None,
        distance: HiddenFrameDistance = "mse",
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "lighthubert",
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, name=name, weight=weight)
        if average_top is not None:
            check_positive("average_top", average_top)
        check_choice("distance", distance, DISTANCES)
        self.average_top = average_top
        self.distance: HiddenFrameDistance = distance
        self.head: nn.Module = nn.Identity()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        encoder = speech_encoder(student, "student")
        config: Any = encoder.module.config
        if not config.apply_spec_augment or not hasattr(encoder.module, "masked_spec_embed"):
            raise SetupError(
                "the student's encoder would ignore hidden spans: make it with apply_spec_augment=True and "
                "mask_time_prob above 0."
            )
        self.student_taps = (encoder.last(),)
        if any(isinstance(module, SpeechSupernet) for module in student.modules()):
            prefix, _ = find_part(student, SpeechSupernet, "student")
            self.student_taps = (Tap(prefix.rstrip("."), axes="NTD", select="last_hidden_state"),)
        deep = speech_encoder(teacher, "teacher")
        deep.check_layerdrop()
        first = deep.depth - (self.average_top or 1) + 1
        if first < 1:
            raise SetupError(
                f"`average_top` must be at most the teacher's {deep.depth} layers, got {self.average_top}."
            )
        self.teacher_taps = tuple(deep.layer(layer) for layer in range(first, deep.depth + 1))

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        s = frames_at(student.observation, self.student_taps[0]).shape[2]
        t = frames_at(teacher.observation, self.teacher_taps[0]).shape[2]
        if not (isinstance(self.head, nn.Linear) and self.head.weight.shape == (t, s)):
            self.head = nn.Linear(s, t, bias=False)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        (tap,) = self.student_taps
        states = frames_at(student, tap)
        hidden = student.inputs.argument(SPANS, student.model)
        if not isinstance(hidden, Tensor) or teacher.inputs.argument(SPANS, teacher.model) is not None:
            raise SetupError(
                f"`{self.name}` needs a student called with `{SPANS}` and a teacher without: pass the spans in "
                "training_step, and input_transform=without_spans to KnowledgeDistillation."
            )
        weight: Any = self.head.weight
        targets = [teacher.features[t_tap] for t_tap in self.teacher_taps]
        return hidden_frame_regression(
            F.linear(states, weight[:, : states.shape[-1]]),
            targets[0] if self.average_top is None else contextual_target(targets),
            hidden.bool(),
            student.frame_mask(states.shape[1], tap) if self.mask_padding else None,
            distance=self.distance,
            reduction=self.reduction,
        )


def without_spans(*args: Any, **kwargs: Any) -> Inputs:
    """The arguments of a call without the spans that were hidden: what a teacher sees who hears everything.

    Args:
        args: Positional arguments, of which the third and later must not be spans.
        kwargs: Keyword arguments.

    Returns:
        The arguments.

    Example:
        >>> without_spans(1, mask_time_indices=2, attention_mask=3)
        Inputs(args=(1,), kwargs={'attention_mask': 3})
    """
    return Inputs(args, {name: value for name, value in kwargs.items() if name != SPANS})
