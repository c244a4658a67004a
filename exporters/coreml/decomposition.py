"""Operators that the converter lacks, replaced by those that it has."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporters.coreml.shapes import read_sizes, with_plain_shapes
from exporters.decompositions import COMMON_DECOMPOSITIONS, adaptive_pool, gelu, group_norm
from exporters.mil.toolkit import is_torch_fx_node_supported
from exporters.quiet import errors_only
from exporters.resampling import BICUBIC, BILINEAR, RESAMPLING_DECOMPOSITIONS, has_whole_factors


@errors_only("coremltools")
def supported(program: ExportedProgram) -> ExportedProgram:
    """The program with every operator decomposed that the converter lacks, as far as PyTorch knows how.

    Args:
        program: The captured network.

    Returns:
        A program that computes the same.
    """
    program = program.run_decompositions({})
    table: dict[Any, Any] = {
        **torch.export.default_decompositions(),
        **COMMON_DECOMPOSITIONS,
        **RESAMPLING_DECOMPOSITIONS,
        torch.ops.aten.adaptive_avg_pool2d.default: functools.partial(adaptive_pool, torch.mean, 2),
        torch.ops.aten.alias.default: lambda tensor: tensor,
        torch.ops.aten.cosine_similarity.default: _cosine_similarity,
        torch.ops.aten.gelu.default: gelu,
        torch.ops.aten.group_norm.default: group_norm,
        torch.ops.aten.rms_norm.default: _rms_norm,
    }
    program = with_plain_shapes(program)
    tried: set[Any] = set()
    # What an operator is replaced by may be lacking, too; one that stays is left to the converter.
    while missing := {node.target for node in program.graph.nodes if _is_lacking(node, table)} - tried:
        program = program.run_decompositions({target: table[target] for target in missing})
        tried |= missing
    read_sizes(program)
    return program


def _cosine_similarity(first: Tensor, second: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    first, second = (each / each.square().sum(dim, keepdim=True).sqrt().clamp(min=eps) for each in (first, second))
    return (first * second).sum(dim)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    axes = list(range(-len(normalized_shape), 0))
    small = torch.finfo(input.dtype).eps if eps is None else eps
    normal = input * torch.rsqrt(input.square().mean(axes, keepdim=True) + small)
    return normal if weight is None else normal * weight


# The converter has translations of these: of the first two ones that demand arguments that a program leaves out, of
# `col2im` one for windows that do not overlap in a batch of one size.
_ALWAYS = (
    torch.ops.aten.cosine_similarity.default,
    torch.ops.aten.rms_norm.default,
    torch.ops.aten.col2im.default,
)
# The converter writes a shape in between as a constant, which a batch of any size has not.
_CONSTANT_SHAPES = (
    torch.ops.aten.adaptive_avg_pool1d.default,
    torch.ops.aten.adaptive_avg_pool2d.default,
    torch.ops.aten.adaptive_max_pool2d.default,
    torch.ops.aten.group_norm.default,
    torch.ops.aten.im2col.default,
)


def _is_lacking(node: fx.Node, table: Mapping[Any, Any]) -> bool:
    if node.op != "call_function" or node.target not in table:
        return False
    if node.target is torch.ops.aten.gelu.default:
        # The converter does not read by keyword which of its two kinds it is.
        return bool(node.kwargs)
    if node.target in _CONSTANT_SHAPES:
        return any(isinstance(size, torch.SymInt) for size in node.args[0].meta["val"].shape)  # type: ignore[union-attr]
    if node.target in RESAMPLING_DECOMPOSITIONS:
        return not _is_resampled_rightly(node)
    return node.target in _ALWAYS or not is_torch_fx_node_supported(node)


def _is_resampled_rightly(node: fx.Node) -> bool:
    """The converter has no sizes that are computed, no bicubic kernel, and rounds other factors in its own way."""
    source, size, *_, factors = node.args
    if node.target is BICUBIC:
        return False
    image: Tensor = source.meta["val"]  # type: ignore[union-attr]
    sizes = node.meta["val"].shape[-2:]
    if has_whole_factors(image, None if size is None else sizes, factors):  # type: ignore[arg-type]
        return True
    known = all(isinstance(length, int) for length in (*image.shape[-2:], *sizes))
    return node.target is BILINEAR and known and factors is None
