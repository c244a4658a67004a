"""Losses between the two towers of vision-language models: which text goes with which image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce, without_autocast
from lightning_kd.losses.cross_entropy import soft_cross_entropy

Scale = float | Tensor
LOGIT_SCALE = 50.0


def affinity_mimicking(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    *,
    student_scale: Scale = LOGIT_SCALE,
    teacher_scale: Scale = LOGIT_SCALE,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy between the teacher's and the student's affinities of images and texts, in both directions.

    .. math::
        L = \tfrac12 \bigl[ \mathrm{CE}(A^t_{I \to T}, A^s_{I \to T})
                            + \mathrm{CE}(A^t_{T \to I}, A^s_{T \to I}) \bigr], \\
        A_{I \to T} = \mathrm{softmax}(\gamma \, \hat I \hat T^\top), \quad
        A_{T \to I} = \mathrm{softmax}(\gamma \, \hat T \hat I^\top)

    where the hat divides each row by its length and each side has its own scale :math:`\gamma`. Only affinities are
    compared, so the widths of student and teacher may differ. A cross-entropy is not zero at equality; its gradient
    is. No gradient flows to the teacher's tensors.

    Args:
        student_image: Image embeddings, shape ``(N, D_s)``, floating point; they need not have length 1.
        student_text: Embeddings of the texts of the same samples, same shape as ``student_image``.
        teacher_image: Shape ``(N, D_t)``.
        teacher_text: Same shape as ``teacher_image``.
        student_scale: :math:`\gamma^s > 0`, dimensionless: a number, or a tensor of shape ``()`` that may learn.
        teacher_scale: :math:`\gamma^t > 0`, likewise; it gets no gradient.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes do not fit or a tensor is empty.
        TypeError: If an embedding is not floating point.
        ValueError: If a scale given as a number is not a finite number above 0, or ``reduction`` is unknown.

    Source:
        Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", arXiv:2309.12314; the
        scale of 50 on both sides is that of the published scripts.

    Example:
        >>> import math
        >>> import torch
        >>> from lightning_kd.losses import affinity_mimicking
        >>> matched = torch.eye(2)  # logits 0 and log 3 are affinities 3/4 and 1/4: an entropy of 0.5623
        >>> affinity_mimicking(*[matched] * 4, student_scale=math.log(3.0), teacher_scale=math.log(3.0))
        tensor(0.5623)
    """
    check_reduction(reduction)
    _check_towers("student", student_image, student_text)
    _check_towers("teacher", teacher_image, teacher_text)
    if len(student_image) != len(teacher_image):
        raise ShapeError(
            "student and teacher must embed the same samples, "
            f"got {len(student_image)} and {len(teacher_image)} embeddings."
        )
    images, texts = operands(student_image, teacher_image, "_image"), operands(student_text, teacher_text, "_text")
    student = _affinities(images[0], texts[0], _checked("student_scale", student_scale))
    teacher = _affinities(images[1], texts[1], _checked("teacher_scale", teacher_scale))
    rows = soft_cross_entropy(student, teacher, reduction="none") + soft_cross_entropy(
        student.T, teacher.T, reduction="none"
    )
    return reduce(0.5 * rows, reduction)


def image_text_contrastive(
    image: Tensor, text: Tensor, *, scale: Scale = LOGIT_SCALE, reduction: Reduction = "mean"
) -> Tensor:
    r"""CLIP's contrastive loss: each image is to find its text among the batch's, and each text its image.

    .. math::
        L = -\tfrac12 \bigl[ \log A_{I \to T}(i, i) + \log A_{T \to I}(i, i) \bigr]

    with the affinities :math:`A` of `affinity_mimicking`. There is no teacher: both towers get gradient.

    Args:
        image: Image embeddings, shape ``(N, D)``, floating point; they need not have length 1.
        text: Embeddings of the texts of the same samples, same shape as ``image``.
        scale: :math:`\gamma > 0`, dimensionless: a number, or a tensor of shape ``()`` that may learn.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes differ, have not two axes or are empty.
        TypeError: If an embedding is not floating point.
        ValueError: If a scale given as a number is not a finite number above 0, or ``reduction`` is unknown.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020.

    Example:
        >>> import math
        >>> import torch
        >>> from lightning_kd.losses import image_text_contrastive
        >>> image_text_contrastive(torch.eye(2), torch.eye(2), scale=math.log(3.0))  # log 4/3
        tensor(0.2877)
    """
    check_reduction(reduction)
    _check_towers("", image, text)
    dtype = torch.promote_types(torch.promote_types(image.dtype, text.dtype), torch.float32)
    logits = _affinities(image.to(dtype), text.to(dtype), _checked("scale", scale))
    own = torch.arange(len(logits), device=logits.device)
    rows = F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")
    return reduce(0.5 * rows, reduction)


class AffinityMimicking(nn.Module):
    """Module form of `affinity_mimicking`.

    Args:
        student_scale: Factor of the student's cosines above 0, dimensionless.
        teacher_scale: Likewise for the teacher.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If a scale is not a finite number above 0, or ``reduction`` is unknown.
    """

    def __init__(
        self,
        *,
        student_scale: float = LOGIT_SCALE,
        teacher_scale: float = LOGIT_SCALE,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive("student_scale", student_scale)
        check_positive("teacher_scale", teacher_scale)
        check_reduction(reduction)
        self.student_scale = student_scale
        self.teacher_scale = teacher_scale
        self.reduction: Reduction = reduction

    @override
    def forward(
        self, student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor
    ) -> Tensor:
        return affinity_mimicking(
            student_image,
            student_text,
            teacher_image,
            teacher_text,
            student_scale=self.student_scale,
            teacher_scale=self.teacher_scale,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"student_scale={self.student_scale}, teacher_scale={self.teacher_scale}, reduction={self.reduction!r}"


class ImageTextContrastive(nn.Module):
    """Module form of `image_text_contrastive`.

    Args:
        scale: Factor of the cosines above 0, dimensionless.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``scale`` is not a finite number above 0, or ``reduction`` is unknown.
    """

    def __init__(self, *, scale: float = LOGIT_SCALE, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("scale", scale)
        check_reduction(reduction)
        self.scale = scale
        self.reduction: Reduction = reduction

    @override
    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return image_text_contrastive(image, text, scale=self.scale, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"scale={self.scale}, reduction={self.reduction!r}"


def _check_towers(side: str, image: Tensor, text: Tensor) -> None:
    names = [f"`{side}_{tower}`" if side else f"`{tower}`" for tower in ("image", "text")]
    if image.ndim != 2 or image.shape != text.shape or image.numel() == 0:
        raise ShapeError(
            f"{names[0]} and {names[1]} must be embeddings of one shape (samples, width) and not empty, "
            f"got {tuple(image.shape)} and {tuple(text.shape)}."
        )
    for name, tensor in zip(names, (image, text), strict=True):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}.")


def _checked(name: str, scale: Scale) -> Scale:
    if not isinstance(scale, Tensor):
        check_positive(name, scale)
    elif scale.ndim:
        raise ShapeError(f"`{name}` must be a number or a tensor of shape (), got shape {tuple(scale.shape)}.")
    return scale


def _affinities(image: Tensor, text: Tensor, scale: Scale) -> Tensor:
    with without_autocast(image):
        return scale * (F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T)
