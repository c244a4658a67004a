"""Which samples to ask the teacher about, when asking is dear and the teacher is sometimes wrong."""

import torch
from torch import Tensor

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError


def robust_probabilities(gains: Tensor, *, wrong: int, at_least: int = 1) -> Tensor:
    r"""Probabilities with which to draw samples, so that informative ones are drawn whichever the teacher gets wrong.

    A player draws a sample with probabilities :math:`q`, and gains :math:`g_i` if the teacher is right about it. An
    opponent, who knows :math:`q`, names the :math:`m` samples that the teacher is wrong about. The player's best is

    .. math::
        q_i = \frac{1 / g_i}{\sum_{j \le k} 1 / g_j} \quad (i \le k), \qquad
        k = \operatorname*{arg\,max}_{k > m} \frac{k - m}{\sum_{j \le k} 1 / g_j}

    over samples sorted by falling gain; the others are never drawn. A teacher that is never wrong, :math:`m = 0`, makes
    the player draw the largest gain only; the more it errs, the wider the draw spreads.

    Args:
        gains: How much the student would learn from each sample, shape ``(n,)``, at least 0: its own
            `difficulty`, for example. Samples without gain are never drawn.
        wrong: :math:`m`, how many samples the teacher may be wrong about: its error rate times ``n``.
        at_least: Smallest number of samples that can be drawn, the budget of questions.

    Returns:
        Probabilities, shape ``(n,)``, float64 on the CPU, with the sum 1.

    Raises:
        ShapeError: If ``gains`` is no vector.
        ValueError: If a gain is negative or not finite, or fewer samples have a gain than are needed.

    Source:
        Baykal et al., "Robust Active Distillation", arXiv:2210.01213. The game is the paper's, its solution was derived
        anew and compared with a linear program; drawing at least as many samples as are asked for is ours.

    Example:
        >>> robust_probabilities(torch.tensor([1.0, 0.5, 0.01]), wrong=1)  # 1 : 2, and the third is not worth it
        tensor([0.3333, 0.6667, 0.0000], dtype=torch.float64)
    """
    if gains.ndim != 1:
        raise ShapeError(f"`gains` must have shape (n,), got {tuple(gains.shape)}.")
    if wrong < 0:
        raise ValueError(f"`wrong` must be at least 0, got {wrong}.")
    check_positive("at_least", at_least)
    values = gains.detach().cpu().double()
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError("`gains` must be finite and at least 0, got others: pass difficulties, such as 1 - margin.")
    ordered, order = values.sort(descending=True, stable=True)
    useful = int((ordered > 0).sum())
    smallest = max(wrong + 1, at_least)
    if useful < smallest:
        raise ValueError(
            f"`gains` must be above 0 for at least {smallest} samples, more than are wrong and as many as are asked "
            f"for, got {useful} of {len(values)}: ask for fewer."
        )
    inverse = 1 / ordered[:useful]
    sizes = torch.arange(1, useful + 1)
    payoff = (sizes - wrong) / inverse.cumsum(0)
    payoff[: smallest - 1] = -torch.inf
    size = int((payoff == payoff.max()).nonzero()[0]) + 1
    probabilities = torch.zeros_like(values)
    probabilities[order[:size]] = inverse[:size] / inverse[:size].sum()
    return probabilities


def robust_active_subset(gains: Tensor, count: int, *, wrong: int, seed: int = 0) -> list[int]:
    """Draw the samples to ask the teacher about, by `robust_probabilities`, none twice.

    Args:
        gains: How much the student would learn from each sample, shape ``(n,)``, at least 0: `sample_difficulty` of the
            student.
        count: How many to ask about.
        wrong: How many samples the teacher may be wrong about: its error rate times ``n``.
        seed: Of the draw.

    Returns:
        Indices in rising order, for ``torch.utils.data.Subset``.

    Raises:
        ShapeError: If ``gains`` is no vector.
        ValueError: If a gain is negative or not finite, or fewer samples have a gain than are needed.

    Source:
        Baykal et al., "Robust Active Distillation", arXiv:2210.01213; drawing none twice is ours.

    Example:
        >>> robust_active_subset(torch.tensor([1.0, 0.5, 0.01, 0.0]), 2, wrong=1)
        [0, 1]
    """
    probabilities = robust_probabilities(gains, wrong=wrong, at_least=count)
    drawn = torch.multinomial(probabilities, count, generator=torch.Generator().manual_seed(seed))
    return sorted(drawn.tolist())
