"""Recipes that choose the data: a part of it, data without labels, and classes that come one after another."""

import lightning.pytorch as pl
from torch import Tensor, nn

from lightning_kd._checks import check_positive
from lightning_kd.callbacks import KnowledgeDistillation, WeightAligning
from lightning_kd.errors import SetupError
from lightning_kd.objectives import (
    KD3KD,
    InstanceAlignmentKD,
    LogitKD,
    Objective,
    OldClassesKD,
    WeightAwareKD,
)
from lightning_kd.schedules import Weight
from lightning_kd.selection import distillation_share
from lightning_kd.taps import Tap
from lightning_kd.teachers import Teacher


def pruned_kd(
    teacher: nn.Module | Teacher, fraction: float, *, path: str = "", temperature: float = 4.0, full: float = 0.5
) -> KnowledgeDistillation:
    """Hinton's distillation on a part of the data, with the weight that goes with the fraction.

    Choose the part by `lightning_kd.selection.random_subset` or ``scored_subset``, and train on
    ``torch.utils.data.Subset(dataset, chosen)``. The source finds random parts as good as scored ones, and teachers
    larger than the student harmful on small parts.

    Args:
        teacher: A classifier that was trained on all data, or a cache of what it said of them.
        fraction: Share of the data that the student is trained on, above 0 and up to 1.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature.
        full: Weight of the term on the whole data, see `distillation_share`; the task loss has the rest.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Ben-Baruch et al., "Distilling the Knowledge in Data Pruning", arXiv:2403.07854; the form of the weight, the
        temperature and ``full`` are ours.

    Example:
        >>> recipe = pruned_kd(nn.Linear(4, 3), fraction=0.2)
        >>> recipe.objectives, recipe.task_weight
        ([LogitKD(temperature=4.0, weight=0.9)], 0.1)
    """
    share = distillation_share(fraction, full=full)
    term = LogitKD(temperature=temperature, weight=share)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=round(1.0 - share, 12))


def kd3(
    teacher: nn.Module,
    *,
    classifiers: tuple[str, str],
    path: str = "",
    keep: Weight = 0.5,
    alignment: float = 1.0,
    perturbed: bool = False,
) -> KnowledgeDistillation:
    """KD^3: images from the web without labels, of which each step takes those that both networks are sure of.

    Args:
        teacher: A trained classifier.
        classifiers: Paths of the linear classifiers in the student and in the teacher.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        keep: Share of each batch that is distilled: a number, or a schedule such as ``Ramp(0.3, 0.8, over=50)``.
        alignment: Weight of features and classifier beside the class scores.
        perturbed: Whether each batch holds images and then their perturbed twins, which are contrasted: return
            ``torch.cat([images, mix_distribution(images)]), labels.repeat(2)`` from ``on_after_batch_transfer``, with
            `lightning_kd.perturbation.mix_distribution`.

    Returns:
        The callback. The task loss is left out, so that unlabelled images can be used.

    Source:
        Ours, after Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
        arXiv:2307.11469, as far as its abstract goes; all formulas are ours.
    """
    terms: list[Objective] = [KD3KD(*classifiers, keep=keep, alignment=alignment)]
    if perturbed:
        terms.append(InstanceAlignmentKD(classifiers[0]))
    return KnowledgeDistillation(teacher, student=path, objectives=terms, task_weight=0.0)


def weight_aware(
    teacher: nn.Module, place: str | Tap, *, known: Tensor, labels: Tensor, path: str = ""
) -> KnowledgeDistillation:
    """WAD: unlabelled data that hold unknown classes, labelled by features of a teacher that needs no classifier.

    Args:
        teacher: A trained encoder, also one that learnt without labels.
        place: Where its feature of shape ``(N, d)`` is read.
        known: Features of labelled samples there, shape ``(M, d)``; see `lightning_kd.selection.sample_features`.
        labels: Their class indices, shape ``(M,)``.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback; the task loss, on labelled samples, keeps the weight 1.

    Source:
        Du et al., "Semi-Supervised Learning via Weight-aware Distillation under Class Distribution Mismatch",
        arXiv:2308.11874.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[WeightAwareKD(place, known, labels)])


def class_incremental(
    teacher: nn.Module, *, classifier: str, old_classes: int, classes: int, path: str = "", temperature: float = 2.0
) -> list[pl.Callback]:
    r"""Learn new classes without forgetting the old ones: distillation of the old network, then weight aligning.

    .. math::
        L = (1 - \lambda) \, \mathrm{CE} + \lambda \, \mathrm{KL}_T, \qquad
        \lambda = \frac{C_\mathrm{old}}{C_\mathrm{old} + C_\mathrm{new}}

    with the divergence over the old classes, without the factor :math:`T^2`. Train on the new samples and a memory of
    old ones, see `lightning_kd.selection.exemplar_subset`. The student starts as a copy of the teacher with a wider
    classifier, see `lightning_kd.incremental.extend_classifier`.

    Args:
        teacher: The network that was trained on the old classes.
        classifier: Path of the student's linear classifier inside the LightningModule.
        old_classes: Number of old classes.
        classes: Number of old and new classes.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: :math:`T`.

    Returns:
        The distillation and `WeightAligning`.

    Raises:
        SetupError: If there are no old or no new classes.
        ValueError: If ``temperature`` is not above 0.

    Source:
        Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning", arXiv:1911.07053.

    Example:
        >>> kd, aligning = class_incremental(nn.Linear(4, 3), classifier="net", old_classes=3, classes=6)
        >>> kd.task_weight, kd.objectives, aligning.old_classes
        (0.5, [OldClassesKD(temperature=2.0, weight=0.125)], 3)
    """
    if not 0 < old_classes < classes:
        raise SetupError(f"`classes` must be old and new ones, got {old_classes} old of {classes}.")
    check_positive("temperature", temperature)
    share = old_classes / classes
    term = OldClassesKD(temperature=temperature, weight=share / temperature**2)
    # A student that starts as a copy says of the old classes what its teacher says.
    kd = KnowledgeDistillation(
        teacher, student=path, objectives=[term], task_weight=round(1.0 - share, 12), allow=["zero"]
    )
    return [kd, WeightAligning(classifier, old_classes=old_classes)]
