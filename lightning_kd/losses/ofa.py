"""Cross-entropy with a teacher's distribution in which the right class is enhanced (OFA-KD)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import checked_target, score_operands

Variant = Literal["code", "paper"]


def one_for_all(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    exponent: float = 1.5,
    temperature: float = 1.0,
    variant: Variant = "code",
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the student under the teacher's distribution, the target class enhanced (OFA-KD).

    .. math::
        L = -\sum_c t_c \log q_c, \qquad p = \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    with :math:`o` the one-hot target and the weights

    .. math::
        t_c = (p_c + o_c)^g - o_c \quad \text{(code)}, \qquad
        t_c = o_c (1 + p_c)^g + (1 - o_c) \, p_c \quad \text{(paper)}

    There is no factor :math:`T^2`. With :math:`g = 1` the code's form is `soft_cross_entropy`. The weights do not sum
    to 1 in general, and the loss is not zero at equality. No gradient flows to ``teacher_logits``.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)`` with at least 2 classes, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        target: Class indices, shape ``(...)``, integer; for mixed labels their largest class.
        exponent: :math:`g > 0`, dimensionless; above 1 the target class counts more.
        temperature: :math:`T > 0`, dimensionless.
        variant: ``"code"`` or ``"paper"``.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all. Elsewhere ``target`` may
            hold anything.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes do not fit, or there are fewer than 2 classes.
        TypeError: If the logits are not floating point, ``target`` not integer or ``mask`` not boolean.
        ValueError: If an option, or on the CPU a class index, is out of range.

    Source:
        Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
        arXiv:2310.19444. The default is the form of its code, which the published results come from: it raises every
        class to the exponent and gives the target :math:`(1 + p)^g - 1`. The paper's form, from memory and not
        checked against its text, enhances the target only. Shown exponents: 1.5 for DeiT-T to ResNet-18 on ImageNet,
        1 for Swin-T to ResNet-18 on CIFAR-100.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import one_for_all
        >>> teacher = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3/4 and 1/4
        >>> one_for_all(torch.zeros(1, 2), teacher, torch.tensor([0]), exponent=2.0)  # (33/16 + 1/16) log 2
        tensor(1.4729)
    """
    check_positive("exponent", exponent)
    check_positive("temperature", temperature)
    check_choice("variant", variant, ("code", "paper"))
    check_reduction(reduction)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    index = checked_target(target, student_logits, mask)
    log_q = F.log_softmax(student / temperature, dim=-1)
    weights = _enhanced(F.softmax(teacher / temperature, dim=-1), index, exponent, variant)
    return reduce(-(weights * log_q.masked_fill(weights == 0, 0.0)).sum(dim=-1), reduction, mask)


class OneForAll(nn.Module):
    """Module form of `one_for_all`.

    Args:
        exponent: Enhancement of the target class, above 0, dimensionless.
        temperature: Softmax temperature above 0, dimensionless.
        variant: ``"code"`` or ``"paper"``.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(
        self,
        *,
        exponent: float = 1.5,
        temperature: float = 1.0,
        variant: Variant = "code",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive("exponent", exponent)
        check_positive("temperature", temperature)
        check_choice("variant", variant, ("code", "paper"))
        check_reduction(reduction)
        self.exponent = exponent
        self.temperature = temperature
        self.variant: Variant = variant
        self.reduction: Reduction = reduction

    @override
    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return one_for_all(
            student_logits,
            teacher_logits,
            target,
            exponent=self.exponent,
            temperature=self.temperature,
            variant=self.variant,
            mask=mask,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return (
            f"exponent={self.exponent}, temperature={self.temperature}, variant={self.variant!r}, "
            f"reduction={self.reduction!r}"
        )


def _enhanced(probabilities: Tensor, index: Tensor, exponent: float, variant: Variant) -> Tensor:
    """Weight of each class, where ``index`` ``(..., 1)`` is the right one."""
    raised = (1 + probabilities.gather(-1, index)) ** exponent
    if variant == "paper":
        return probabilities.scatter(-1, index, raised)
    return (probabilities**exponent).scatter(-1, index, raised - 1)
