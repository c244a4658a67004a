"""Losses that compare how scores vary, not what they are."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses._scores import score_operands

EPSILON = 1e-8
LEAST_ROWS = 3


def class_correlation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    inter: float = 1.0,
    intra: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""One minus the correlation of student and teacher probabilities, over classes and over samples (DIST).

    .. math::
        L = T^2 \Bigl[ \lambda \Bigl(1 - \frac{1}{N} \sum_n \rho(p^s_{n:}, p^t_{n:})\Bigr)
          + \mu \Bigl(1 - \frac{1}{C} \sum_c \rho(p^s_{:c}, p^t_{:c})\Bigr) \Bigr], \qquad
        p = \mathrm{softmax}(z / T)

    with Pearson's :math:`\rho(a, b) = \bar a \cdot \bar b / (\lVert \bar a \rVert \lVert \bar b \rVert + 10^{-8})` of
    the centred vectors. The inter-class part compares the classes within a sample, the intra-class part the samples
    within a class; both ignore the scale of the probabilities, so that a much stronger teacher can be followed. The
    intra-class part looks at the batch at hand: large batches serve it better. No gradient flows to
    ``teacher_logits``.

    Args:
        student_logits: Unnormalised scores, shape ``(..., C)``, floating point; every leading position is a sample, and
            there are at least 3.
        teacher_logits: Unnormalised scores, same shape as ``student_logits``.
        temperature: :math:`T > 0`, dimensionless.
        inter: Weight :math:`\lambda` of the inter-class part, at least 0.
        intra: Weight :math:`\mu` of the intra-class part, at least 0.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all. That at least 3 do is not
            checked; if none does, the loss is a 0 that keeps the graph.

    Returns:
        Loss, dimensionless, in [0, 2 T² (inter + intra)], at least float32, shape ``()``. At equality it is zero up to
        the 1e-8 in the denominator.

    Raises:
        ShapeError: If the two logits differ in shape, have fewer than 3 positions, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If an option is out of range.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536, both parts with weight 2;
        temperature 4 on CIFAR-100, 1 on ImageNet. An early release of the code had no temperature.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import class_correlation
        >>> teacher = torch.tensor([[1.0, 2.0, 5.0], [2.0, 1.0, 1.0], [1.0, 5.0, 2.0]]).log()
        >>> opposite = (2 / 3 - teacher.softmax(1)).log()  # probabilities that vary the other way
        >>> class_correlation(opposite, teacher, temperature=1.0)  # twice 1 - (-1)
        tensor(4.)
    """
    check_positive("temperature", temperature)
    check_not_negative("inter", inter)
    check_not_negative("intra", intra)
    positions = student_logits.shape[:-1].numel()
    if positions < LEAST_ROWS:
        raise ShapeError(
            f"`student_logits` must hold at least {LEAST_ROWS} samples, got {positions}: over 2 every correlation is "
            "1 or -1; use a larger batch."
        )
    pair = score_operands(student_logits, teacher_logits, mask)
    student, teacher = (F.softmax(scores / temperature, dim=-1).flatten(0, -2) for scores in pair)
    rows = student.new_ones(positions) if mask is None else mask.flatten().to(student.dtype)
    count = rows.sum().clamp(min=1.0)
    inter_term = ((1.0 - _correlation(student, teacher)) * rows).sum() / count
    # Rows that do not count are moved onto their column's mean, where they add nothing to any product.
    columns = (((p - (p * rows[:, None]).sum(dim=0) / count) * rows[:, None]).T for p in (student, teacher))
    intra_term = (1.0 - _cosine(*columns)).mean() * (rows.sum() > 0)
    return temperature**2 * (inter * inter_term + intra * intra_term)


class ClassCorrelation(nn.Module):
    """Module form of `class_correlation`.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        inter: Weight of the inter-class part, at least 0.
        intra: Weight of the intra-class part, at least 0.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(self, *, temperature: float = 4.0, inter: float = 1.0, intra: float = 1.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("inter", inter)
        check_not_negative("intra", intra)
        self.temperature = temperature
        self.inter = inter
        self.intra = intra

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return class_correlation(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            inter=self.inter,
            intra=self.intra,
            mask=mask,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, inter={self.inter}, intra={self.intra}"


def _correlation(student: Tensor, teacher: Tensor) -> Tensor:
    return _cosine(*(p - p.mean(dim=-1, keepdim=True) for p in (student, teacher)))


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    lengths: Tensor = student.norm(dim=-1) * teacher.norm(dim=-1)
    return (student * teacher).sum(dim=-1) / (lengths + EPSILON)
