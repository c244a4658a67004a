"""Random masks over features, and the small network that generates what they hide."""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_choice

Parts = Literal["channels", "positions"]


def check_ratio(name: str, value: object) -> None:
    """Raise `ValueError` unless ``value`` is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")


def hidden_parts(feature: Tensor, *, parts: Parts, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw what is hidden of a feature: each channel, or each position, independently.

    Args:
        feature: Channels first, ``(N, C, *grid)``.
        parts: ``"channels"`` or ``"positions"``.
        ratio: Probability of being hidden, in [0, 1).
        generator: Source of randomness on the feature's device; ``None`` takes the global one.

    Returns:
        Boolean mask, true where hidden, shape ``(N, C, 1, ...)`` or ``(N, 1, *grid)``.

    Raises:
        ValueError: If ``parts`` is unknown or ``ratio`` is not in [0, 1).

    Example:
        >>> hidden_parts(torch.zeros(2, 8, 4, 4), parts="channels", ratio=0.15).shape
        torch.Size([2, 8, 1, 1])
    """
    check_choice("parts", parts, ("channels", "positions"))
    check_ratio("ratio", ratio)
    samples, channels, *grid = feature.shape
    shape = (samples, channels, *(1 for _ in grid)) if parts == "channels" else (samples, 1, *grid)
    return torch.rand(shape, device=feature.device, generator=generator) < ratio


def hidden_tokens(feature: Tensor, *, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw which positions of each sample are hidden: equally many in every sample.

    Of :math:`L` positions :math:`\lfloor L (1 - r) \rfloor` stay visible.

    Args:
        feature: Channels first, ``(N, C, *grid)``.
        ratio: Share :math:`r` that is hidden, in [0, 1).
        generator: Source of randomness on the feature's device; ``None`` takes the global one.

    Returns:
        Boolean mask, true where hidden, shape ``(N, 1, *grid)``.

    Raises:
        ValueError: If ``ratio`` is not in [0, 1).

    Example:
        >>> hidden_tokens(torch.zeros(2, 8, 3, 3), ratio=0.5).flatten(1).sum(1)  # 4 of 9 stay visible
        tensor([5, 5])
    """
    check_ratio("ratio", ratio)
    samples, _, *grid = feature.shape
    noise = torch.rand((samples, 1, *grid), device=feature.device, generator=generator)
    ranks = noise.flatten(1).argsort(dim=1).argsort(dim=1)
    visible = int(ranks.shape[1] * (1 - ratio))
    return (ranks >= visible).view_as(noise)


def conv_generator(width: int) -> nn.Sequential:
    """Network that generates hidden parts of a map from their surroundings: Conv3x3, ReLU, Conv3x3 of one width."""
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
