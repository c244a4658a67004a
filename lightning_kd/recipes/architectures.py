"""Recipes made for teachers and students of different architectures."""

from collections.abc import Sequence

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.families import family_of
from lightning_kd.losses.ofa import Variant
from lightning_kd.objectives import OFAKD, LogitKD, ScaleKD
from lightning_kd.teachers.frozen import unwrapped


def ofa_kd(
    teacher: nn.Module,
    *,
    path: str = "",
    exponent: float | Sequence[float] = 1.5,
    variant: Variant = "code",
) -> KnowledgeDistillation:
    """OFA-KD: branches lead from each stage of the student to class scores, which learn the teacher's.

    Args:
        teacher: A trained classifier of any architecture.
        path: Where the student, of a known family, is in the LightningModule; ``""`` is the module itself.
        exponent: Enhancement of the right class; 1.5 is published for ImageNet, 1 for CIFAR-100.
        variant: ``"code"`` or ``"paper"``.

    Returns:
        The callback. A student of unknown family is an error at setup: branches need its stages, name them with
        `OFAKD`.

    Source:
        Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
        arXiv:2310.19444.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[OFAKD(exponent=exponent, variant=variant)])


def scalekd(
    teacher: nn.Module, *, path: str = "", heads: tuple[int, int] = (8, 8), logits: bool = True
) -> KnowledgeDistillation:
    """ScaleKD: projectors by cross-attention, in two views, and once through the teacher's own last stage.

    Weights and sharpness are those published for Swin-L, and for a plain transformer those for EVA-L and ResNet-50.

    Args:
        teacher: A trained transformer of a known family.
        path: Where the student, of a known family, is in the LightningModule; ``""`` is the module itself.
        heads: Attention heads of the projectors of the third and the last stage; (16, 24) for Swin-L.
        logits: Whether teacher and task each have half of the loss on the class scores, as in the advanced training;
            ``False`` leaves the task loss alone, as in the traditional one.

    Returns:
        The callback.

    Source:
        Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", arXiv:2411.06786.
    """
    features = _of_two_views(teacher, heads)
    if not logits:
        return KnowledgeDistillation(teacher, student=path, objectives=[features])
    # Cross-entropy with soft targets and KL divergence differ by the teacher's entropy, which has no gradient.
    soft = LogitKD(temperature=1.0, weight=0.5)
    return KnowledgeDistillation(teacher, student=path, objectives=[features, soft], task_weight=0.5)


def _of_two_views(teacher: nn.Module, heads: tuple[int, int]) -> ScaleKD:
    family = family_of(unwrapped(teacher))
    if family is None or family.kind != "isotropic":
        return ScaleKD(heads=heads)
    return ScaleKD(heads=heads, spatial_weights=(0.016, 0.016), frequency_weights=(0.008, 0.008), sharpness=0.2)
