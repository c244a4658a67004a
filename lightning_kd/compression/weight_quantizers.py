"""How a network's weights are quantised in training: one module for all weights, with what is learned about them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.compression.quantizers import (
    Buckets,
    check_levels,
    quantize_to_levels,
    ternarize,
    uniform_quantize,
)
from lightning_kd.errors import SetupError


class WeightQuantizer(nn.Module, ABC):
    """Turns the weights that a student stores into those that it computes with.

    Attributes:
        trains_weights: Whether the stored weights learn; else only the quantiser's own parameters do.
    """

    trains_weights: ClassVar[bool] = True

    def build(self, weights: Mapping[str, Tensor]) -> None:
        """Create what is learned, from the weights as they are before training.

        Args:
            weights: Parameters by name.
        """

    @abstractmethod
    def forward(self, name: str, weight: Tensor) -> Tensor:
        """Quantise one weight.

        Args:
            name: Name of the parameter.
            weight: Its value.

        Returns:
            What to compute with, of the same shape.
        """


class UniformWeights(WeightQuantizer):
    """Weights on equidistant levels, trained straight through the rounding, see `uniform_quantize`.

    Args:
        levels: At least 2: ``2 ** bits``.
        bucket_size: How many consecutive weights share a range; ``None`` takes all of a layer.
        stochastic: Whether rounding is random in training; then a resumed run is equal in distribution only.

    Raises:
        ValueError: If ``levels`` is below 2 or ``bucket_size`` is not above 0.

    Source:
        Polino, Pascanu and Alistarh, "Model compression via distillation and quantization", arXiv:1802.05668,
        "quantized distillation".

    Example:
        >>> UniformWeights(levels=4)("weight", torch.tensor([-1.0, -0.2, 0.1, 0.55, 1.0]))
        tensor([-1.0000, -0.3333,  0.3333,  0.3333,  1.0000])
    """

    def __init__(self, *, levels: int = 16, bucket_size: int | None = 256, stochastic: bool = False) -> None:
        super().__init__()
        check_levels("levels", levels)
        if bucket_size is not None:
            check_positive("bucket_size", bucket_size)
        self.levels = levels
        self.bucket_size = bucket_size
        self.stochastic = stochastic

    @override
    def forward(self, name: str, weight: Tensor) -> Tensor:
        stochastic = self.stochastic and torch.is_grad_enabled()
        return uniform_quantize(weight, levels=self.levels, bucket_size=self.bucket_size, stochastic=stochastic)


class TernaryWeights(WeightQuantizer):
    """Weights of three values, trained straight through, see `ternarize`.

    Args:
        per_row: Whether each output has a scale of its own.
        clip: Weights beyond this magnitude get no gradient.

    Raises:
        ValueError: If ``clip`` is not above 0.

    Source:
        Zhang et al., "TernaryBERT", arXiv:2009.12812.

    Example:
        >>> TernaryWeights()("weight", torch.tensor([[0.1, -0.9, 0.4, 0.3]]))
        tensor([[ 0.0000, -0.5333,  0.5333,  0.5333]])
    """

    def __init__(self, *, per_row: bool = True, clip: float = 2.5) -> None:
        super().__init__()
        check_positive("clip", clip)
        self.per_row = per_row
        self.clip = clip

    @override
    def forward(self, name: str, weight: Tensor) -> Tensor:
        return ternarize(weight, per_row=self.per_row, clip=self.clip)


class LearnedLevels(WeightQuantizer):
    """Fixed weights on levels whose positions learn, see `quantize_to_levels`.

    Args:
        levels: Levels of each weight, at least 2: a number, or one for each parameter's name, as `allocate_levels`
            gives them.
        bucket_size: How many consecutive weights share a range; ``None`` takes all of a layer.
        start: Where levels are at first: at ``"quantiles"`` of the weights, or ``"uniform"``.

    Raises:
        ValueError: If ``levels`` is below 2, ``bucket_size`` not above 0, or ``start`` unknown.
        SetupError: At setup, if ``levels`` does not name exactly the weights.

    Source:
        Polino, Pascanu and Alistarh, arXiv:1802.05668, "differentiable quantization".

    Example:
        >>> quantizer = LearnedLevels(levels=3, start="uniform")
        >>> weight = torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0])
        >>> quantizer.build({"weight": weight})
        >>> quantizer("weight", weight).detach()
        tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """

    trains_weights = False

    def __init__(
        self,
        *,
        levels: int | Mapping[str, int] = 16,
        bucket_size: int | None = 256,
        start: Literal["quantiles", "uniform"] = "quantiles",
    ) -> None:
        super().__init__()
        for name, count in levels.items() if isinstance(levels, Mapping) else [("", levels)]:
            check_levels(f"levels[{name}]" if name else "levels", count)
        if bucket_size is not None:
            check_positive("bucket_size", bucket_size)
        check_choice("start", start, ("quantiles", "uniform"))
        self.levels = levels
        self.bucket_size = bucket_size
        self.start = start
        self.positions = nn.ParameterList()
        self._index: dict[str, int] = {}

    @override
    def build(self, weights: Mapping[str, Tensor]) -> None:
        counts = self.levels if isinstance(self.levels, Mapping) else dict.fromkeys(weights, self.levels)
        if counts.keys() != weights.keys():
            raise SetupError(
                f"`levels` must name exactly the weights, missing {sorted(weights.keys() - counts.keys())}, "
                f"unknown {sorted(counts.keys() - weights.keys())}."
            )
        self._index = {name: index for index, name in enumerate(weights)}
        self.positions = nn.ParameterList(
            self._first_positions(weight, counts[name]) for name, weight in weights.items()
        )

    def _first_positions(self, weight: Tensor, count: int) -> Tensor:
        uniform = torch.linspace(0, 1, count, device=weight.device, dtype=weight.dtype)
        if self.start == "uniform":
            return uniform
        values = Buckets.of(weight, self.bucket_size).scaled.flatten().sort().values
        return values[(uniform * (len(values) - 1)).round().long()]

    @override
    def forward(self, name: str, weight: Tensor) -> Tensor:
        return quantize_to_levels(weight, self.positions[self._index[name]], bucket_size=self.bucket_size)
