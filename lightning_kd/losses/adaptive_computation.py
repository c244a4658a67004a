"""Losses of adaptive computation: what sums of learners miss, how many are useful, and what using them costs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_kd._checks import check_fraction, check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import reduce
from lightning_kd.losses.frames import FrameReduction, frame_mse, mean_of_frames

LEAST_SHARE = 1e-6


def cumulative_mse(
    outputs: Sequence[Tensor], target: Tensor, mask: Tensor | None = None, *, reduction: FrameReduction = "frame"
) -> Tensor:
    r"""How far each of the sums of learners is from what it replaces, averaged over how many learners are summed.

    .. math::
        L = \frac{1}{N + 1} \sum_{k=0}^{N} \frac{1}{D} \lVert h_k - y \rVert^2

    The sum of none, :math:`h_0 = 0`, takes part as published; it is a constant.

    Args:
        outputs: :math:`h_0, \dots, h_N`, each of shape ``(N, T, D)``, floating point.
        target: :math:`y`, output of the replaced module on the same input, same shape; no gradient flows to it.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.

    Returns:
        Loss in squared units of the features, non-negative, at least float32, shape ``()``.

    Raises:
        ShapeError: If there is no output, or shapes do not fit.

    Source:
        Wójcik et al., "Adaptive Computation Modules: Granular Conditional Computation for Efficient Inference",
        arXiv:2312.10193.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 1, 2)
        >>> cumulative_mse([0 * ones, 0.5 * ones, ones], ones)  # (1 + 0.25 + 0) / 3
        tensor(0.4167)
    """
    if not outputs:
        raise ShapeError("`outputs` must hold at least one sum of learners, got none.")
    return torch.stack([frame_mse(output, target, mask, reduction=reduction) for output in outputs]).mean()


def useful_learners(errors: Tensor, *, ratio: float = 1.2, reference: bool = False) -> Tensor:
    r"""How many learners are worth their cost: so many that one more improves the error by less than a factor.

    With :math:`r_k = e_k / e_{k+1}` it is one more than the first :math:`k` with :math:`r_k <` ``ratio``, and all of
    them if there is none.

    Args:
        errors: :math:`e_0, \dots, e_N`, length of the error of each sum, shape ``(N + 1, ...)``, non-negative.
        ratio: The factor, above 0, dimensionless.
        reference: Whether a first learner that improves too little asks for all of them, as the published code has it
            by an ambiguity of its search; else it asks for one.

    Returns:
        From 1 to ``N``, shape ``(...)``, int64.

    Raises:
        ShapeError: If there are fewer than two errors.
        ValueError: If ``ratio`` is not a finite number above 0.

    Source:
        Wójcik et al., "Adaptive Computation Modules", arXiv:2312.10193.

    Example:
        >>> import torch
        >>> useful_learners(torch.tensor([8.0, 2.0, 1.9, 1.9]))  # 4, 1.05, 1
        tensor(2)
    """
    check_positive("ratio", ratio)
    if errors.ndim == 0 or len(errors) < 2:
        raise ShapeError(f"`errors` must have shape (N + 1, ...) with N of at least 1, got {tuple(errors.shape)}.")
    too_little = errors[:-1] < ratio * errors[1:]
    learners = len(too_little)
    first = too_little.int().argmax(dim=0)
    none = ~too_little.any(dim=0)
    if reference:
        none = none | (first == 0)
    return torch.where(none, learners, first + 1)


def computation_share(choices: Sequence[Tensor], costs: Sequence[float], mask: Tensor | None = None) -> Tensor:
    r"""Expected cost of the learners that gates choose, as a share of that of all of them.

    .. math::
        C = \frac{\sum_m c_m \, \bar k_m}{N \sum_m c_m}

    with :math:`\bar k_m` the mean number of learners over the valid frames in module :math:`m`.

    Args:
        choices: Of each module how probable 0 to N learners are, or which number is chosen, each of shape
            ``(N, T, N + 1)``, floating point.
        costs: Cost of one learner of each module.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.

    Returns:
        The share, from 0 to 1, with gradient, shape ``()``.

    Raises:
        ShapeError: If there are not as many costs as modules, or shapes do not fit.

    Example:
        >>> import torch
        >>> two_of_four = torch.eye(5)[2].expand(1, 3, 5)
        >>> computation_share([two_of_four], [1.0])
        tensor(0.5000)
    """
    if not choices or len(choices) != len(costs):
        raise ShapeError(f"`costs` must hold one per module, got {len(costs)} for {len(choices)} modules.")
    shares = [reduce(_counts(choice), "mean", mask) / (choice.shape[-1] - 1) for choice in choices]
    return torch.stack([cost * share for cost, share in zip(costs, shares, strict=True)]).sum() / sum(costs)


def budget_loss(share: Tensor, target: float) -> Tensor:
    """How far a share of the cost is from the one that is asked for.

    Args:
        share: See `computation_share`, shape ``()``.
        target: The share that is asked for, from 0 to 1.

    Returns:
        The distance, shape ``()``.

    Raises:
        ValueError: If ``target`` is out of range.

    Example:
        >>> import torch
        >>> budget_loss(torch.tensor(0.5), 0.75)
        tensor(0.2500)
    """
    check_fraction("target", target)
    return (share - target).abs()


def gate_entropy_loss(choices: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    r"""Minus the entropy of how often each number of learners is chosen within a sample: all are to be used.

    .. math::
        L = -\frac{1}{B M} \sum_{b, m} \frac{H(p_{bm})}{\log(N + 1)}

    Args:
        choices: As for `computation_share`.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.

    Returns:
        From -1 to 0, with gradient, shape ``()``.

    Raises:
        ShapeError: If there is no module, or shapes do not fit.

    Source:
        Wójcik et al., "Adaptive Computation Modules", arXiv:2312.10193.

    Example:
        >>> import torch
        >>> gate_entropy_loss([torch.eye(5)[None]])  # each number once
        tensor(-1.)
    """
    _check_choices(choices)
    entropies = []
    for choice in choices:
        histogram = mean_of_frames(_wide(choice), mask)
        # At 0 the entropy has no gradient; it ends at LEAST_SHARE.
        information = -histogram.clamp(min=LEAST_SHARE).log()
        entropies.append((histogram * information).sum(dim=-1) / math.log(choice.shape[-1]))
    return -torch.stack(entropies).mean()


def gate_diversity_loss(choices: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    r"""Minus how much the mean number of learners differs between samples: some are to cost less than others.

    .. math::
        L = -\frac{2}{B^2} \sum_{i, j} |c_i - c_j|

    Args:
        choices: As for `computation_share`.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.

    Returns:
        At most 0, in learners, with gradient, shape ``()``.

    Raises:
        ShapeError: If there is no module, or shapes do not fit.

    Source:
        Wójcik et al., "Adaptive Computation Modules", arXiv:2312.10193.

    Example:
        >>> import torch
        >>> gate_diversity_loss([torch.eye(3)[[0, 2]][:, None]])  # 0 and 2 learners: -2 (2 + 2) / 4
        tensor(-2.)
    """
    _check_choices(choices)
    means = torch.stack([mean_of_frames(_counts(choice)[..., None], mask)[:, 0] for choice in choices]).mean(dim=0)
    return -2 * (means[:, None] - means).abs().mean()


def _check_choices(choices: Sequence[Tensor]) -> None:
    if not choices:
        raise ShapeError("`choices` must hold those of at least one module, got none.")


def _counts(choice: Tensor) -> Tensor:
    """Number of learners per frame, expected if choices are probabilities."""
    wide = _wide(choice)
    return wide @ torch.arange(choice.shape[-1], dtype=wide.dtype, device=wide.device)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
