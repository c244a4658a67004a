"""Shapes as Core ML takes them: known sizes written out, others read off tensors, at most five dimensions."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_MOST_DIMENSIONS = 5
_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)  # noqa: SLF001


def with_plain_shapes(program: ExportedProgram) -> ExportedProgram:
    """Write sizes that are known as numbers, and permute six and more dimensions, as attention in windows does, by few.

    The converter takes a size of -1 for unknown beside a dynamic one. Dimensions that stay neighbours are permuted as
    one; where more than five are left, one at a time moves past its neighbours.

    Args:
        program: The captured network.

    Returns:
        A program that computes the same.
    """
    graph = program.graph
    for node in graph.nodes:
        if node.target in _VIEWS:
            _name_sizes(node)
    for node in graph.find_nodes(op="call_function", target=_aten.permute.default):
        _permute_few(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    plain: ExportedProgram = program.run_decompositions({})
    return plain


def read_sizes(program: ExportedProgram) -> None:
    """Replace sizes that are computed from others by those of tensors that have them, where there is one before.

    The converter computes with sizes in floating point. Tracing the program again would undo this.

    Args:
        program: The program, which is changed.
    """
    graph = program.graph
    sizes: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        for computed in filter(_is_computed_size, node.all_input_nodes):
            found = sizes.get(computed.meta["val"].node.expr)
            if found is not None and not _is_computed_size(node):
                node.replace_input_with(computed, found)
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and size.node.expr not in sizes:
                with graph.inserting_after(node):
                    sizes[size.node.expr] = _size_of(node, axis)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _is_computed_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt) and node.target is not _aten.sym_size.int


def _size_of(node: fx.Node, axis: int) -> fx.Node:
    size = node.graph.call_function(_aten.sym_size.int, (node, axis))
    size.meta["val"] = node.meta["val"].shape[axis]
    return size


def _name_sizes(node: fx.Node) -> None:
    sizes: Any = node.args[1]
    shape = node.meta["val"].shape
    if -1 in sizes and isinstance(shape[sizes.index(-1)], int):
        node.update_arg(1, [known if size == -1 else size for size, known in zip(sizes, shape, strict=True)])


def _permute_few(node: fx.Node) -> None:
    source, order = node.args
    readers = list(_readers(node))
    if not isinstance(source, fx.Node) or any(each.target not in _VIEWS for each in (source, *readers)):
        return
    shape = source.meta["val"].shape
    if len(shape) <= _MOST_DIMENSIONS:
        return
    steps = list(_steps([axis % len(shape) for axis in order], shape))  # type: ignore[union-attr, operator, misc]
    if any(sum(not isinstance(size, int) for size in step.sizes) > 1 for step in steps):
        return
    value: Any = source.args[0]
    with node.graph.inserting_before(node):
        for step in steps:
            sizes = [size if isinstance(size, int) else -1 for size in step.sizes]
            value = node.graph.call_function(_aten.reshape.default, (value, sizes))
            value = node.graph.call_function(_aten.permute.default, (value, list(step.order)))
        value = node.graph.call_function(_aten.clone.default, (value,), {"memory_format": torch.contiguous_format})
    for reader in readers:
        reader.update_arg(0, value)


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """What reads a permuted tensor, past the copies that lay it out anew."""
    for user in node.users:
        if user.target is _aten.clone.default:
            yield from _readers(user)
        else:
            yield user


@dataclass(frozen=True, slots=True)
class _Step:
    """A reshape and the permutation of its result."""

    sizes: tuple[Any, ...]
    order: tuple[int, ...]


def _steps(order: Sequence[int], shape: Sequence[Any]) -> Iterator[_Step]:
    wanted: list[list[int]] = [[order[0]]]
    for axis in order[1:]:
        if axis == wanted[-1][-1] + 1:
            wanted[-1] = [*wanted[-1], axis]
        else:
            wanted.append([axis])
    present = sorted(wanted)
    if len(wanted) <= _MOST_DIMENSIONS:
        yield _Step(_sizes(present, shape), tuple(map(present.index, wanted)))
        return
    for count, block in enumerate(wanted):
        place = present.index(block)
        before, passed, after = present[:count], present[count:place], present[place + 1 :]
        if passed:
            parts = [list(itertools.chain(*part)) for part in (before, passed, [block], after)]
            yield _Step(_sizes(parts, shape), (0, 2, 1, 3))
            present = [*before, block, *passed, *after]


def _sizes(blocks: Sequence[Sequence[int]], shape: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(math.prod(shape[axis] for axis in block) for block in blocks)
