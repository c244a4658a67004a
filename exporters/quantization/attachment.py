"""What fake quantisation adds to a network: how it is done, and a handle on all of its quantisers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from exporters.errors import QuantizationError
from exporters.quantization.layers import LayerQuantization
from exporters.quantization.quantizers import ActivationRange, Observing


# Not slotted: jsonargparse reads a default that is a dataclass by vars().
@dataclass(frozen=True, kw_only=True)
class FakeQuantization:
    """How a network is fake-quantised: int8 activations, and integer weights with a scale for each output channel.

    Args:
        weight_bits: Width of the weights' integers, 2 to 8; fewer than 8 are stored as int8 all the same.
        activations: ``"affine"``, or ``"symmetric"`` with a zero point of 0, which TensorRT needs.
        learned_scales: Whether scales are trained, beside the ranges that are measured.
        momentum: Share of a new batch in the moving average of the ranges, above 0 and up to 1; ``None`` for ranges
            that hold every value seen.
        percentile: Per cent of a batch's values that its range holds, above 50 and up to 100; ``None`` for all.
        outputs: Whether a layer's output is rounded where something else than a quantised layer reads it.
        keep_float: Layers to leave in float: paths, each standing for all that is in it, or patterns such as
            ``"blocks.*.mlp"``.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        arXiv:1712.05877; learned scales: Esser et al., arXiv:1902.08153.
    """

    weight_bits: int = 8
    activations: ActivationRange = "affine"
    learned_scales: bool = False
    momentum: float | None = 0.01
    percentile: float | None = None
    outputs: bool = True
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        if self.weight_bits not in range(2, 9):
            raise ValueError(f"`weight_bits` must be a whole number from 2 to 8, got {self.weight_bits!r}.")
        if self.activations not in ("affine", "symmetric"):
            raise ValueError(f"`activations` must be 'affine' or 'symmetric', got {self.activations!r}.")
        if self.momentum is not None and not 0 < self.momentum <= 1:
            raise ValueError(f"`momentum` must be None, or above 0 and at most 1, got {self.momentum!r}.")
        if self.percentile is not None and not 50 < self.percentile <= 100:
            raise ValueError(f"`percentile` must be None, or above 50 and at most 100, got {self.percentile!r}.")
        if isinstance(self.keep_float, str):
            raise ValueError(f"`keep_float` must be a tuple of paths, got the text {self.keep_float!r}.")
        object.__setattr__(self, "keep_float", tuple(self.keep_float))

    def keeps(self, path: str, patterns: tuple[str, ...] | None = None) -> bool:
        """Whether the layer of a path stays in float, because of any pattern or of the given ones."""
        chosen = self.keep_float if patterns is None else patterns
        return any(fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}.*") for pattern in chosen)


class Quantization(nn.Module):
    """Everything that fake quantisation adds to a network, in one module that no state dict holds.

    Args:
        options: How it is quantised.
        layers: The quantised layers by path.
        left_in_float: Names of the layers and weights that stay in float.
    """

    def __init__(
        self, options: FakeQuantization, layers: Mapping[str, LayerQuantization], left_in_float: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.options = options
        self.left_in_float = left_in_float
        # Module names have no dots, paths seldom have slashes.
        self.layers = nn.ModuleDict({path.replace(".", "/"): layer for path, layer in layers.items()})
        for layer in layers.values():
            layer.whole = (self,)

    def forward(self, input: Any) -> Any:
        """Pass the input on: `torch.nn.Sequential` calls every child it has."""
        return input

    def each(self) -> Iterator[tuple[str, LayerQuantization]]:
        """The quantised layers with their paths."""
        for name, layer in self.layers.items():
            if isinstance(layer, LayerQuantization):
                yield name.replace("/", "."), layer

    def set_phase(self, *, rounding: bool, observing: Observing) -> None:
        """Say what the quantisers do.

        Args:
            rounding: Whether weights and activations are rounded.
            observing: When the ranges of activations are measured.
        """
        for _, layer in self.each():
            layer.weight.enabled = rounding
            for quantizer in layer.activations:
                quantizer.enabled, quantizer.observing = rounding, observing

    def start_scales(self) -> None:
        """Start learned scales from the weights as they are now."""
        for _, layer in self.each():
            layer.weight.start(layer.owners[0].weight)

    def state(self) -> dict[str, Tensor]:
        """Copies of the ranges and the learned scales, by name."""
        return {name: tensor.detach().clone() for name, tensor in (*self.named_buffers(), *self.named_parameters())}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            QuantizationError: If it is of another network or of other options.
        """
        own = {**dict(self.named_buffers()), **dict(self.named_parameters())}
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            differing = sorted(own.keys() ^ state.keys()) or ["their shapes"]
            raise QuantizationError(
                f"`state` must be that of a network quantised with the same options; the difference begins with "
                f"{differing[0]}."
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def freeze(self) -> None:
        """Turn the layers of a network that is about to be captured into explicit integer arithmetic, for good.

        Raises:
            QuantizationError: If a range was never measured.
        """
        if self.unseen:
            raise QuantizationError(
                f"`model` must be trained or calibrated with its quantisers before it is exported, but "
                f"{self.unseen[0]!r} has seen no input: train on, or call calibrate(model, batches)."
            )
        for _, layer in self.each():
            layer.freeze()

    @property
    def unseen(self) -> list[str]:
        """Paths of the layers whose ranges nothing was measured of."""
        return [path for path, layer in self.each() if any(q.batches.item() == 0 for q in layer.activations)]


def quantization_of(model: nn.Module) -> Quantization | None:
    """The fake quantisation of a network, found at its layers; ``None`` if there is none."""
    for module in model.modules():
        owner = getattr(vars(module).get("forward"), "__self__", None)
        if isinstance(owner, LayerQuantization):
            whole: Quantization = owner.whole[0]
            return whole
    return None
