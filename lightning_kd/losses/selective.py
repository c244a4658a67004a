"""Losses that teach only where the teacher is right more than the student: per pixel on scores, per region on features.

Each is one direction. Two networks that teach each other sum both: ``loss(a, b, ...) + loss(b, a, ...)``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce
from lightning_kd.losses.feature import cosine_distance
from lightning_kd.losses.logit import soft_target_kl

IGNORE_INDEX = 255
REGIONS = 4


def selective_pixel_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence from the teacher at the pixels where the teacher's cross-entropy is the lower one.

    .. math::
        L = \frac{1}{|V|} \sum_{u \in V} [\mathrm{CE}_t(u) < \mathrm{CE}_s(u)] \,
            \mathrm{KL}\bigl(p_t(u) \,\|\, p_s(u)\bigr)

    with :math:`V` the pixels that have a label. Where both are equally right nothing is transferred. The choice of
    pixels carries no gradient, nor does ``teacher_logits``: with roles exchanged, the same function teaches the teacher
    at the other pixels. Without a labelled pixel the loss is zero and keeps its graph.

    Args:
        student_logits: Unnormalised scores, shape ``(N, K, *grid)``, floating point; no grid for classification.
        teacher_logits: Unnormalised scores, same shape as ``student_logits``.
        labels: Class indices, shape ``(N, *grid)``, integer; or mixed labels, class probabilities of the logits' shape.
        ignore_index: Class index that marks a pixel without a label; 255 in the masks of most data sets.
        reduction: ``"mean"`` over the labelled pixels, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N, *grid)`` for ``"none"``.

    Raises:
        ShapeError: If the logits differ in shape or are empty, or the labels do not fit them.
        TypeError: If the logits are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        The idea, a direction for each pixel in score space: Zhu et al., "A Good Student is Cooperative and Reliable:
        CNN-Transformer Collaborative Learning for Semantic Segmentation", arXiv:2307.12574. Its code is not public and
        its formula is not confirmed: this one is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import selective_pixel_kl
        >>> student = torch.zeros(1, 2, 2)  # two pixels, even odds
        >>> teacher = torch.tensor([[[3.0, 1.0], [1.0, 3.0]]]).log()  # 3/4 for class 0, then 1/4
        >>> selective_pixel_kl(student, teacher, torch.tensor([[0, 0]]))  # right at the first pixel: 0.1308 / 2
        tensor(0.0654)
        >>> selective_pixel_kl(teacher, student, torch.tensor([[0, 0]]), reduction="none")  # at the second: ln(2/√3)
        tensor([[0.0000, 0.1438]])
    """
    check_reduction(reduction)
    advantage, labelled = _advantage(student_logits, teacher_logits, labels, ignore_index)
    student, teacher = student_logits.movedim(1, -1), teacher_logits.movedim(1, -1)
    terms = soft_target_kl(student, teacher, temperature=1.0, mask=advantage > 0, reduction="none")
    return reduce(terms, reduction, labelled)


def selective_region_cosine(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    regions: int = REGIONS,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    r"""One minus the cosine of two features, in the regions where the teacher's mean cross-entropy is the lower one.

    .. math::
        L = \frac{1}{|V|} \sum_{r \in V} [\overline{\mathrm{CE}}_t(r) < \overline{\mathrm{CE}}_s(r)] \,
            \bigl(1 - \cos(\bar s_r, \bar t_r)\bigr)

    The image is cut into ``regions`` x ``regions`` cells; :math:`\bar s_r` is the feature averaged over a cell,
    :math:`\overline{\mathrm{CE}}(r)` the cross-entropy averaged over its labelled pixels, and :math:`V` are the cells
    that have one. Features and scores may therefore have different grids. The choice of regions carries no gradient,
    nor does ``teacher``. Without a labelled pixel the loss is zero and keeps its graph.

    Args:
        student: Feature, shape ``(N, C, H, W)``, floating point.
        teacher: Feature, shape ``(N, C, H', W')``, floating point.
        student_logits: The student's unnormalised scores, shape ``(N, K, h, w)``, floating point.
        teacher_logits: The teacher's, same shape as ``student_logits``.
        labels: Class indices, shape ``(N, h, w)``, integer; or mixed labels, class probabilities of the logits' shape.
        regions: Cells along each axis; no more than any of the grids has.
        ignore_index: Class index that marks a pixel without a label.

    Returns:
        Loss, dimensionless, in [0, 2], at least float32, shape ``()``.

    Raises:
        ShapeError: If a tensor is no map or empty, has a grid smaller than ``regions``, or batches, widths, logits and
            labels do not fit together.
        TypeError: If features or logits are not floating point.
        ValueError: If ``regions`` is not above 0.

    Source:
        The idea, a direction for each region in feature space: Zhu et al., "A Good Student is Cooperative and
        Reliable: CNN-Transformer Collaborative Learning for Semantic Segmentation", arXiv:2307.12574. Its code is not
        public and its formula is not confirmed: this one is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import selective_region_cosine
        >>> student, teacher = torch.zeros(2, 1, 2, 4, 4).unbind()
        >>> student[:, 0], teacher[:, 1] = 1.0, 1.0  # orthogonal everywhere
        >>> student_logits, teacher_logits = torch.zeros(2, 1, 2, 4, 4).unbind()
        >>> teacher_logits[:, 0, :2, :2] = 1.0  # the teacher knows class 0 in one of the four regions
        >>> labels = torch.zeros(1, 4, 4, dtype=torch.long)
        >>> selective_region_cosine(student, teacher, student_logits, teacher_logits, labels, regions=2)
        tensor(0.2500)
    """
    check_positive("regions", regions)
    advantage, labelled = _advantage(student_logits, teacher_logits, labels, ignore_index)
    s, t = (_regional(feature, regions) for feature in operands(student, teacher))
    check_same_shape(s, t, "Regions")
    # Pixels without a label add nothing to either mean, so the sign of the summed difference compares the means.
    better = _regional(advantage[:, None], regions).squeeze(1) > 0
    seen = _regional(labelled[:, None].to(s.dtype), regions).squeeze(1) > 0
    check_same_shape(better, s[:, 0], "Regions of logits and features")
    return reduce(cosine_distance(s, t, reduction="none").masked_fill(~better, 0.0), "mean", seen)


class SelectivePixelKL(nn.Module):
    """Module form of `selective_pixel_kl`.

    Args:
        ignore_index: Class index that marks a pixel without a label.
        reduction: ``"mean"`` over the labelled pixels, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, ignore_index: int = IGNORE_INDEX, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        return selective_pixel_kl(
            student_logits, teacher_logits, labels, ignore_index=self.ignore_index, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class SelectiveRegionCosine(nn.Module):
    """Module form of `selective_region_cosine`.

    Args:
        regions: Cells along each axis.
        ignore_index: Class index that marks a pixel without a label.

    Raises:
        ValueError: If ``regions`` is not above 0.
    """

    def __init__(self, *, regions: int = REGIONS, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        check_positive("regions", regions)
        self.regions = regions
        self.ignore_index = ignore_index

    @override
    def forward(
        self, student: Tensor, teacher: Tensor, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
    ) -> Tensor:
        return selective_region_cosine(
            student,
            teacher,
            student_logits,
            teacher_logits,
            labels,
            regions=self.regions,
            ignore_index=self.ignore_index,
        )

    @override
    def extra_repr(self) -> str:
        return f"regions={self.regions}, ignore_index={self.ignore_index}"


def _advantage(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """By how much the teacher's cross-entropy is lower at each pixel, 0 without a label; and where there is a label."""
    check_same_shape(student_logits, teacher_logits, "Logits")
    student, teacher = (logits.detach() for logits in operands(student_logits, teacher_logits, "_logits"))
    mixed = labels.is_floating_point()
    target = labels.to(student.dtype) if mixed else labels.long()
    wanted = student.shape if mixed else student.shape[:1] + student.shape[2:]
    if target.shape != wanted:
        raise ShapeError(
            f"`labels` must have shape {tuple(wanted)} to fit logits of shape {tuple(student.shape)}, "
            f"got {tuple(target.shape)}."
        )
    # cross_entropy refuses any but its default index beside probabilities.
    ignored = -100 if mixed else ignore_index
    errors = [F.cross_entropy(x, target, ignore_index=ignored, reduction="none") for x in (student, teacher)]
    advantage = errors[0] - errors[1]
    return advantage, torch.ones_like(advantage, dtype=torch.bool) if mixed else target != ignore_index


def _regional(feature: Tensor, regions: int) -> Tensor:
    if feature.ndim != 4 or min(feature.shape[2:]) < regions:
        raise ShapeError(
            f"features and logits must be maps (N, C, H, W) of at least {regions}x{regions} cells, one for each of "
            f"`regions`, got shape {tuple(feature.shape)}: use a finer map or fewer `regions`."
        )
    return F.adaptive_avg_pool2d(feature, regions)
