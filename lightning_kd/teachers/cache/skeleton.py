"""A module that stands for a teacher that is not there: its tapped places, and what it said of their layouts."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_kd.layout import LayoutHints


def hints_of(hints: LayoutHints) -> dict[str, Any]:
    """What a skeleton needs to know of one tapped place, as plain values."""
    return {"prefix_tokens": hints.prefix_tokens, "channels_last": hints.channels_last}


def skeleton(hints: Mapping[str, Mapping[str, Any]]) -> nn.Module | None:
    """Build the modules at the tapped paths, with the attributes that layouts are read from.

    Args:
        hints: What `hints_of` gave, by tap path.

    Returns:
        Modules that do nothing; ``None`` if there are no taps.

    Example:
        >>> list(dict(skeleton({"blocks.3": {"prefix_tokens": 1, "channels_last": False}}).named_modules()))
        ['', 'blocks', 'blocks.3']
    """
    if not hints:
        return None
    root = nn.Module()
    for path, hint in hints.items():
        module = root
        for name in path.split(".") if path else []:
            if name not in dict(module.named_children()):
                module.add_module(name, nn.Module())
            module = module.get_submodule(name)
        vars(module).update(
            num_prefix_tokens=hint["prefix_tokens"], output_fmt="NHWC" if hint["channels_last"] else "NCHW"
        )
    return root
