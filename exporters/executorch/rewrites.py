"""The same mathematics in operators that XNNPACK has, so that a transformer stays in one partition."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from executorch.exir.passes.constant_prop_pass import constant_prop_pass
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import statically_known_true

from exporters.decompositions import adaptive_max_pool, fold, gelu, group_norm
from exporters.resampling import BICUBIC, RESAMPLING_DECOMPOSITIONS

aten = torch.ops.aten

# A rule returns the tensors that stand for its operator, or NotImplemented where it does not apply.


def rewrite_for_xnnpack(program: ExportedProgram) -> ExportedProgram:
    """Express layer normalisation, attention and indexing by what XNNPACK computes.

    Means, and with them normalisations, are products with a constant vector; attention is two batched products around a
    softmax; picking one index is a slice, rolling two; a reshape with one unknown size infers it. A vision transformer
    so becomes one partition instead of some per layer. Where a rule does not hold (normalisation in float16, groups of
    queries, sizes that are not known) the operator stays as it is. Clamps in a row become one: XNNPACK's converter of
    ExecuTorch 1.5.1 joins them to the convolution before and keeps the ends of the last one only. Every reader of an
    int8 tensor has a dequantiser of its own: the converter leaves out for all what one reader that computes in int8
    does not need.

    Args:
        program: What `torch.export` captured.

    Returns:
        A program that computes the same up to rounding.
    """
    rewritten = _rewrite(program, {**_RULES, **_XNNPACK_RULES})
    _join_clamps(rewritten.graph_module)
    _split_dequantizers(rewritten.graph_module)
    return rewritten


def rewrite_for_kernels(program: ExportedProgram) -> ExportedProgram:
    """Express attention and indexing without the copies and the detour through float32 of PyTorch's own rules."""
    return _rewrite(program, _RULES)


def _rewrite(program: ExportedProgram, rules: Mapping[OpOverload, Callable[..., Any]]) -> ExportedProgram:
    with torch.no_grad():
        decomposed = program.run_decompositions(dict(rules))
    quantizers = {node.target for node in decomposed.graph.nodes if _is_quantizer(node.target)}
    rewritten: ExportedProgram = constant_prop_pass(decomposed, custom_skip_targets=quantizers)
    _own_constants(rewritten)
    _infer_sizes(rewritten.graph_module)
    return rewritten


def _own_constants(program: ExportedProgram) -> None:
    """Give every constant memory of its own: XNNPACK's converter takes a part of a tensor for its beginning."""
    for tensors in (program.state_dict, program.constants):
        for name, value in tensors.items():
            if isinstance(value, Tensor) and value.untyped_storage().nbytes() != value.nbytes:
                copy = value.detach().clone()
                is_parameter = isinstance(value, torch.nn.Parameter)
                tensors[name] = torch.nn.Parameter(copy, value.requires_grad) if is_parameter else copy


def _infer_sizes(module: fx.GraphModule) -> None:
    for node in module.graph.find_nodes(op="call_function", target=aten.view.default):
        sizes = list(node.args[1])
        unknown = [axis for axis, size in enumerate(sizes) if isinstance(size, fx.Node)]
        if len(unknown) == 1 and -1 not in sizes:
            sizes[unknown[0]] = -1
            node.update_arg(1, sizes)
    module.graph.eliminate_dead_code()
    module.recompile()


def _join_clamps(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        ends = _ends(node)
        while ends is not None and (inner := _ends(node.args[0])) is not None:
            low, high = (min(max(end, ends[0]), ends[1]) for end in inner)
            ends = low, high
            node.target = aten.clamp.default
            node.args = (node.args[0].args[0], None if low == -math.inf else low, None if high == math.inf else high)
    module.graph.eliminate_dead_code()
    module.recompile()


def _split_dequantizers(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if not _is_quantizer(node.target) or "dequantize" not in str(node.target):
            continue
        _, *others = sorted(node.users, key=lambda user: user.op != "output")
        for user in others:
            with module.graph.inserting_after(node):
                user.replace_input_with(node, module.graph.node_copy(node))
    module.recompile()


def _ends(node: Any) -> tuple[float, float] | None:
    """Smallest and largest value that a clamp lets through; ``None`` for any other node."""
    if not isinstance(node, fx.Node) or node.kwargs or not isinstance(node.target, OpOverload):
        return None
    if node.target not in _CLAMPS:
        return None
    given: list[Any] = [*node.args[1:]]
    given += _CLAMPS[node.target][len(given) :]
    low, high = given
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))


def _is_quantizer(target: object) -> bool:
    return isinstance(target, OpOverload) and target.namespace == "quantized_decomposed"


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    del cudnn_enable
    if x.dtype != torch.float32:  # squares of half values overflow
        return NotImplemented
    if len(normalized_shape) == 1:
        return _affine(_normalise(x, eps), weight, bias)
    leading = x.shape[: x.ndim - len(normalized_shape)]
    normal = _normalise(x.reshape(*leading, math.prod(normalized_shape)), eps).reshape(*leading, *normalized_shape)
    return _affine(normal, weight, bias)


def _group_norm(x: Tensor, *arguments: Any) -> Any:
    known = _are_known(x.shape[1:])
    return group_norm(x, *arguments) if known and x.dtype == torch.float32 else NotImplemented


def _normalise(x: Tensor, eps: float) -> Tensor:
    average = _average(x.shape[-1])
    centred: Tensor = x - aten.linear(x, average)
    variance: Tensor = aten.linear(centred * centred, average)
    return centred * torch.rsqrt(variance + eps)


def _average(count: int) -> Tensor:
    return torch.ones(1, count) / count


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    dims = sorted(axis % x.ndim for axis in dim or ())
    first, last = (dims[0], dims[-1]) if dims else (0, -1)
    sizes = x.shape[first : last + 1]
    if dtype is not None or x.dtype != torch.float32 or dims != list(range(first, last + 1)) or not _are_known(sizes):
        return NotImplemented
    if x.ndim == 4 and dims == [2, 3]:
        # XNNPACK pools, but only into a map of one by one.
        return NotImplemented if keepdim else aten.mean.dim(x, dims, True).reshape(x.shape[:2])
    count, rest = math.prod(sizes), x.shape[last + 1 :]
    if not dims or not _are_known(rest):
        return NotImplemented
    rows = x.reshape(*x.shape[:first], count, math.prod(rest)).transpose(-2, -1)
    ones = [1] * len(dims) if keepdim else []
    return aten.linear(rows, _average(count)).reshape(*x.shape[:first], *ones, *rest)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or is_causal or enable_gqa or not _same_leading(query, key, value):
        return NotImplemented
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = _batched_product(query * scale, key.transpose(-2, -1))
    if attn_mask is None:
        return _batched_product(torch.softmax(scores, -1), value)
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, -math.inf).to(scores.dtype)
    scores = scores + attn_mask
    # PyTorch defines rows that may attend to nothing as zero, where a plain softmax gives NaN.
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    return _batched_product(torch.softmax(scores, -1).masked_fill(nothing, 0.0), value)


def _matmul(left: Tensor, right: Tensor) -> Any:
    if left.ndim < 3 or not _same_leading(left, right):
        return NotImplemented
    return _batched_product(left, right)


def _select(x: Tensor, dim: int, index: int) -> Any:
    dim %= x.ndim
    size: Any = x.shape[dim]
    if not isinstance(size, int):
        return NotImplemented
    index %= size
    return aten.slice.Tensor(x, dim, index, index + 1).reshape(*x.shape[:dim], *x.shape[dim + 1 :])


def _unbind(x: Tensor, dim: int = 0) -> Any:
    if not isinstance(x.shape[dim], int):
        return NotImplemented
    return [_select(x, dim, index) for index in range(x.shape[dim])]


def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    dim %= x.ndim + 1
    return x.reshape(*x.shape[:dim], 1, *x.shape[dim:])


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    if not dims or not _are_known(x.shape[dim] for dim in dims):
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        start = -shift % size
        if start:
            x = torch.cat([aten.slice.Tensor(x, dim, start, size), aten.slice.Tensor(x, dim, 0, start)], dim)
    return x.clone()


def _repeat(x: Tensor, repeats: Sequence[int]) -> Any:
    """Copies in the plain order of dimensions; ExecuTorch's kernel refuses that of a convolution's result."""
    new = len(repeats) - x.ndim
    shape = (*[1] * new, *x.shape)
    if any(size != 1 and count != 1 for size, count in zip(shape, repeats, strict=True)):
        return NotImplemented
    sizes = [count if size == 1 else size for size, count in zip(shape, repeats, strict=True)]
    return x.expand(sizes).contiguous()


def _batched_product(left: Tensor, right: Tensor) -> Tensor:
    *leading, rows, inner = left.shape
    columns = right.shape[-1]
    batch = math.prod(leading)
    product = torch.bmm(left.reshape(batch, rows, inner), right.reshape(batch, inner, columns))
    return product.reshape(*leading, rows, columns)


def _are_known(sizes: Iterable[Any]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _same_leading(first: Tensor, *others: Tensor) -> bool:
    return all(
        first.ndim == other.ndim
        and all(statically_known_true(size == own) for size, own in zip(other.shape[:-2], first.shape, strict=False))
        for other in others
    )


# Ends of clamps where they are not arguments.
_CLAMPS: Mapping[OpOverload, tuple[float | None, float | None]] = {
    aten.clamp.default: (None, None),
    aten.hardtanh.default: (-1.0, 1.0),
    aten.relu.default: (0.0, None),
    aten.relu6.default: (0.0, 6.0),
}
_RULES: Mapping[OpOverload, Callable[..., Any]] = {
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.alias.default: lambda x: x,
    aten.col2im.default: fold,
    aten.scaled_dot_product_attention.default: _attention,
    aten.matmul.default: _matmul,
    aten.repeat.default: _repeat,
    aten.roll.default: _roll,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    # PyTorch's rule looks pixels up by four indices, for which the kernel demands one order of dimensions.
    BICUBIC: RESAMPLING_DECOMPOSITIONS[BICUBIC],
}
_XNNPACK_RULES: Mapping[OpOverload, Callable[..., Any]] = {
    # XNNPACK's converter takes the approximate kind for the exact one.
    aten.gelu.default: gelu,
    aten.group_norm.default: _group_norm,
    aten.layer_norm.default: _layer_norm,
    aten.mean.dim: _mean,
    aten.unsqueeze.default: _unsqueeze,
}
