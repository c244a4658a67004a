"""Distillation of the teacher's class scores into every depth of the student."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_not_negative, check_positive
from lightning_kd.adapters import Probe
from lightning_kd.adapters.branches import MapBranch, TokenBranch
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.families import family_of, last_map_tap, stage_taps
from lightning_kd.losses import one_for_all
from lightning_kd.losses.ofa import Variant
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, layout_hints, module_paths, pick_tensor

FINAL_STRIDE = 32


class OFAKD(Objective):
    r"""The teacher's class scores, learnt by branches that leave the student at each stage, and by its own scores.

    .. math::
        L = w_z \, l(z_s) + \sum_i w_i \, l(b_i(F_i))

    with :math:`l` `one_for_all`, :math:`z_s` the student's scores and :math:`b_i` a branch that leads from its feature
    :math:`F_i` to class scores. Of the teacher only the scores are used, so that its architecture does not matter. A
    convolutional student gets branches of convolutions, a student of tokens patch mergings and transformer blocks.

    Args:
        student: Places in the student, from shallow to deep; ``None`` takes its four stages, see
            `lightning_kd.families.stages_of`, the last one of a convolutional student up to its last map.
        exponent: Enhancement of the right class, above 0: one for all terms, or one per stage and then that of the
            student's own scores.
        temperature: Softmax temperature above 0, dimensionless.
        variant: ``"code"`` or ``"paper"``, see `one_for_all`.
        term_weights: Weight of each stage's term, then of that of the student's own scores; one number for all.
        final_grid: Height and width to which token branches merge the patches; ``None`` takes the grid of stride 32,
            which is the published 7x7 for images of 224x224.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the stages of the student are not known, exponents or weights are not one per term, or
            patches cannot be merged to the final grid.
        LayoutError: At setup, if a tapped feature is no map and no patch tokens.
        ValueError: If an option is unknown or out of range.

    Source:
        Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
        arXiv:2310.19444, in the form of its code. Convolutional branches end in the larger of the widths of the
        student's last stage and of the teacher's last features; that the latter is read from the teacher's last linear
        layer with as many outputs as classes, and counts as 0 if there is none, is ours, as are final grids other than
        7x7.

    Example:
        >>> OFAKD(exponent=1.5, weight=0.5).variant
        'code'
    """

    def __init__(
        self,
        student: Places | None = None,
        *,
        exponent: float | Sequence[float] = 1.5,
        temperature: float = 1.0,
        variant: Variant = "code",
        term_weights: float | Sequence[float] = 1.0,
        final_grid: tuple[int, int] | None = None,
        weight: Weight = 1.0,
        name: str = "ofa",
    ) -> None:
        super().__init__(name=name, weight=weight)
        for value in _each(exponent):
            check_positive("exponent", value)
        for value in _each(term_weights):
            check_not_negative("term_weights", value)
        check_positive("temperature", temperature)
        check_choice("variant", variant, ("code", "paper"))
        self.exponent = exponent
        self.temperature = temperature
        self.variant: Variant = variant
        self.term_weights = term_weights
        self.final_grid = final_grid
        self._declared = student
        self.branches = nn.ModuleList()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student_taps = _stages(student) if self._declared is None else as_taps(self._declared)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        terms = len(self.student_taps) + 1
        self._exponents = _one_per_term("exponent", self.exponent, terms)
        self._weights = _one_per_term("term_weights", self.term_weights, terms)
        classes = pick_tensor(teacher.observation.output, None, "the teacher's output").shape[-1]
        last = student.geometry(self.student_taps[-1]).width
        widths = last, max(last, _classifier_width(teacher.model, classes))
        self.branches = nn.ModuleList(
            self._branch(student, tap, classes, len(self.student_taps) - depth, widths)
            for depth, tap in enumerate(self.student_taps, start=1)
        )

    def _branch(self, student: Probe, tap: Tap, classes: int, stages_left: int, widths: tuple[int, int]) -> nn.Module:
        geometry = student.geometry(tap)
        if len(geometry.grid) != 2:
            raise LayoutError(f"`{self.name}` needs maps or patch tokens, got grid {geometry.grid} at {tap.path!r}.")
        family = family_of(student.model)
        is_map = geometry.layout.axes == "NCHW" if family is None else family.kind == "cnn"
        if is_map:
            return MapBranch(geometry, classes=classes, stages_left=stages_left, width=widths[1])
        grid = self.final_grid or _grid_of_stride(student, tap)
        return TokenBranch(geometry, classes=classes, stages_left=stages_left, width=widths[0], grid=grid)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        branches = zip(self.branches, self.student_taps, strict=True)
        scores = [branch(student.features[tap]) for branch, tap in branches]
        scores.append(pick_tensor(student.output, None, "the student's output"))
        teacher_scores = pick_tensor(teacher.output, None, "the teacher's output")
        target = step.class_indices
        terms = [
            weight * self._term(logits, teacher_scores, target, exponent)
            for logits, exponent, weight in zip(scores, self._exponents, self._weights, strict=True)
        ]
        return torch.stack(terms).sum()

    def _term(self, logits: Tensor, teacher_logits: Tensor, target: Tensor, exponent: float) -> Tensor:
        return one_for_all(
            logits, teacher_logits, target, exponent=exponent, temperature=self.temperature, variant=self.variant
        )

    @override
    def extra_repr(self) -> str:
        return (
            f"exponent={self.exponent}, temperature={self.temperature}, variant={self.variant!r}, weight={self.weight}"
        )


def _stages(student: nn.Module) -> tuple[Tap, ...]:
    """The student's stages, with the widening convolution that some convolutional networks have behind the last."""
    family, taps = family_of(student), stage_taps(student, "student")
    if family is None or family.kind != "cnn":
        return taps
    return (*taps[:-1], last_map_tap(student, "student"))


def _each(value: float | Sequence[float]) -> Sequence[float]:
    return value if isinstance(value, Sequence) else (value,)


def _one_per_term(name: str, value: float | Sequence[float], terms: int) -> Sequence[float]:
    values = value if isinstance(value, Sequence) else (value,) * terms
    if len(values) != terms:
        raise SetupError(
            f"`{name}` must be one number, or one per stage and one for the student's own scores, {terms} in all, got "
            f"{len(values)}."
        )
    return values


def _classifier_width(model: nn.Module, classes: int) -> int:
    linear = [module for module in module_paths(model).values() if isinstance(module, nn.Linear)]
    return next((module.in_features for module in reversed(linear) if module.out_features == classes), 0)


def _grid_of_stride(student: Probe, tap: Tap) -> tuple[int, int]:
    size = layout_hints(student.model, tap.path, student.observation.inputs).image_size
    if size is None:
        raise SetupError(
            "the student's input is no image, so that the stride of its patches is not known: give final_grid=(h, w)."
        )
    return max(size[0] // FINAL_STRIDE, 1), max(size[1] // FINAL_STRIDE, 1)
