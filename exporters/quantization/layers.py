"""What a convolution or linear layer does while its weight, input and output are fake-quantised."""

from collections.abc import Callable
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from exporters.quantization.quantizers import INT8, ActivationQuantizer, WeightQuantizer

_OPERATIONS = (F.conv1d, F.conv2d, F.conv3d, F.linear)
_decomposed = torch.ops.quantized_decomposed
_FROZEN = ("weight_integers", "weight_scale", "weight_zero_point")


def has_integer_weight(layer: nn.Module) -> bool:
    """Whether a layer was frozen to integers."""
    return hasattr(layer, _FROZEN[0])


class LayerQuantization(nn.Module):
    """The quantisers of one layer, in front of its input and weight and behind its output.

    While they are attached the layer's ``forward`` is `run`, and that of the batch norm behind it `run_norm`. Both run
    the module's own code and exchange the one operation in it that is to be quantised; the modules, their classes,
    names, hooks and parameters stay. Before an export `freeze` turns the weight, with the batch norm multiplied into
    it, into integers; from then on the graph holds explicit quantised operators.

    Args:
        layer: The layer.
        norm: Batch norm that alone reads the layer's output; ``None`` if there is none.
        input: Quantiser of the input.
        weight: Quantiser of the weight.
        output: Quantiser of the output, or of the batch norm's; ``None`` if the next layers quantise it.
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module | None,
        *,
        input: ActivationQuantizer,
        weight: WeightQuantizer,
        output: ActivationQuantizer | None,
    ) -> None:
        super().__init__()
        # In a tuple, so that they do not become children: they have their place in the network.
        self.owners: tuple[Any, Any] = (layer, norm)
        self.input = input
        self.weight = weight
        self.output = output
        self.whole: tuple[Any, ...] = ()
        self.frozen = False
        self._guard = layer.register_forward_pre_hook(_keep_apart)
        vars(layer)["forward"] = self.run
        if norm is not None:
            vars(norm)["forward"] = self.run_norm

    @property
    def activations(self) -> tuple[ActivationQuantizer, ...]:
        """The quantisers of input and output."""
        return (self.input,) if self.output is None else (self.input, self.output)

    def detach(self) -> None:
        """Give both modules their own ``forward`` again."""
        self._guard.remove()
        for owner in self.owners:
            if owner is not None:
                vars(owner).pop("forward", None)

    def run(self, *inputs: Any, **options: Any) -> Any:
        """The layer's own code with its operation quantised."""
        layer, _ = self.owners
        with _Exchange(_OPERATIONS, self._operate):
            return type(layer).forward(layer, *inputs, **options)

    def run_norm(self, *inputs: Any, **options: Any) -> Any:
        """The batch norm's own code with its normalisation quantised, or left out once it is part of the weight."""
        _, norm = self.owners
        with _Exchange((F.batch_norm,), self._normalise):
            return type(norm).forward(norm, *inputs, **options)

    def _operate(
        self, operation: Callable[..., Tensor], input: Tensor, weight: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        layer, norm = self.owners
        if self.frozen:
            limits = (0, -self.weight.largest, self.weight.largest, torch.int8)
            weight = _decomposed.dequantize_per_channel(*map(layer.get_buffer, _FROZEN), *limits)
        else:
            weight = self.weight.fake(weight)
        result = operation(self._quantize(self.input, input), weight, *args, **kwargs)
        return result if norm is not None or self.output is None else self._quantize(self.output, result)

    def _normalise(self, operation: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = input if self.frozen else operation(input, *args, **kwargs)
        return result if self.output is None else self._quantize(self.output, result)

    def _quantize(self, quantizer: ActivationQuantizer, tensor: Tensor) -> Tensor:
        if not self.frozen:
            return quantizer.fake(tensor)
        options = (*quantizer.constants, *INT8, torch.int8)
        rounded: Tensor = _decomposed.dequantize_per_tensor(_decomposed.quantize_per_tensor(tensor, *options), *options)
        return rounded

    @torch.no_grad()
    def freeze(self) -> None:
        """Replace the layer's weight and bias by integers and a bias that hold the batch norm too, for good."""
        layer, norm = self.owners
        integers, scale = self.weight.integers(layer.get_parameter("weight"))
        bias = layer.bias
        if norm is not None:
            factor, shift = _affine(norm)
            integers *= factor.sign().to(torch.int8).reshape(-1, *[1] * (integers.ndim - 1))
            scale = torch.where(factor == 0, scale, scale * factor.abs())
            bias = shift if not isinstance(bias, Tensor) else bias * factor + shift
        for quantizer in self.activations:
            quantizer.freeze()
        # What the graph no longer reads would be captured and written all the same.
        for module in (self.weight, *self.activations, *(() if norm is None else (norm,))):
            for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                setattr(module, name, None)
        del layer.weight
        # Code outside reads the type and shape of a layer's weight.
        layer.weight = torch.zeros((), dtype=scale.dtype, device=scale.device).expand(integers.shape)
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        for name, value in zip(_FROZEN, (integers, scale, zeros), strict=True):
            layer.register_buffer(name, value)
        layer.bias = nn.Parameter(bias, requires_grad=False) if isinstance(bias, Tensor) else None
        self.frozen = True


class _Exchange(TorchFunctionMode):
    """Has another function called, with the operation as its first argument, in place of some operations."""

    def __init__(self, operations: tuple[Callable[..., Tensor], ...], replacement: Callable[..., Tensor]) -> None:
        super().__init__()
        self.operations = operations
        self.replacement = replacement

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self.operations:
            return self.replacement(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _keep_apart(*_: object) -> None:
    """Do nothing: a hook makes transformer layers call their linear layers, which fused code would pass by."""


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel that a batch norm is in evaluation mode."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    factor = (variance + norm.eps).rsqrt()  # type: ignore[operator]
    if isinstance(norm.weight, Tensor):
        factor = factor * norm.weight
    return factor, (norm.bias if isinstance(norm.bias, Tensor) else 0.0) - mean * factor
