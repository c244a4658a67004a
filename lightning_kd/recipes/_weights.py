"""Weights that several recipes work out alike."""


def rest_of(share: float) -> float:
    """Weight of the task loss beside a term of weight ``share``.

    Raises:
        ValueError: If ``share`` is not from 0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"`share` must be between 0 and 1, got {share!r}.")
    return round(1.0 - share, 12)
