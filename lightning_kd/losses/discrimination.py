"""The loss of a discriminator that tells a student's outputs from its teacher's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError


def discrimination(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Binary cross-entropy of a discriminator's two scores, "student" and "teacher", for outputs of both.

    .. math::
        L = \frac{1}{4N} \sum_n \bigl[ \zeta(-s_{n0}) + \zeta(s_{n1}) + \zeta(t_{n0}) + \zeta(-t_{n1}) \bigr],
        \qquad \zeta(x) = \log(1 + e^x)

    Gradients flow through both arguments: the discriminator learns from either. Cut the teacher's outputs from the
    graph in front of it.

    Args:
        student: The discriminator's scores of the student's outputs, shape ``(N, 2)``, floating point.
        teacher: Those of the teacher's outputs, same shape.

    Returns:
        Loss in nats, non-negative, at least float32, shape ``()``: ln 2 where the scores are 0.

    Raises:
        ShapeError: If the scores have another shape, or there are none.

    Source:
        Shen and Savvides, "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
        arXiv:2009.08453.

    Example:
        >>> from lightning_kd.losses import discrimination
        >>> discrimination(torch.zeros(3, 2), torch.zeros(3, 2))
        tensor(0.6931)
    """
    if student.shape != teacher.shape or student.ndim != 2 or student.shape[1] != 2 or len(student) == 0:
        raise ShapeError(
            f"`student` and `teacher` must be scores of shape (N, 2), got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}."
        )
    scores = torch.cat([student, teacher])
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    from_student = torch.tensor([1.0, 0.0], dtype=scores.dtype, device=scores.device)
    target = torch.cat([from_student.expand_as(student), (1 - from_student).expand_as(teacher)])
    return F.binary_cross_entropy_with_logits(scores, target)


class Discrimination(nn.Module):
    """Module form of `discrimination`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return discrimination(student, teacher)
