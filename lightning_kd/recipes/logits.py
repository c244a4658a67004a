"""Recipes that distil what the networks finally say: any two networks with one label set."""

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.objectives import CTKD, DISTKD, DKD, NKD, TAIDKD, LogitKD, SkewKLKD, SymmetricKLKD
from lightning_kd.recipes._weights import rest_of
from lightning_kd.schedules import Ramp
from lightning_kd.teachers import FrozenTeacher


def kd(teacher: nn.Module, *, path: str = "", temperature: float = 4.0, share: float = 0.9) -> KnowledgeDistillation:
    """Hinton's distillation.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature; 4 is usual for CIFAR-100, 1 for ImageNet.
        share: Weight of the term, in [0, 1]; the task loss has the rest. ImageNet: 0.5.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Hinton, Vinyals and Dean, arXiv:1503.02531, with the weights of the CIFAR-100 baselines.

    Example:
        >>> recipe = kd(nn.Linear(4, 3))
        >>> recipe.objectives, recipe.task_weight
        ([LogitKD(temperature=4.0, weight=0.9)], 0.1)
    """
    return KnowledgeDistillation(
        teacher, student=path, objectives=[LogitKD(temperature=temperature, weight=share)], task_weight=rest_of(share)
    )


def lskd(teacher: nn.Module, *, path: str = "", temperature: float = 2.0, weight: float = 9.0) -> KnowledgeDistillation:
    """Logit standardisation: Hinton's distillation of scores brought to mean 0 and deviation 1 in each sample.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature; some pairs use 3.
        weight: Factor of the term; the task loss has 0.1.

    Returns:
        The callback.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.
    """
    term = LogitKD(temperature=temperature, standardize=True, weight=weight)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=0.1)


def dkd(
    teacher: nn.Module,
    *,
    path: str = "",
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    warm_up_epochs: int = 20,
) -> KnowledgeDistillation:
    """DKD: the target class against the rest, and the rest among themselves, weighted apart.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        alpha: Weight of the target class.
        beta: Weight of the others: 8 for ResNet32x4 to ResNet8x4 and most pairs of two families, 6 for VGGs and wide
            ResNets, 2 for narrow ResNets; 0.5 for ImageNet.
        temperature: Softmax temperature; 1 for ImageNet.
        warm_up_epochs: Epochs in which the term rises to its weight; 1 for ImageNet.

    Returns:
        The callback.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679.

    Example:
        >>> from lightning_kd import Progress
        >>> weight = dkd(nn.Linear(4, 3)).objectives[0].weight
        >>> [round(weight(Progress(epoch=epoch)), 3) for epoch in (0, 1, 19, 200)]
        [0.05, 0.1, 1.0, 1.0]
    """
    term = DKD(temperature=temperature, alpha=alpha, beta=beta, weight=_warm_up(warm_up_epochs))
    return KnowledgeDistillation(teacher, student=path, objectives=[term])


def nkd(teacher: nn.Module, *, path: str = "", temperature: float = 1.0, gamma: float = 1.5) -> KnowledgeDistillation:
    """NKD: the target class weighted by the teacher, the others normalised.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature: 1 for ImageNet, 3 for CIFAR-100.
        gamma: Weight of the other classes: 1.5 for ImageNet (1 for DeiT), 3.5 for CIFAR-100.

    Returns:
        The callback.

    Source:
        Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized
        Loss and Customized Soft Labels", arXiv:2303.13005.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[NKD(temperature=temperature, gamma=gamma)])


def dist(
    teacher: nn.Module, *, path: str = "", temperature: float = 4.0, gather: bool = False
) -> KnowledgeDistillation:
    """DIST: correlations over the classes of each sample and over the samples of each class, for strong teachers.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature: 4 for CIFAR-100, 1 for ImageNet.
        gather: Whether samples of all ranks are correlated.

    Returns:
        The callback.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[DISTKD(temperature=temperature, gather=gather)])


def ctkd(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """CTKD: a temperature that learns to make distillation harder, more so over ten epochs.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Li et al., "Curriculum Temperature for Knowledge Distillation", arXiv:2211.16231: one temperature for all
        samples.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[CTKD()], task_weight=0.1)


def ssld(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """SSLD: symmetric KL divergence without labels; the teacher's BatchNorm normalises by the batch.

    Args:
        teacher: A trained classifier; a `FrozenTeacher` keeps its own setting of BatchNorm.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback. The task loss is left out, so that unlabelled images can be used; fine-tuning with labels follows.

    Source:
        Cui et al., "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
        Backbones", arXiv:2103.05959, in the form of its code, which is not the Jensen-Shannon divergence it names.
    """
    frozen = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher, batch_statistics=True)
    return KnowledgeDistillation(frozen, student=path, objectives=[SymmetricKLKD()], task_weight=0.0)


def taid(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """TAID: the target moves from the student's own distribution to the teacher's.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Shing et al., "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in Language
        Models", arXiv:2501.16937. Beside a task loss, and for images, is ours.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[TAIDKD()])


def skew_kl(teacher: nn.Module, *, path: str = "", skew: float = 0.1, reverse: bool = False) -> KnowledgeDistillation:
    """DistiLLM: KL divergence to a mixture of both distributions.

    Args:
        teacher: A trained classifier.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        skew: Share of the other distribution in the mixture.
        reverse: Whether the divergence is the student's from the mixture.

    Returns:
        The callback.

    Source:
        Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", arXiv:2402.03898. Beside a
        task loss, and for images, is ours.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[SkewKLKD(skew=skew, reverse=reverse)])


def _warm_up(epochs: int) -> Ramp | float:
    """The factor min(epoch / epochs, 1), with epochs counted from 1."""
    return 1.0 if epochs <= 1 else Ramp(1.0 / epochs, 1.0, over=epochs - 1)
