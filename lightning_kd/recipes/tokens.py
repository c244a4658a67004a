"""Recipes for transformers with a distillation token, made with `lightning_kd.students.with_distillation_token`."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.losses import class_balanced_weights
from lightning_kd.objectives import DeiTKD
from lightning_kd.objectives.deit import Kind
from lightning_kd.teachers import ResizedView


def deit(
    teacher: nn.Module, *, path: str = "", kind: Kind = "hard", temperature: float = 1.0, share: float = 0.5
) -> KnowledgeDistillation:
    """DeiT: the distillation token learns the decisions of the teacher, usually a convolutional network.

    In training the student returns ``(z_class, z_distillation)``; the module's loss is that of ``z_class``.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        kind: ``"hard"`` decisions or ``"soft"`` distributions.
        temperature: Softmax temperature of soft distillation.
        share: Weight of the term, in [0, 1]; the task loss has the rest.

    Returns:
        The callback.

    Source:
        Touvron et al., arXiv:2012.12877; soft distillation of the paper: temperature 3, share 0.1.
    """
    term = DeiTKD(kind=kind, temperature=temperature, weight=share)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=1.0 - share)


def deit_lt(
    teacher: nn.Module,
    class_counts: Sequence[int] | Tensor,
    *,
    path: str = "",
    reweight_from: int = 1100,
    teacher_size: tuple[int, int] | None = None,
) -> KnowledgeDistillation:
    """DeiT-LT: hard distillation of a long-tailed teacher on the student's own strong augmentations.

    The teacher was trained with weak augmentation, so that the student's images are out of its distribution, on
    purpose. Late in training its decisions are weighted by class.

    Args:
        teacher: A classifier trained on the long-tailed data.
        class_counts: Number of training samples of each class.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        reweight_from: Epoch from which classes are weighted: 1100 of 1200 for CIFAR-10-LT, 1200 of 1400 for
            ImageNet-LT.
        teacher_size: Height and width of the teacher's images; ``None`` gives it the student's. A `FrozenTeacher`
            brings its own transform instead.

    Returns:
        The callback.

    Source:
        Rangwani et al., "DeiT-LT: Distillation Strikes Back for Vision Transformer Training on Long-Tailed Datasets",
        arXiv:2404.02900.
    """
    weights = class_balanced_weights(class_counts)
    term = DeiTKD(kind="hard", class_weights=weights, reweight_from=reweight_from)
    transform = None if teacher_size is None else ResizedView(teacher_size, mode="bicubic")
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=0.5, input_transform=transform)
