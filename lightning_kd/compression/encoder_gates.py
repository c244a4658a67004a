"""Gates on the channels, heads and units of a speech encoder, which learn what of it to keep."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_choice
from lightning_kd.compression.hard_concrete import HardConcreteGate, settled_gates
from lightning_kd.compression.speech_encoders import EncoderShape, attention_parameters, feed_forward_parameters
from lightning_kd.errors import SetupError

Unit = Literal["convolutions", "heads", "intermediate"]
UNITS: tuple[Unit, ...] = ("convolutions", "heads", "intermediate")
DROP_RATES: Mapping[Unit, float] = MappingProxyType({"convolutions": 0.01, "heads": 0.01, "intermediate": 0.5})


class EncoderGates(nn.Module):
    """A hard concrete gate for every channel of the front end, attention head and feed-forward unit of an encoder.

    While attached, every call of the encoder multiplies these by gates: drawn once for a whole batch if the encoder is
    in training mode, settled if not. The gates are no part of the encoder, whose checkpoints stay plain. Channels are
    gated behind the activation of their convolution, heads in front of the output projection, units behind theirs.

    The norm behind the front end takes its statistics over the channels that are open, so that removing the others
    changes nothing; the published code keeps closed channels as zeros in these statistics until it removes them.

    Args:
        encoder: The encoder, see `lightning_kd.compression.find_encoder`.
        units: What is gated.
        drop_rates: Share expected to be closed in the beginning, see `HardConcreteGate`.

    Raises:
        SetupError: If channels are to be gated and the front end normalises each frame over all of them, where a
            channel cannot be removed without changing the others.
        ValueError: If ``units`` is empty or names something else.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.
    """

    def __init__(
        self, encoder: nn.Module, *, units: Sequence[Unit] = UNITS, drop_rates: Mapping[Unit, float] = DROP_RATES
    ) -> None:
        super().__init__()
        if not units:
            raise ValueError(f"`units` must name some of {', '.join(UNITS)}, got none.")
        for unit in units:
            check_choice("units", unit, UNITS)
        self.shape = EncoderShape.of(encoder)
        self.gates = nn.ModuleDict(
            {
                _key(unit, index): HardConcreteGate(count, drop_rate=drop_rates[unit])
                for unit in units
                for index, count in enumerate(getattr(self.shape, unit))
                if count
            }
        )
        self._convolutions = _convolution_sizes(encoder, gated="convolutions" in units)
        self._has_norm = _front_norm(encoder) is not None
        self._total = sum(parameter.numel() for parameter in encoder.parameters())
        self._fixed = self._total - self._variable(*(getattr(self.shape, unit) for unit in UNITS))
        self._values: dict[str, Tensor] = {}

    def attach(self, encoder: nn.Module) -> Callable[[], None]:
        """Gate the calls of an encoder of the shape that the gates were made for.

        Args:
            encoder: The encoder.

        Returns:
            A function that detaches the gates again.

        Raises:
            SetupError: If the encoder has another shape.
        """
        if EncoderShape.of(encoder) != self.shape:
            raise SetupError(
                f"`encoder` must have the shape that the gates were made for, {self.shape}, got "
                f"{EncoderShape.of(encoder)}: make new EncoderGates."
            )
        inner: Any = encoder
        hooks = [
            encoder.register_forward_pre_hook(self._draw, prepend=True),
            encoder.register_forward_hook(self._forget, always_call=True),
        ]
        for index, layer in enumerate(inner.encoder.layers):
            if (key := _key("heads", index)) in self.gates:
                gate_heads = partial(self._gate_input, key, self.shape.head_width)
                hooks.append(layer.attention.out_proj.register_forward_pre_hook(gate_heads))
            if (key := _key("intermediate", index)) in self.gates:
                gate_units = partial(self._gate_input, key, 1)
                hooks.append(layer.feed_forward.output_dense.register_forward_pre_hook(gate_units))
        for index, layer in enumerate(inner.feature_extractor.conv_layers):
            if (key := _key("convolutions", index)) in self.gates:
                hooks.append(layer.activation.register_forward_hook(partial(self._gate_channels, key)))
        norm, last = _front_norm(encoder), _key("convolutions", len(self.shape.convolutions) - 1)
        if norm is not None and last in self.gates:
            hooks.append(norm.register_forward_hook(partial(self._norm_open, last)))

        def detach() -> None:
            for hook in hooks:
                hook.remove()

        return detach

    def settled(self) -> dict[str, Tensor]:
        """The gates without chance, by unit and index such as ``"heads_3"``: 0 is closed, the others fold into weights.

        Returns:
            Tensors of shape ``(n,)``, without gradient.
        """
        with torch.no_grad():
            return {key: settled_gates(gate.log_alpha) for key, gate in self._named()}

    def expected_parameters(self) -> Tensor:
        """Parameters that the encoder is expected to keep, with gradient, shape ``()``.

        Convolutions count the product of what their two sides are expected to keep. The factors behind the last
        convolution, one per channel that is kept, are not counted.
        """
        counts = (
            [
                self._gate(unit, index).expected_open() if _key(unit, index) in self.gates else count
                for index, count in enumerate(getattr(self.shape, unit))
            ]
            for unit in UNITS
        )
        return torch.as_tensor(self._fixed + self._variable(*counts))

    def expected_sparsity(self) -> Tensor:
        """Share of the parameters that are expected to be gone, with gradient, shape ``()``."""
        return 1 - self.expected_parameters() / self._total

    def _variable(self, convolutions: Sequence[Any], heads: Sequence[Any], intermediate: Sequence[Any]) -> Any:
        """Parameters of the parts that gates can shrink, for counts that may be expected ones."""
        width, head_width = self.shape.width, self.shape.head_width
        total: Any = sum(attention_parameters(count, width=width, head_width=head_width) for count in heads)
        total = total + sum(feed_forward_parameters(count, width=width) for count in intermediate)
        before: Any = 1
        for count, (kernel, extra) in zip(convolutions, self._convolutions, strict=True):
            total = total + before * count * kernel + extra * count
            before = count
        return total + before * (width + 2 * self._has_norm)

    def _gate(self, unit: Unit, index: int) -> HardConcreteGate:
        return dict(self._named())[_key(unit, index)]

    def _named(self) -> list[tuple[str, HardConcreteGate]]:
        return [(key, gate) for key, gate in self.gates.items() if isinstance(gate, HardConcreteGate)]

    def _draw(self, encoder: nn.Module, _: Any) -> None:
        device = next(encoder.parameters()).device
        if next(self.parameters()).device != device:
            self.to(device)
        self.train(encoder.training)
        self._values = {key: gate() for key, gate in self._named()}

    def _forget(self, *_: Any) -> None:
        self._values = {}

    def _gate_input(self, key: str, width: int, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        gates = self._values[key].repeat_interleave(width).to(args[0].dtype)
        return (args[0] * gates, *args[1:])

    def _gate_channels(self, key: str, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * self._values[key][:, None].to(output.dtype)

    def _norm_open(self, key: str, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return norm_over(args[0], self._values[key] > 0, norm).to(output.dtype)


def norm_over(features: Tensor, is_open: Tensor, norm: Any) -> Tensor:
    """Layer normalisation over some of the channels; the others become 0.

    Args:
        features: Shape ``(..., C)``, floating point.
        is_open: Which channels take part, shape ``(C,)``, boolean.
        norm: The ``LayerNorm``, whose weight, bias and epsilon are used.

    Returns:
        Shape of ``features``, at least float32.

    Example:
        >>> norm_over(torch.tensor([1.0, 9.0, 3.0]), torch.tensor([True, False, True]), nn.LayerNorm(3, eps=0))
        tensor([-1.,  0.,  1.], grad_fn=<MulBackward0>)
    """
    values = features if features.dtype == torch.float64 else features.float()
    share = is_open.to(values.dtype) / is_open.sum().clamp(min=1)
    centered = values - (values * share).sum(dim=-1, keepdim=True)
    variance = (centered.square() * share).sum(dim=-1, keepdim=True)
    normed: Tensor = centered * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias
    return normed * is_open


def _key(unit: str, index: int) -> str:
    return f"{unit}_{index}"


def _front_norm(encoder: Any) -> nn.Module | None:
    """The norm between front end and transformer; students of DistilHuBERT have none."""
    children: dict[str, nn.Module] = dict(encoder.feature_projection.named_children())
    return children.get("layer_norm")


def _convolution_sizes(encoder: Any, *, gated: bool) -> list[tuple[int, int]]:
    """Kernel of each convolution, and its parameters per channel beside the kernel's."""
    layers = list(encoder.feature_extractor.conv_layers)
    norms = [dict(layer.named_children()).get("layer_norm") for layer in layers]
    if gated and any(isinstance(norm, nn.LayerNorm) for norm in norms):
        raise SetupError(
            "`units` must leave out 'convolutions' of a front end that normalises every frame over its channels "
            "(feat_extract_norm='layer'), where no channel can be removed alone: pass units=('heads', 'intermediate')."
        )
    extras = [(layer.conv.bias is not None) + 2 * (norm is not None) for layer, norm in zip(layers, norms, strict=True)]
    return [(layer.conv.kernel_size[0], extra) for layer, extra in zip(layers, extras, strict=True)]
