"""Ways to find the four stages of a network, from shallow to deep; each returns a function of the network."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from torch import nn

STAGES = 4
_FINEST_STRIDE = 4
StageFinder = Callable[[nn.Module], tuple[str, ...]]
# Last blocks of the stages of a transformer with 2, 2, 6 and 2 blocks, and those that OFA-KD taps in a plain one of 12.
_BLOCKS_DONE = (2, 4, 10, 12)


def these(*paths: str) -> StageFinder:
    """Modules at ``paths``, whatever the network."""
    return lambda _: paths


def named_stages(pattern: str, *keys: str | int) -> StageFinder:
    """Stages at ``pattern`` with each of ``keys`` in place of its braces."""
    return these(*(pattern.format(key) for key in keys))


def announced_stages(model: nn.Module) -> tuple[str, ...]:
    """The deepest four of the stages that a timm network announces in ``feature_info``."""
    entries = cast(Iterable[Mapping[str, str]], model.feature_info)
    return tuple(entry["module"] for entry in entries)[-STAGES:]


def stages_by_stride(container: str) -> StageFinder:
    """In a chain of convolutional blocks, the last block at each of the strides 4, 8, 16 and 32.

    The chain's last module, which widens the last stage for the classifier, belongs to none.
    """

    def find(model: nn.Module) -> tuple[str, ...]:
        stride, last = 1, {}
        for path in _children(model, container)[:-1]:
            convolutions = (m for m in model.get_submodule(path).modules() if isinstance(m, nn.Conv2d))
            stride *= math.prod(convolution.stride[0] for convolution in convolutions)
            last[stride] = path
        return tuple(path for stride, path in last.items() if stride >= _FINEST_STRIDE)

    return find


def stages_by_depth(container: str) -> StageFinder:
    """In a chain of equal blocks, those at the relative depths of the blocks 1, 3, 9 and 11 of twelve."""

    def find(model: nn.Module) -> tuple[str, ...]:
        blocks = _children(model, container)
        return tuple(blocks[index] for index in block_indices(len(blocks)))

    return find


def last_blocks(container: str, norm: str) -> StageFinder:
    """In a chain of equal blocks, the last but two, the two after it and the norm that follows.

    ScaleKD takes the last two of 24 blocks for a plain transformer's last stage.
    """
    return lambda model: (*_children(model, container)[-3:], norm)


def block_indices(depth: int) -> tuple[int, ...]:
    """Indices, from 0, of the four blocks that are tapped in a chain of ``depth`` equal ones.

    Empty if there are fewer than four.

    Example:
        >>> block_indices(12), block_indices(24), block_indices(6)
        ((1, 3, 9, 11), (3, 7, 19, 23), (0, 1, 4, 5))
    """
    if depth < STAGES:
        return ()
    wanted = [round(done * depth / _BLOCKS_DONE[-1]) - 1 for done in _BLOCKS_DONE]
    return tuple(max(index, least) for least, index in enumerate(wanted))


def _children(model: nn.Module, container: str) -> list[str]:
    return [f"{container}.{name}" for name, _ in model.get_submodule(container).named_children()]
