"""A captured network as a Core AI program, in the operators that coreai-torch translates, and translates rightly."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor
from torch._decomp import get_decompositions
from torch.export import ExportedProgram

from exporters.decompositions import COMMON_DECOMPOSITIONS, Decomposition, variance
from exporters.errors import ConversionError
from exporters.network import TORCH_ERRORS
from exporters.quiet import errors_only, no_progress_bars
from exporters.resampling import NEAREST, RESAMPLING_DECOMPOSITIONS, has_whole_factors
from exporters.sessions.coreai import ENTRY_POINT
from exporters.signature import Signature

with errors_only("coreai_torch"):
    # coreai-torch warns of every PyTorch newer than the one that it was tested with; the parity check knows better.
    warnings.filterwarnings("ignore", message="coreai-torch has only been validated", category=UserWarning)
    import coreai_torch._compression.custom_layers  # noqa: F401 - registers the coreai operators
    from coreai._compiler.ir import MLIRError
    from coreai.authoring import AIProgram
    from coreai_torch import TorchConverter, get_decomp_table

_quantized = torch.ops.quantized_decomposed


def to_core_ai(program: ExportedProgram, signature: Signature, *, debug_information: bool = False) -> AIProgram:
    """Translate a program.

    Args:
        program: The capture of a network; explicit quantisation in it becomes Core AI's own.
        signature: Names of inputs and outputs.
        debug_information: Whether operators remember their line of Python.

    Returns:
        The program, with one function, ``main``.

    Raises:
        ConversionError: If coreai-torch refuses it.
    """
    mode = TorchConverter.Mode.DEBUG if debug_information else TorchConverter.Mode.RELEASE
    table = {**get_decomp_table(), **COMMON_DECOMPOSITIONS, **_MISSING, **_QUANTIZATION}
    try:
        with no_progress_bars(), errors_only("coreai_torch"):
            converter = TorchConverter(mode=mode).add_exported_program(
                program.run_decompositions(table),
                entrypoint_name=ENTRY_POINT,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
            )
            return converter.to_coreai()
    except (*TORCH_ERRORS, MLIRError) as error:
        raise ConversionError(
            f"`model` must be convertible to Core AI, but coreai-torch raised {type(error).__name__}: {error}"
        ) from error


def _quantize(input: Tensor, scale: float, zero_point: int, smallest: int, largest: int, dtype: torch.dtype) -> Any:
    # Core AI clips to what the type holds; symmetric quantisation leaves the smallest value out.
    if (smallest, largest) != (torch.iinfo(dtype).min, torch.iinfo(dtype).max):
        input = input.clamp((smallest - zero_point) * scale, (largest - zero_point) * scale)
    return torch.ops.coreai.quantize(
        input, torch.full((), scale, dtype=input.dtype), dtype, torch.full((), zero_point, dtype=dtype)
    )


def _dequantize(
    input: Tensor, scale: float, zero_point: int, *_limits: Any, out_dtype: torch.dtype | None = None
) -> Any:
    return torch.ops.coreai.dequantize(
        input,
        torch.full((), scale, dtype=out_dtype or torch.float32),
        torch.full((), zero_point, dtype=input.dtype),
    )


def _dequantize_per_channel(
    input: Tensor, scales: Tensor, zero_points: Tensor | None, axis: int, *_limits: Any, out_dtype: Any = None
) -> Any:
    zeros = None if zero_points is None else zero_points.to(input.dtype)
    return torch.ops.coreai.dequantize(input, scales.to(out_dtype or torch.float32), zeros, None, axis)


def _batch_norm_of_batch(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, _training: bool, _momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = [axis for axis in range(input.ndim) if axis != 1]
    mean = input.mean(axes, keepdim=True)
    centred = input - mean
    scale = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    shape = [1, -1, *(1 for _ in axes[1:])]
    output = centred * scale
    output = output if weight is None else output * weight.reshape(shape)
    output = output if bias is None else output + bias.reshape(shape)
    return output, mean.flatten(), scale.flatten()


def _average_pool_of_rows(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    sizes = [1, *kernel_size], [1, *(stride or kernel_size)], [0, *padding]
    pooled: Tensor = torch.ops.aten.avg_pool2d.default(input.unsqueeze(-2), *sizes, ceil_mode, count_include_pad)
    return pooled.squeeze(-2)


def _nearest(input: Tensor, *arguments: Any) -> Any:
    return (
        NotImplemented
        if has_whole_factors(input, *arguments)
        else RESAMPLING_DECOMPOSITIONS[NEAREST](input, *arguments)
    )


def _elu(input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    below = torch.expm1(input.clamp(max=0) * input_scale) * (alpha * scale)
    return torch.where(input > 0, input * scale, below)


_MISSING: Mapping[Any, Decomposition] = {
    # NFNets standardise their weights with batch norm.
    torch.ops.aten._native_batch_norm_legit.no_stats: _batch_norm_of_batch,  # noqa: SLF001
    torch.ops.aten.avg_pool1d.default: _average_pool_of_rows,
    torch.ops.aten.elu.default: _elu,
    torch.ops.aten.var.correction: variance,
    **get_decompositions([torch.ops.aten.grid_sampler_2d.default]),
    # coreai-torch takes the nearest sample as with half a step less.
    NEAREST: _nearest,
}
_QUANTIZATION: Mapping[Any, Decomposition] = {
    _quantized.quantize_per_tensor.default: _quantize,
    _quantized.dequantize_per_tensor.default: _dequantize,
    _quantized.dequantize_per_channel.default: _dequantize_per_channel,
}
