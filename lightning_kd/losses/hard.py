"""Losses on the class that the teacher decides for."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import score_operands


def hard_target_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    class_weights: Tensor | None = None,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the student with the class that the teacher finds most likely.

    .. math::
        L = \frac{\sum_n w_{y_n} \bigl(-\log p^s_{n, y_n}\bigr)}{\sum_n w_{y_n}}, \qquad
        y_n = \mathrm{argmax}_c \, z^t_{nc}, \quad p^s = \mathrm{softmax}(z_s)

    The decision has no temperature and no gradient. With label smoothing :math:`\varepsilon` the target is
    :math:`1 - \varepsilon` of the decision and :math:`\varepsilon / C` of every class.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        class_weights: Weight :math:`w` of each class, at least 0, shape ``(C,)``; ``None`` weighs all alike.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        label_smoothing: :math:`\varepsilon`, from 0 to 1, dimensionless.
        reduction: ``"mean"``, weighted by the teacher's classes, over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)``, weighted, for ``"none"``. Where
        nothing counts it is a 0 that keeps the graph.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``class_weights`` or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown or ``label_smoothing`` out of range.

    Source:
        Touvron et al., "Training data-efficient image transformers & distillation through attention",
        arXiv:2012.12877; the weighted form: Rangwani et al., "DeiT-LT: Distillation Strikes Back for Vision Transformer
        Training on Long-Tailed Datasets", arXiv:2404.02900.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import hard_target_cross_entropy
        >>> hard_target_cross_entropy(torch.zeros(2, 4), torch.randn(2, 4))  # log 4, whatever the teacher decides
        tensor(1.3863)
    """
    check_reduction(reduction)
    check_fraction("label_smoothing", label_smoothing)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    decided = teacher.argmax(dim=-1, keepdim=True)
    surprise = -F.log_softmax(student, dim=-1)
    values = surprise.gather(-1, decided).squeeze(-1)
    if label_smoothing:
        values = torch.lerp(values, surprise.mean(dim=-1), label_smoothing)
    if class_weights is None:
        return reduce(values, reduction, mask)
    if class_weights.shape != student.shape[-1:]:
        raise ShapeError(
            f"`class_weights` must have one entry per class, shape {tuple(student.shape[-1:])}, "
            f"got {tuple(class_weights.shape)}."
        )
    weights = class_weights.to(student)[decided.squeeze(-1)]
    if reduction != "mean":
        return reduce(weights * values, reduction, mask)
    total = reduce(weights, "sum", mask)
    return reduce(weights * values, "sum", mask) / total.masked_fill(total == 0, 1.0)


def class_balanced_weights(counts: Sequence[int] | Tensor, *, beta: float = 0.9999) -> Tensor:
    r"""Weights of classes by their effective numbers of samples.

    .. math::
        w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \qquad \sum_c w_c = C

    Between no weighting at :math:`\beta = 0` and inverse frequency at :math:`\beta \to 1`.

    Args:
        counts: Training samples :math:`n_c` of each class, at least 1, shape ``(C,)``.
        beta: :math:`\beta`, at least 0 and below 1, dimensionless.

    Returns:
        Weights, positive with sum C, shape ``(C,)``, in the default dtype; computed in double precision.

    Raises:
        ShapeError: If ``counts`` is empty or has other axes.
        ValueError: If a count is below 1, or ``beta`` is out of range.

    Source:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", arXiv:1901.05555; DeiT-LT uses it for
        its deferred re-weighting.

    Example:
        >>> from lightning_kd.losses import class_balanced_weights
        >>> class_balanced_weights([100, 10, 1], beta=0.9)
        tensor([0.2393, 0.3674, 2.3932])
    """
    if not 0 <= beta < 1:
        raise ValueError(f"`beta` must be at least 0 and below 1, got {beta!r}.")
    numbers = torch.as_tensor(counts, dtype=torch.float64)
    if numbers.ndim != 1 or numbers.numel() == 0:
        raise ShapeError(f"`counts` must hold one number per class, got shape {tuple(numbers.shape)}.")
    if not bool((numbers >= 1).all()):
        raise ValueError(
            f"`counts` must be at least 1 each, got {numbers.min().item():g}: "
            "a class without samples has no effective number; leave it out of the label set."
        )
    weights = (1 - beta) / (1 - beta**numbers)
    return (weights * len(numbers) / weights.sum()).to(torch.get_default_dtype())


class HardTargetCrossEntropy(nn.Module):
    """Module form of `hard_target_cross_entropy`.

    Args:
        class_weights: Weight of each class, shape ``(C,)``; kept as a buffer outside of the state dict.
        label_smoothing: Share of the target that is spread over all classes.
        reduction: ``"mean"``, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown or ``label_smoothing`` out of range.
    """

    class_weights: Tensor | None

    def __init__(
        self, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_fraction("label_smoothing", label_smoothing)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return hard_target_cross_entropy(
            student_logits,
            teacher_logits,
            class_weights=self.class_weights,
            mask=mask,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"weighted={self.class_weights is not None}{smoothing}, reduction={self.reduction!r}"
