"""Physical removal of what gates have closed in a speech encoder: the smaller one computes the same."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_kd.compression.encoder_gates import EncoderGates
from lightning_kd.compression.speech_encoders import EncoderShape, find_encoder, shaped_model
from lightning_kd.errors import SetupError

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What of one axis of a weight is kept, and what it is multiplied by."""

    axis: int
    kept: Tensor
    factors: Tensor | None = None

    def of(self, value: Tensor) -> Tensor:
        value = value.index_select(self.axis, self.kept)
        if self.factors is None:
            return value
        return value * self.factors.to(value.dtype).reshape(-1, *[1] * (value.ndim - 1 - self.axis))


def prune_encoder(model: Model, gates: EncoderGates) -> Model:
    """Make the smaller model that computes what a model with settled gates computes.

    Closed channels, heads and units go; the values of the others fold into the weights behind them. Behind the last
    convolution, where a norm follows, they become factors that train, see `EncoderShape.scaled`. Distil the result
    further before use; `save_shaped` and `load_shaped` store it, and `shaped_model` makes an empty one of its shape.

    Args:
        model: A model of transformers with a HuBERT or wav2vec 2.0 encoder; it is not changed.
        gates: Gates that were attached to its encoder, see `EncoderGates` and `StructuredPruning`.

    Returns:
        The smaller model, in the mode, type and place of the given one.

    Raises:
        SetupError: If the encoder has another shape than the gates, or a convolution would lose all channels.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.
    """
    prefix, encoder = find_encoder(model)
    if EncoderShape.of(encoder) != gates.shape:
        raise SetupError(
            f"`gates` must be those of this encoder's shape, {EncoderShape.of(encoder)}, got {gates.shape}."
        )
    device = next(encoder.parameters()).device
    settled = {key: values.to(device) for key, values in gates.settled().items()}
    kept = {key: values.nonzero()[:, 0] for key, values in settled.items()}
    shape = _shape(gates.shape, kept)
    original: Any = model
    smaller = shaped_model(type(model), original.config, shape).to(device, next(encoder.parameters()).dtype)
    cuts = _Cuts(gates.shape, settled, kept)
    state = {
        new: cuts.of(name.removeprefix(prefix), value)
        for name, value in model.state_dict().items()
        if (new := _renamed(name, prefix, shape)) is not None
    }
    if shape.scaled and not gates.shape.scaled:
        last = len(shape.convolutions) - 1
        name = f"feature_extractor.conv_layers.{last}.activation.1.scale"
        state[prefix + name] = settled[f"convolutions_{last}"][kept[f"convolutions_{last}"]]
    smaller.load_state_dict(state)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return smaller.train(model.training)


def _shape(shape: EncoderShape, kept: dict[str, Tensor]) -> EncoderShape:
    def counts(unit: str) -> tuple[int, ...]:
        before = enumerate(getattr(shape, unit))
        return tuple(len(kept.get(f"{unit}_{index}", range(count))) for index, count in before)

    convolutions = counts("convolutions")
    if not all(convolutions):
        raise SetupError(
            f"`gates` closed all channels of a convolution, leaving {convolutions}: ask for less sparsity."
        )
    return EncoderShape(
        width=shape.width,
        head_width=shape.head_width,
        heads=counts("heads"),
        intermediate=counts("intermediate"),
        convolutions=convolutions,
        scaled=shape.scaled or f"convolutions_{len(convolutions) - 1}" in kept,
    )


class _Cuts:
    """How each weight of an encoder is cut, by its name."""

    def __init__(self, shape: EncoderShape, settled: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
        self._cuts: dict[str, list[_Cut]] = {}
        for key, indices in kept.items():
            unit, index = key.rsplit("_", 1)
            factors = settled[key][indices]
            if unit == "heads":
                columns = torch.arange(shape.head_width, device=indices.device)
                rows = (indices[:, None] * shape.head_width + columns).flatten()
                inside = f"encoder.layers.{index}.attention."
                before = [f"{inside}{name}_proj" for name in "qkv"]
                self._layer(before, f"{inside}out_proj", rows, factors.repeat_interleave(shape.head_width))
            elif unit == "intermediate":
                inside = f"encoder.layers.{index}.feed_forward."
                self._layer([f"{inside}intermediate_dense"], f"{inside}output_dense", indices, factors)
            else:
                self._convolution(int(index), len(shape.convolutions) - 1, indices, factors)

    def of(self, name: str, value: Tensor) -> Tensor:
        for cut in self._cuts.get(name, []):
            value = cut.of(value)
        return value

    def _layer(self, before: list[str], behind: str, kept: Tensor, factors: Tensor) -> None:
        for path in before:
            self._add(f"{path}.weight", _Cut(0, kept))
            self._add(f"{path}.bias", _Cut(0, kept))
        self._add(f"{behind}.weight", _Cut(1, kept, factors))

    def _convolution(self, index: int, last: int, kept: Tensor, factors: Tensor) -> None:
        path = f"feature_extractor.conv_layers.{index}"
        for name in ("conv.weight", "conv.bias", "layer_norm.weight", "layer_norm.bias"):
            self._add(f"{path}.{name}", _Cut(0, kept))
        if index < last:
            self._add(f"feature_extractor.conv_layers.{index + 1}.conv.weight", _Cut(1, kept, factors))
            return
        self._add(f"{path}.activation.1.scale", _Cut(0, kept, factors))
        for name in ("layer_norm.weight", "layer_norm.bias"):
            self._add(f"feature_projection.{name}", _Cut(0, kept))
        self._add("feature_projection.projection.weight", _Cut(1, kept))

    def _add(self, name: str, cut: _Cut) -> None:
        self._cuts.setdefault(name, []).append(cut)


def _renamed(name: str, prefix: str, shape: EncoderShape) -> str | None:
    """Name of a weight in the smaller model; of layers that are gone, only the bias of their output is left."""
    path = name.removeprefix(prefix)
    for layer, (heads, units) in enumerate(zip(shape.heads, shape.intermediate, strict=True)):
        for count, inside, output in ((heads, "attention", "out_proj"), (units, "feed_forward", "output_dense")):
            owner = f"encoder.layers.{layer}.{inside}."
            if count == 0 and path.startswith(owner):
                return f"{prefix}{owner}bias" if path in (f"{owner}{output}.bias", f"{owner}bias") else None
    return name
