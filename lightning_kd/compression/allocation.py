"""How many levels each tensor gets: more where the loss feels it more."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_kd.compression.quantizers import check_levels
from lightning_kd.errors import SetupError


def gradient_norms(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """L2 norm of the loss's gradient with respect to each weight.

    Args:
        loss: A scalar, such as the loss of one batch, with its graph.
        weights: Parameters by name.

    Returns:
        The norms by name, in units of the loss per unit of the weight; 0 for a weight that the loss does not reach.

    Example:
        >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> gradient_norms((weight**2).sum(), {"weight": weight})  # of (6, 8)
        {'weight': 10.0}
    """
    gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    norms = [0.0 if gradient is None else float(gradient.norm()) for gradient in gradients]
    return dict(zip(weights, norms, strict=True))


def allocate_levels(norms: Mapping[str, float], *, levels: int, least: int = 2) -> dict[str, int]:
    """Share levels out among tensors in proportion to their gradients' norms.

    Args:
        norms: Gradient norm of each tensor, at least 0, not all 0.
        levels: Levels that each tensor has on average, at least ``least``.
        least: Levels that every tensor keeps, at least 2.

    Returns:
        Levels by name; their sum is ``levels`` times the number of tensors. Of what does not divide, the tensors with
        the largest remainders get one each.

    Raises:
        SetupError: If the norms are empty, all zero, negative or not finite.
        ValueError: If ``least`` is below 2 or ``levels`` below ``least``.

    Source:
        Polino, Pascanu and Alistarh, arXiv:1802.05668, for the idea; the rule for sharing is ours.

    Example:
        >>> allocate_levels({"first": 3.0, "second": 1.0}, levels=4)  # 2 + 3 and 2 + 1
        {'first': 5, 'second': 3}
    """
    check_levels("least", least)
    check_levels("levels", levels)
    if levels < least:
        raise ValueError(f"`levels` must be at least `least`, {least}, got {levels}.")
    total = sum(norms.values())
    if not 0 < total < float("inf") or min(norms.values()) < 0:
        raise SetupError(f"`norms` must be finite, not negative and not all 0, got {dict(norms)}.")
    free = (levels - least) * len(norms)
    shares = {name: free * norm / total for name, norm in norms.items()}
    whole = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(norms, key=lambda name: whole[name] - shares[name])
    more = set(by_remainder[: free - sum(whole.values())])
    return {name: least + whole[name] + (name in more) for name in norms}
