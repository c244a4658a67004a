"""How attention modules make their queries, keys and values: what to tap, and how to join what the taps show."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
# Attributes of timm's attention modules whose fused projection is not cut into queries, keys and values in this order,
# or whose scores are not scaled dot products of tokens: MaxViT; LeViT and TinyViT; Swin v2; XCiT.
_OTHER_ATTENTION = ("dim_head", "key_dim", "logit_scale", "temperature")


class QKV(NamedTuple):
    """Queries, keys and values, each of shape ``(N, L, D)``, heads side by side on the last axis."""

    query: Tensor
    key: Tensor
    value: Tensor


Form = tuple[tuple[str, ...], Callable[[nn.Module, Sequence[Tensor]], QKV]]


def form_of(module: nn.Module) -> Form | None:
    """Which leaves of an attention module to tap (none for its input), and how to join what they show."""
    if isinstance(module, nn.MultiheadAttention):
        same_width = dict(module.named_parameters(recurse=False)).get("in_proj_weight") is not None
        return ((), _from_multihead_input) if same_width else None
    if heads_of(module) < 1 or any(getattr(module, name, None) is not None for name in _OTHER_ATTENTION):
        return None
    children = dict(module.named_children())
    if _is_fused(children):
        return ((), _from_input) if isinstance(getattr(module, "q_bias", None), Tensor) else (("qkv",), _from_fused)
    for names in _SEPARATE:
        widths = {child.out_features for name in names if isinstance(child := children.get(name), nn.Linear)}
        if len(widths) == 1 and all(name in children for name in names):
            return names, _from_separate
    return None


def _is_fused(children: Mapping[str, nn.Module]) -> bool:
    fused, output = children.get("qkv"), children.get("proj")
    if not isinstance(fused, nn.Linear):
        return False
    return fused.out_features == 3 * (output.in_features if isinstance(output, nn.Linear) else fused.in_features)


def heads_of(module: nn.Module) -> int:
    """Number of attention heads as the module states it, 0 if it does not."""
    counts = [getattr(module, name, None) for name in ("num_heads", "num_attention_heads")]
    return next((count for count in counts if isinstance(count, int)), 0)


def _from_fused(_: nn.Module, tapped: Sequence[Tensor]) -> QKV:
    return QKV(*tapped[0].chunk(3, dim=-1))


def _from_separate(_: nn.Module, tapped: Sequence[Tensor]) -> QKV:
    return QKV(*tapped)


def _from_input(module: nn.Module, tapped: Sequence[Tensor]) -> QKV:
    """Of modules that hand the weight of ``qkv`` to a function, with biases of their own."""
    bias = torch.cat([module.get_parameter("q_bias"), module.get_buffer("k_bias"), module.get_parameter("v_bias")])
    return QKV(*F.linear(tapped[0], module.get_parameter("qkv.weight"), bias).chunk(3, dim=-1))


def _from_multihead_input(module: nn.Module, tapped: Sequence[Tensor]) -> QKV:
    batch_first = isinstance(module, nn.MultiheadAttention) and module.batch_first
    tokens = tapped[0] if batch_first else tapped[0].transpose(0, 1)
    bias = dict(module.named_parameters(recurse=False)).get("in_proj_bias")
    return QKV(*F.linear(tokens, module.get_parameter("in_proj_weight"), bias).chunk(3, dim=-1))


def normalized(module: nn.Module, qkv: QKV, heads: int) -> QKV:
    """Queries and keys after the module's own normalisation of each head, where it has one."""
    normalized = list(qkv)
    for index, name in enumerate(("q_norm", "k_norm")):
        norm = dict(module.named_children()).get(name)
        if norm is not None:
            normalized[index] = norm(qkv[index].reshape(*qkv[index].shape[:-1], heads, -1)).flatten(-2)
    return QKV(*normalized)
