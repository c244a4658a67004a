"""Self-distillation: the exits of a network learn from its end, no other teacher is needed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.layout import Layout, common_grid
from lightning_kd.losses import channel_distribution_kl, channel_gram_mse, class_mean_kl, feature_mse, soft_target_kl
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight, check_weight
from lightning_kd.step import Step
from lightning_kd.students._find import find_part
from lightning_kd.students.exits import EarlyExits
from lightning_kd.taps import Observation, Tap

ExitTarget = Literal["final", "next", "ensemble"]


class MultiExitKD(Objective):
    r"""Every exit of a network learns what a better predictor of the same network says.

    .. math::
        L = \frac{1}{E} \sum_i T^2 \, \mathrm{KL}(\mathrm{softmax}(z_{t(i)} / T) \,\|\, \mathrm{softmax}(z_i / T))

    The student returns the logits of its exits from shallow to deep, then its own, as `EarlyExits` does. The target
    :math:`z_{t(i)}` is cut from the graph:

    - ``"final"``: the network's own logits, for every exit;
    - ``"next"``: the next deeper exit, so that knowledge goes down step by step;
    - ``"ensemble"``: the mean of the logits of all exits and the network's own; then the network learns, too, and
      :math:`E` counts it.

    Train the exits on the labels as well, see `exit_cross_entropy`.

    Args:
        target: ``"final"``, ``"next"`` or ``"ensemble"``.
        temperature: Softmax temperature above 0, dimensionless.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        ValueError: If ``target`` is unknown or ``temperature`` is not a finite number above 0.

    Source:
        In the spirit of Zhang et al., "Be Your Own Teacher", arXiv:1905.08094; temperature, mean over the exits and the
        targets ``"next"`` and ``"ensemble"`` are ours, taken from no code. Nothing was found under the name
        "EnsembleScale"; ``"ensemble"`` is the distillation from an ensemble of paths that we offer.

    Example:
        >>> MultiExitKD(target="ensemble", weight=0.5)
        MultiExitKD(target='ensemble', temperature=3.0, weight=0.5)
    """

    needs_examples = False
    needs_teacher = False

    def __init__(
        self,
        *,
        target: ExitTarget = "final",
        temperature: float = 3.0,
        weight: Weight = 1.0,
        name: str = "multi_exit",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_choice("target", target, ("final", "next", "ensemble"))
        check_positive("temperature", temperature)
        self.target: ExitTarget = target
        self.temperature = temperature

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        logits = exit_logits(student)
        terms = [soft_target_kl(z, target, temperature=self.temperature) for z, target in self._pairs(logits)]
        return torch.stack(terms).mean()

    def _pairs(self, logits: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        if self.target == "ensemble":
            mean = torch.stack([z.float() for z in logits]).mean(dim=0)
            return [(z, mean) for z in logits]
        deeper = logits[1:] if self.target == "next" else [logits[-1]] * (len(logits) - 1)
        return list(zip(logits[:-1], deeper, strict=True))

    @override
    def extra_repr(self) -> str:
        return f"target={self.target!r}, temperature={self.temperature}, weight={self.weight}"


class LGViTKD(Objective):
    r"""LGViT's two-way distillation inside a network with local and global exits.

    .. math::
        L = a \sum_i \frac{T^2}{K} \mathrm{KL}(p_T \,\|\, q_{i,T}) + b \, L_\mathrm{hete} + c \, L_\mathrm{homo}

    - Prediction: every exit learns the final logits, by `class_mean_kl`: the code's mean over all elements divides by
      the number of classes :math:`K`.
    - Heterogeneous: the first and the last exit of each kind learn the final features, by `channel_distribution_kl` on
      the coarser of the two grids.
    - Homogeneous: exits of one kind learn from the last of their kind: local ones by mean squared error, global ones by
      `channel_gram_mse`.

    Sums over the exits throughout. The code runs this as its second stage: the backbone frozen (pass
    ``allow=("frozen",)``), a task weight of 0.7, and the sum of the exits' cross-entropies as the task loss, see
    `exit_cross_entropy`. Final logits and features
    are cut from the graph. So is the last exit in the homogeneous terms; ``detach_exits=False`` lets these move both
    exits of a pair, as the code does. Cut is the default, because an exit should not be drawn towards a shallower one.

    Args:
        temperature: Softmax temperature of the predictions, above 0, dimensionless.
        prediction_weight: Factor :math:`a` of the first sum.
        heterogeneous_weight: Factor :math:`b` of the second.
        homogeneous_weight: Factor :math:`c` of the third.
        detach_exits: Whether the last exit of a kind is a fixed target of the others.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0, or a factor is negative or not finite.
        SetupError: At setup, if the student holds not exactly one `EarlyExits`.

    Source:
        Xu et al., "LGViT: Dynamic Early Exiting for Accelerating Vision Transformer", arXiv:2308.00255; formulas and
        weights are those of its code. Ours: which features of an exit are compared (those in front of its pooling),
        averaging the final ones to a coarser grid (the code takes every second or third cell), and reading final
        features and logits behind the network's last norm (the code's teacher leaves that norm out).

    Example:
        >>> LGViTKD(weight=0.5)
        LGViTKD(temperature=2.0, weight=0.5)
    """

    needs_examples = False
    needs_teacher = False

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        prediction_weight: float = 0.3,
        heterogeneous_weight: float = 0.01,
        homogeneous_weight: float = 0.01,
        detach_exits: bool = True,
        weight: Weight = 1.0,
        name: str = "lgvit",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.prediction_weight = check_weight("prediction_weight", prediction_weight)
        self.heterogeneous_weight = check_weight("heterogeneous_weight", heterogeneous_weight)
        self.homogeneous_weight = check_weight("homogeneous_weight", homogeneous_weight)
        self.detach_exits = detach_exits
        self._of_kind: dict[str, list[Tap]] = {}
        self._final: tuple[Tap, Layout] | None = None

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        prefix, exits = find_part(student, EarlyExits, "student")
        final = replace(exits.final, path=f"{prefix}backbone.{exits.final.path}".rstrip("."))
        self._final = (final, exits.final_layout)
        self._of_kind = {"local": [], "global": []}
        for index, kind in enumerate(exits.kinds):
            self._of_kind[kind].append(Tap(f"{prefix}exits.{index}.features", axes="NCHW"))
        self.student_taps = (*self._of_kind["local"], *self._of_kind["global"], final)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return (
            self.prediction_weight * self._prediction(exit_logits(student))
            + self.heterogeneous_weight * self._heterogeneous(student)
            + self.homogeneous_weight * self._homogeneous(student)
        )

    def _prediction(self, logits: Sequence[Tensor]) -> Tensor:
        *exits, final = logits
        return torch.stack([class_mean_kl(z, final, temperature=self.temperature) for z in exits]).sum()

    def _heterogeneous(self, student: Observation) -> Tensor:
        if self._final is None:
            raise SetupError("`locate` must run before the exits can be compared.")
        tap, layout = self._final
        final = layout.channels_first(student.features[tap])
        ends = [taps[index] for taps in self._of_kind.values() for index in sorted({0, len(taps) - 1}) if taps]
        return torch.stack([channel_distribution_kl(*common_grid(student.features[end], final)) for end in ends]).sum()

    def _homogeneous(self, student: Observation) -> Tensor:
        terms = [student.features[self.student_taps[0]][:0].float().sum()]
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"local": _map_mse, "global": channel_gram_mse}
        for kind, taps in self._of_kind.items():
            features = [student.features[tap] for tap in taps]
            terms += [self._drawn(losses[kind], shallow, features[-1]) for shallow in features[:-1]]
        return torch.stack(terms).sum()

    def _drawn(self, loss: Callable[[Tensor, Tensor], Tensor], shallow: Tensor, deep: Tensor) -> Tensor:
        value = loss(shallow, deep)
        if self.detach_exits:
            return value
        # The losses cut their second argument: the exchange adds its gradient, and leaves the value.
        exchanged = loss(deep, shallow)
        return value + exchanged - exchanged.detach()

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, weight={self.weight}"


def exit_logits(student: Observation) -> Sequence[Tensor]:
    """The logits of each exit, then the network's own, classes last.

    Args:
        student: One call of the student.

    Returns:
        At least two tensors of one shape.

    Raises:
        ShapeError: If they differ in shape.
        TapError: If the output is no sequence of two tensors or more.
    """
    output = student.output
    if not isinstance(output, Sequence) or len(output) < 2 or not all(isinstance(z, Tensor) for z in output):
        raise TapError(
            "the student must return the logits of its exits and then its own, a sequence of at least two tensors, "
            f"got {type(output).__name__}: wrap it in lightning_kd.students.EarlyExits."
        )
    if any(z.shape != output[-1].shape for z in output):
        raise ShapeError(f"the exits' logits must have one shape, got {[tuple(z.shape) for z in output]}.")
    return [z.movedim(1, -1) if z.ndim == 4 else z for z in output]


def _map_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return feature_mse(*common_grid(student, teacher))
