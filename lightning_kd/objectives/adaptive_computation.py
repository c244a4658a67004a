"""The three phases in which adaptive computation modules learn: learners, gates, and both with the task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.hidden import Outside
from lightning_kd.losses.adaptive_computation import (
    budget_loss,
    computation_share,
    cumulative_mse,
    gate_diversity_loss,
    gate_entropy_loss,
    useful_learners,
)
from lightning_kd.losses.frames import FrameReduction, reduce_frames
from lightning_kd.objectives._frames import FrameObjective
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.students.adaptive import AdaptiveComputation, adaptive_modules
from lightning_kd.taps import Observation, Tap, module_paths


class _ModuleWise(FrameObjective):
    """Each adaptive computation module alone, on the input that the teacher's module at its place gets."""

    needs_examples = False

    def __init__(self, *, reduction: FrameReduction, mask_padding: bool, weight: Weight, name: str) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, name=name, weight=weight)
        self._owners: list[Outside] = []

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        found = adaptive_modules(student)
        missing = sorted(found.keys() - module_paths(teacher).keys())
        if missing:
            raise SetupError(
                f"`{self.name}` needs the network that was replaced as the teacher, and it has no {missing}: pass the "
                "model that with_adaptive_computation() was given."
            )
        self._owners = [Outside(module) for module in found.values()]
        self.teacher_taps = tuple(Tap(path, at=at, axes="NTD") for path in found for at in ("input", "output"))

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        for owner, entry, exit_ in zip(self._owners, self.teacher_taps[::2], self.teacher_taps[1::2], strict=True):
            if not isinstance(owner.module, AdaptiveComputation):
                raise SetupError(f"`{self.name}` lost its modules: attach the distillation again.")
            x, y = teacher.features[entry], teacher.features[exit_]
            mask = teacher.frame_mask(x.shape[1], entry) if self.mask_padding else None
            terms.append(self.term(owner.module, x, y, mask))
        return torch.stack(terms).mean()

    def term(self, module: AdaptiveComputation, inputs: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """The term of one module."""
        raise NotImplementedError


class ACMModuleKD(_ModuleWise):
    """Phase 1: every sum of learners imitates the module it replaces, on the teacher's own activations.

    All modules learn at once and independently, see `lightning_kd.losses.cumulative_mse`. The student is called as
    ever, and what it computes plays no part: let the optimiser have ``adaptive_parameters(student, "learners")`` only,
    and leave out the task loss.

    Args:
        detach: Whether each learner gets the gradient of the sum that it completes only; the published configuration
            does not.
        reduction: ``"frame"`` or ``"utterance"``, see `lightning_kd.losses.reduce_frames`.
        mask_padding: Whether padded frames are left out.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the student holds no adaptive computation module or the teacher has not its paths.
        ValueError: If ``reduction`` is unknown.

    Source:
        Wójcik et al., "Adaptive Computation Modules: Granular Conditional Computation for Efficient Inference",
        arXiv:2312.10193.

    Example:
        >>> ACMModuleKD().detach
        False
    """

    def __init__(
        self,
        *,
        detach: bool = False,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "acm_modules",
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, weight=weight, name=name)
        self.detach = detach

    @override
    def term(self, module: AdaptiveComputation, inputs: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        return cumulative_mse(module.cumulative(inputs, detach=self.detach), target, mask, reduction=self.reduction)


class ACMGateKD(_ModuleWise):
    """Phase 2: every gate learns how many learners are useful, see `lightning_kd.losses.useful_learners`.

    The term is the cross-entropy of the gates, averaged over modules. Let the optimiser have
    ``adaptive_parameters(student, "gate")`` only, and leave out the task loss.

    Args:
        ratio: By which factor the next learner must reduce the error to be useful.
        reference: How a first learner that is not useful is labelled, see `useful_learners`.
        reduction: ``"frame"`` or ``"utterance"``, see `lightning_kd.losses.reduce_frames`.
        mask_padding: Whether padded frames are left out.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the student holds no adaptive computation module or the teacher has not its paths.
        ValueError: If ``ratio`` or ``reduction`` is out of range.

    Source:
        Wójcik et al., "Adaptive Computation Modules", arXiv:2312.10193.

    Example:
        >>> ACMGateKD().ratio
        1.2
    """

    def __init__(
        self,
        *,
        ratio: float = 1.2,
        reference: bool = False,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "acm_gates",
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, weight=weight, name=name)
        check_positive("ratio", ratio)
        self.ratio = ratio
        self.reference = reference

    @override
    def term(self, module: AdaptiveComputation, inputs: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            errors = torch.stack([_wide(h - target).norm(dim=-1) for h in module.cumulative(inputs)])
            labels = useful_learners(errors, ratio=self.ratio, reference=self.reference)
        logits = _wide(module.gate(inputs)).movedim(-1, 1)
        return reduce_frames(F.cross_entropy(logits, labels, reduction="none"), mask, self.reduction)


class ACMBudget(Objective):
    r"""Phase 3: what keeps gates to a budget while the network learns its task.

    .. math::
        L = \alpha\, |C - C^*| + \beta\, L_\text{entropy} + \gamma\, L_\text{diversity}

    see `lightning_kd.losses.computation_share`, `gate_entropy_loss` and `gate_diversity_loss`. It needs no teacher;
    with one, distil the class scores beside it.

    Args:
        target: :math:`C^*`, share of the modules' full cost, from 0 to 1; published are 0.25, 0.4, 0.6 and 0.75.
        budget_weight: :math:`\alpha \ge 0`.
        entropy_weight: :math:`\beta \ge 0`.
        diversity_weight: :math:`\gamma \ge 0`.
        mask_padding: Whether padded frames are left out.
        weight: Factor of the term.

    Raises:
        SetupError: At setup, if the student holds no adaptive computation module.
        ValueError: If ``target`` or a weight is out of range.

    Source:
        Wójcik et al., "Adaptive Computation Modules", arXiv:2312.10193.

    Example:
        >>> ACMBudget(target=0.6).name
        'acm_budget'
    """

    needs_examples = False
    needs_teacher = False
    needs_teacher_output = False

    def __init__(
        self,
        *,
        target: float = 0.6,
        budget_weight: float = 0.1,
        entropy_weight: float = 0.05,
        diversity_weight: float = 0.05,
        mask_padding: bool = True,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(name="acm_budget", weight=weight)
        check_fraction("target", target)
        check_not_negative("budget_weight", budget_weight)
        check_not_negative("entropy_weight", entropy_weight)
        check_not_negative("diversity_weight", diversity_weight)
        self.target = target
        self.budget_weight = budget_weight
        self.entropy_weight = entropy_weight
        self.diversity_weight = diversity_weight
        self.mask_padding = mask_padding
        self.costs: list[float] = []

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        found = adaptive_modules(student)
        self.costs = [float(module.cost) for module in found.values()]
        self.student_taps = tuple(Tap(f"{path}.choice", axes="NTD") for path in found)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        choices = [student.features[tap] for tap in self.student_taps]
        mask = student.frame_mask(choices[0].shape[1], self.student_taps[0]) if self.mask_padding else None
        return (
            self.budget_weight * budget_loss(computation_share(choices, self.costs, mask), self.target)
            + self.entropy_weight * gate_entropy_loss(choices, mask)
            + self.diversity_weight * gate_diversity_loss(choices, mask)
        )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
