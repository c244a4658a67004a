"""Several teachers as one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.dense import classes_last
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap, pick_tensor
from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.protocol import BaseTeacher
from lightning_kd.teachers.weighting import RULES, Rule, member_weights


class EnsembleTeacher(BaseTeacher):
    r"""Several frozen networks as one teacher: the weighted mean of their probabilities, and the features of each.

    .. math::
        z_c = T \log \sum_j w_j \, \mathrm{softmax}(z_j / T)_c

    are scores whose softmax at temperature :math:`T` is the mean of the members' at :math:`T`. The output is a mapping:
    ``"logits"``, which objectives read unless told otherwise, and ``"members"``, the logits of each, shape
    ``(M, N, C)`` or ``(M, N, C, H, W)``. Members may see different inputs: give them as `FrozenTeacher` with an
    ``input_transform``. Taps begin with a member's name, as in ``"0.layer4"`` or ``"dino.blocks.11"``; where no
    objective reads the output, members without taps do not run, and the others run up to their last tap.

    Args:
        members: Networks or `FrozenTeacher`; a mapping names them, a sequence numbers them from ``"0"``.
        weights: How much each counts: one number per member (they are divided by their sum), or per sample
            ``"confidence"``, ``"entropy"`` or ``"labels"``, see `member_weights`; ``None`` counts all alike.
        average: ``"probabilities"``, or ``"logits"`` for the weighted mean of the logits.
        temperature: :math:`T` of the mean of probabilities, dimensionless; take that of the objective.

    Raises:
        SetupError: If there is no member, one is neither a module nor a `FrozenTeacher`, or a name has a dot or is one
            that modules use themselves.
        ShapeError: On the first call, if members tell different numbers of classes apart.
        ValueError: If ``average`` or ``weights`` is unknown, or ``temperature`` is not above 0.

    Source:
        Mean of probabilities: Shen and Savvides, "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on
        ImageNet without Tricks", arXiv:2009.08453.

    Example:
        >>> teacher = EnsembleTeacher([nn.Identity(), nn.Flatten()])
        >>> shown = teacher.observe(Inputs.of(torch.tensor([[0.0, 0.0]])))
        >>> shown.output["logits"].exp(), shown.output["members"].shape
        (tensor([[0.5000, 0.5000]]), torch.Size([2, 1, 2]))
    """

    module: nn.ModuleDict

    def __init__(
        self,
        members: Mapping[str, nn.Module] | Sequence[nn.Module],
        *,
        weights: Rule | Sequence[float] | None = None,
        average: Literal["probabilities", "logits"] = "probabilities",
        temperature: float = 1.0,
    ) -> None:
        check_choice("average", average, ("probabilities", "logits"))
        check_positive("temperature", temperature)
        if isinstance(weights, str):
            check_choice("weights", weights, RULES)
        named = members if isinstance(members, Mapping) else {str(i): member for i, member in enumerate(members)}
        if not named or any(not name or "." in name or hasattr(nn.ModuleDict, name) for name in named):
            raise SetupError(
                f"`members` must be at least one network, by names without dots that no module uses, got {list(named)}."
            )
        self.members = {
            name: member if isinstance(member, FrozenTeacher) else FrozenTeacher(member)
            for name, member in named.items()
        }
        self.module = nn.ModuleDict({name: member.module for name, member in self.members.items()})
        self.weights = weights
        self.average = average
        self.temperature = temperature
        self._taps: dict[str, list[Tap]] = {}

    @property
    def overlaps(self) -> bool:  # type: ignore[override]
        """Whether a member runs on a stream of its own."""
        return any(member.overlaps for member in self.members.values())

    @override
    def prepare(self, student: nn.Module) -> None:
        """Prepare each member.

        Args:
            student: The student.

        Raises:
            SetupError: If a member asks for a declaration that is missing.
        """
        for member in self.members.values():
            member.prepare(student)

    @override
    def on_fit_start(self, student: nn.Module) -> None:
        """Tell each member.

        Args:
            student: The student, on its device.

        Raises:
            SetupError: If a member needs a GPU and there is none.
        """
        for member in self.members.values():
            member.on_fit_start(student)

    @override
    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` from now on, in place of those read so far.

        Args:
            taps: Places that begin with a member's name.

        Raises:
            TapError: If one names no member, or no module of it.
        """
        self._taps = {name: [] for name in self.members}
        for tap in taps:
            name = tap.path.partition(".")[0]
            if name not in self.members:
                raise TapError(f"`{tap.path}` must begin with a member of the ensemble: one of {list(self.members)}.")
            self._taps[name].append(tap)
        for name, member in self.members.items():
            member.tap([_inside(tap) for tap in self._taps[name]])

    @override
    def untap(self) -> None:
        """Read no taps and leave no hook on any member."""
        for member in self.members.values():
            member.untap()

    @override
    def observe(
        self,
        inputs: Inputs,
        *,
        step: Step | None = None,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        """Run the members on the student's arguments.

        Args:
            inputs: Arguments that the student got.
            step: Where ``weights="labels"`` finds the labels; outside of training all members count alike.
            taps: Those to read; ``None`` reads all.
            stop: Whether no output is needed.
            copy_overwritten: As in `TapRecorder.recording`.

        Returns:
            The joint output, and the features of all members under the taps as they were set.

        Raises:
            SetupError: If the batch holds no labels where they are needed.
            ShapeError: If the members' classes differ.
        """
        observation = Observation(inputs)
        outputs: list[Tensor] = []
        for name, member in self.members.items():
            wanted = [tap for tap in self._taps.get(name, ()) if taps is None or tap in taps]
            if stop and not wanted:
                continue
            inside = [_inside(tap) for tap in wanted]
            seen = member.observe(inputs, taps=inside, stop=stop, copy_overwritten=copy_overwritten)
            observation.features |= {tap: seen.features[_inside(tap)] for tap in wanted}
            if not stop:
                outputs.append(pick_tensor(seen.output, None, f"the output of {name!r}"))
        if not stop:
            observation.output = self._joint(outputs, step)
        return observation

    def _joint(self, outputs: Sequence[Tensor], step: Step | None) -> dict[str, Tensor]:
        shapes = {name: tuple(output.shape) for name, output in zip(self.members, outputs, strict=True)}
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"`members` must give scores of one label set and one grid, got shapes {shapes}.")
        members = torch.stack([output.to(torch.promote_types(output.dtype, torch.float32)) for output in outputs])
        scores = torch.stack([classes_last(output) for output in members])
        log_p = F.log_softmax(scores / self.temperature, dim=-1)
        needs_labels = self.weights == "labels"
        rule = None if needs_labels and step is None else self.weights
        weights = member_weights(log_p, rule, step.labels if needs_labels and step is not None else None)[..., None]
        if self.average == "logits":
            joint = (weights * scores).sum(dim=0)
        else:
            joint = self.temperature * torch.logsumexp(log_p + weights.log(), dim=0)
        return {"logits": joint.movedim(-1, 1) if outputs[0].ndim == 4 else joint, "members": members}


def _inside(tap: Tap) -> Tap:
    """The tap as its member knows it."""
    return replace(tap, path=tap.path.partition(".")[2])
