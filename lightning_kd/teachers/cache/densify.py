"""Class distributions from the few probabilities that a cache keeps."""

from typing import Literal

import torch
from torch import Tensor

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError

Rest = Literal["uniform", "renormalize"]
RESTS: tuple[Rest, ...] = ("uniform", "renormalize")


def densify(probabilities: Tensor, classes: Tensor, *, class_count: int, rest: Rest = "uniform") -> Tensor:
    r"""Spread the K stored probabilities over all C classes.

    .. math::
        q_c = p_c \text{ for stored } c, \qquad q_c = \frac{1 - \sum_k p_k}{C - K} \text{ for the others}

    Rounding to half precision may lift the sum above 1; then the rest is 0 and the stored ones are divided by their
    sum, as they are where every class is stored.

    Args:
        probabilities: What was stored, shape ``(..., K)``, floating point, in [0, 1].
        classes: Their classes, shape ``(..., K)``, whole numbers below ``class_count``, all different.
        class_count: Number of classes C, at least K.
        rest: ``"uniform"`` spreads the missing mass over the classes that are not stored (TinyViT, FKD's marginal
            smoothing); ``"renormalize"`` gives them 0 and divides the stored ones by their sum.

    Returns:
        Distributions, shape ``(..., C)``, at least float32, each with sum 1.

    Raises:
        ShapeError: If the shapes differ or K exceeds C.
        ValueError: If ``rest`` is unknown.

    Source:
        Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", arXiv:2207.10666; Shen and
        Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", arXiv:2112.01528.

    Example:
        >>> densify(torch.tensor([0.6, 0.2]), torch.tensor([3, 0]), class_count=6)
        tensor([0.2000, 0.0500, 0.0500, 0.6000, 0.0500, 0.0500])
    """
    check_choice("rest", rest, RESTS)
    stored = probabilities.shape[-1]
    if probabilities.shape != classes.shape or stored > class_count:
        raise ShapeError(
            f"`probabilities` and `classes` must have one shape (..., K) with K of at most {class_count} classes, got "
            f"{tuple(probabilities.shape)} and {tuple(classes.shape)}."
        )
    kept = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    total = kept.sum(dim=-1, keepdim=True)
    others = class_count - stored
    if rest == "renormalize" or others == 0:
        kept, missing = kept / total, torch.zeros_like(total)
    else:
        kept, missing = kept / total.clamp(min=1.0), (1.0 - total).clamp(min=0.0) / others
    return missing.expand(*missing.shape[:-1], class_count).scatter(-1, classes.long(), kept)


def as_logits(distribution: Tensor) -> Tensor:
    """Logits whose softmax at temperature 1 is ``distribution``; a probability of 0 becomes the least one above it.

    Args:
        distribution: Class probabilities, shape ``(..., C)``, floating point.

    Returns:
        Finite logits of the same shape and type.
    """
    return distribution.clamp(min=torch.finfo(distribution.dtype).tiny).log()
