"""Losses on class scores."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import check_temperature, divergence, score_operands

EPSILON = 1e-7


def soft_target_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float | Tensor = 4.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Temperature-scaled KL divergence from the teacher's to the student's class distribution.

    .. math::
        L = T^2 \sum_c p_c \log\frac{p_c}{q_c}, \qquad
        p = \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    The factor :math:`T^2` keeps the gradient's scale roughly independent of ``temperature``. Both softmaxes
    are taken in at least float32: half inputs are promoted, float64 stays. No gradient flows to ``teacher_logits``.
    A class that the teacher masks with ``-inf`` has :math:`p_c = 0` and contributes nothing.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        temperature: :math:`T > 0`, dimensionless. ``1.0`` is the plain KL divergence. A tensor of shape ``()`` gets a
            gradient through both softmaxes and the factor; its value is not checked.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all. Scores elsewhere influence
            neither value nor gradient.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: a scalar of shape ``()``, or shape ``(...)`` for ``"none"``. Where
        nothing counts it is a 0 that keeps the graph.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` or ``temperature`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import soft_target_kl
        >>> teacher_logits = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3/4 and 1/4
        >>> soft_target_kl(torch.zeros(1, 2), teacher_logits, temperature=1.0)
        tensor(0.1308)
    """
    check_temperature(temperature)
    check_reduction(reduction)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(student)
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * reduce(divergence(log_p, log_q), reduction, mask)


def class_mean_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""`soft_target_kl` over the number of classes: the mean over classes where that has the sum.

    .. math::
        L = \frac{T^2}{C} \sum_c p_c \log\frac{p_c}{q_c}

    The soft form of DeiT, LGViT and TLEG. It is the same loss with a weight :math:`C` times smaller, and a name of its
    own because exchanging the two silently is the most common difference between implementations.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        temperature: :math:`T > 0`, dimensionless.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Touvron et al., "Training data-efficient image transformers & distillation through attention",
        arXiv:2012.12877, whose code keeps the mean over classes on purpose; the paper's formula has their sum.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import class_mean_kl
        >>> teacher_logits = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3/4 and 1/4
        >>> class_mean_kl(torch.zeros(1, 2), teacher_logits)  # 0.1308 / 2
        tensor(0.0654)
    """
    loss = soft_target_kl(student_logits, teacher_logits, temperature=temperature, mask=mask, reduction=reduction)
    return loss / student_logits.shape[-1]


def standardize_logits(logits: Tensor) -> Tensor:
    r"""Logits with mean 0 and standard deviation 1 over the classes, at each position.

    .. math::
        \hat z = \frac{z - \bar z}{\sigma(z) + 10^{-7}}

    with the unbiased standard deviation. Distilling standardised logits of both sides teaches how the classes are
    ranked and spread, not how large the scores are: the loss ignores :math:`z \to a z + b` with :math:`a > 0`. Equal
    scores give zeros without gradient. Scores of ``-inf`` are not supported.

    Args:
        logits: Unnormalised scores, shape ``(..., C)`` with at least 2 classes, floating point.

    Returns:
        Standardised scores, dimensionless, at least float32, shape ``(..., C)``.

    Raises:
        ShapeError: If there are fewer than 2 classes.
        TypeError: If ``logits`` is not floating point.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation", arXiv:2403.01427, which distils the result with
        temperature 2 and weight 9.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import standardize_logits
        >>> standardize_logits(torch.tensor([[10.0, 20.0, 30.0]]))
        tensor([[-1.,  0.,  1.]])
    """
    if not logits.is_floating_point():
        raise TypeError(f"`logits` must be a floating-point tensor, got {logits.dtype}.")
    if logits.ndim == 0 or logits.shape[-1] < 2:
        raise ShapeError(f"`logits` must tell at least 2 classes apart, got shape {tuple(logits.shape)}.")
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    deviation, mean = torch.std_mean(scores, dim=-1, keepdim=True)
    return (scores - mean) / (deviation + EPSILON)


class SoftTargetKL(nn.Module):
    """Module form of `soft_target_kl`.

    Args:
        temperature: Softmax temperature :math:`T > 0`, dimensionless.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Example:
        >>> from lightning_kd.losses import SoftTargetKL
        >>> SoftTargetKL(temperature=2.0)
        SoftTargetKL(temperature=2.0, reduction='mean')
    """

    def __init__(self, *, temperature: float = 4.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return soft_target_kl(
            student_logits, teacher_logits, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class ClassMeanKL(nn.Module):
    """Module form of `class_mean_kl`.

    Args:
        temperature: Softmax temperature :math:`T > 0`, dimensionless.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.
    """

    def __init__(self, *, temperature: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return class_mean_kl(
            student_logits, teacher_logits, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"
