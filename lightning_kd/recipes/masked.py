"""Recipes around masked autoencoders; student and teacher see the same visible patches, see `MaskedAutoencoder`."""

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.objectives import DMAEKD, G2SDKD, DeiTKD, FurtherPretrainingKD
from lightning_kd.schedules import Steps, Window


def dmae(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """DMAE: tokens of a masked autoencoder point where those of a larger one point, beside its reconstruction.

    Args:
        teacher: A trained `lightning_kd.students.MaskedAutoencoder`; only its first blocks run.
        path: Where the student's is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback. Published: 100 epochs, AdamW, base learning rate 1.5e-4, weight decay 0.05, 75 % hidden.

    Source:
        Bai et al., "Masked Autoencoders Enable Efficient Knowledge Distillers", arXiv:2208.12256.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[DMAEKD()])


def g2sd(
    masked_teacher: nn.Module,
    teacher: nn.Module,
    *,
    path: str = "",
    encoder: str = "encoder",
    generic_epochs: int = 300,
) -> list[KnowledgeDistillation]:
    """G2SD: a small masked autoencoder learns a large one's decoder, then its encoder learns the task.

    Both stages are one fit of a LightningModule whose step reconstructs in the first ``generic_epochs`` epochs and
    classifies after them. The network is ``MaskedAutoencoder(with_distillation_token(vit), ...)``: its encoder is the
    classifier of the second stage.

    Args:
        masked_teacher: A trained masked autoencoder, the generic teacher.
        teacher: The fine-tuned classifier made of it, the specific teacher.
        path: Where the masked autoencoder is in the LightningModule; ``""`` is the module itself.
        encoder: Where its encoder is below it.
        generic_epochs: Length of the first stage; the second was trained for 200 epochs.

    Returns:
        Two callbacks, in this order.

    Source:
        Huang et al., "Generic-to-Specific Distillation of Masked Autoencoders", arXiv:2302.14771. One fit instead of
        two trainings is ours.
    """
    generic = KnowledgeDistillation(
        masked_teacher,
        student=path,
        objectives=[G2SDKD(weight=Window(1.0, end=generic_epochs))],
        task_weight=Steps({0: 0.0, generic_epochs: 1.0}),
        name="generic",
    )
    specific = KnowledgeDistillation(
        teacher,
        student=f"{path}.{encoder}" if path else encoder,
        objectives=[DeiTKD(weight=Window(0.5, begin=generic_epochs))],
        task_weight=Steps({0: 1.0, generic_epochs: 0.5}),
        name="specific",
    )
    return [generic, specific]


def further_pretraining(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """Self-distillation for further pre-training: stay near the representations of an earlier run of the same kind.

    Args:
        teacher: A copy of the masked autoencoder after that run.
        path: Where the fresh one is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Lee et al., "Self-Distillation for Further Pre-training of Transformers", arXiv:2210.02871; from memory.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[FurtherPretrainingKD()])
