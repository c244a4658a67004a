"""Integer weights of a captured network in a form that every frontend reads."""

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor
from torch.export import ExportedProgram

_OPERATORS = torch.ops.quantized_decomposed


def with_scaled_weights(program: ExportedProgram) -> ExportedProgram:
    """Write the dequantisation of integer weights as a conversion and a product.

    OpenVINO reads a pair of quantisation and dequantisation, but not a dequantisation alone, which is what integer
    weights have; a converted and scaled constant it computes in integers.

    Args:
        program: A network after quantisation-aware training.

    Returns:
        The program with the same values.
    """
    targets = {node.target for node in program.graph.nodes}
    if _OPERATORS.quantize_per_channel.default in targets:
        return program
    scaled: ExportedProgram = program.run_decompositions({_OPERATORS.dequantize_per_channel.default: _dequantize})
    return scaled


def _dequantize(
    integers: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    quant_min: int,  # noqa: ARG001
    quant_max: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    *,
    out_dtype: torch.dtype = torch.float32,
) -> Tensor:
    shape = [-1 if index == axis else 1 for index in range(integers.ndim)]
    values = integers.to(out_dtype)
    if zero_points is not None:
        values = values - zero_points.reshape(shape).to(out_dtype)
    return values * scales.reshape(shape)
