"""Recipes that distil relations: of the samples of a batch, of channels, of patches, of a memory bank."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.families import family_of, last_map_tap
from lightning_kd.objectives import CCKD, CRDKD, ICKD, PKTKD, RKD, SPKD, PairedObjective, PatchSimilarityKD
from lightning_kd.recipes._places import at_stages, place
from lightning_kd.teachers.frozen import unwrapped

LAST = at_stages([3])


def _at_the_last_stage(
    objective: PairedObjective, teacher: nn.Module, student: nn.Module, path: str
) -> KnowledgeDistillation:
    return KnowledgeDistillation(teacher, student=path, objectives=[place(objective, teacher, student, LAST, pairs=1)])


def sp(teacher: nn.Module, student: nn.Module, *, path: str = "", gather: bool = False) -> KnowledgeDistillation:
    """SP: which samples of the batch activate the last stage alike.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        gather: Whether samples of all ranks are compared.

    Returns:
        The callback.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682, with the weight of the
        CIFAR-100 baselines.
    """
    return _at_the_last_stage(SPKD((), (), gather=gather), teacher, student, path)


def rkd(teacher: nn.Module, student: nn.Module, *, path: str = "", gather: bool = False) -> KnowledgeDistillation:
    """RKD: distances between samples by 25, angles between triples by 50.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        gather: Whether samples of all ranks are compared.

    Returns:
        The callback.

    Source:
        Park et al., "Relational Knowledge Distillation", arXiv:1904.05068, with the weights of the CIFAR-100 baselines.
    """
    return _at_the_last_stage(RKD((), (), gather=gather), teacher, student, path)


def pkt(teacher: nn.Module, student: nn.Module, *, path: str = "", gather: bool = False) -> KnowledgeDistillation:
    """PKT: each sample's neighbours in the batch, as a distribution.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        gather: Whether samples of all ranks are compared.

    Returns:
        The callback.

    Source:
        Passalis and Tefas, arXiv:1803.10837, with the weight of the CIFAR-100 baselines.
    """
    return _at_the_last_stage(PKTKD((), (), gather=gather), teacher, student, path)


def cc(teacher: nn.Module, student: nn.Module, *, path: str = "", gather: bool = False) -> KnowledgeDistillation:
    """CC: how errors of neighbouring samples go together.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        gather: Whether samples of all ranks are compared.

    Returns:
        The callback.

    Source:
        Peng et al., "Correlation Congruence for Knowledge Distillation", arXiv:1904.01802, in the form and with the
        weight of the CIFAR-100 baselines.
    """
    return _at_the_last_stage(CCKD((), (), gather=gather), teacher, student, path)


def ickd(teacher: nn.Module, student: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """ICKD: which channels of the last stage go together, in each sample.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
        arXiv:2202.03680, with the weight of its CIFAR-100 runs.
    """
    return _at_the_last_stage(ICKD((), ()), teacher, student, path)


def patch_similarity(teacher: nn.Module, student: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """Which patches of an image look alike in the last stage.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Ours.
    """
    return _at_the_last_stage(PatchSimilarityKD((), ()), teacher, student, path)


def crd(
    teacher: nn.Module,
    student: nn.Module,
    labels: Sequence[int] | Tensor,
    *,
    path: str = "",
    negatives: int = 16384,
) -> KnowledgeDistillation:
    """CRD: each sample beside its own teacher feature and far from those of other classes, by two memory banks.

    The training data must tell the index of each sample, see `lightning_kd.indexed.IndexedDataset`.

    Args:
        teacher: A trained network of a known family.
        student: The network that the LightningModule trains, likewise.
        labels: Class of every sample of the training set, in the data set's order.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        negatives: How many negatives per sample; at most the samples of other classes.

    Returns:
        The callback.

    Raises:
        SetupError: If the family of a network is not known.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation", arXiv:1910.10699.
    """
    networks = {"student": student, "teacher": unwrapped(teacher)}
    for role, network in networks.items():
        if family_of(network) is None:
            raise SetupError(
                f"the family of the {role} ({type(network).__name__}) is not known, and contrast needs one place of "
                "it: name the layer before the classifier, CRDKD(student_layer, teacher_layer, labels=...)."
            )
    taps = [last_map_tap(network, role) for role, network in networks.items()]
    contrast = CRDKD(*taps, labels=labels, negatives=negatives)
    return KnowledgeDistillation(teacher, student=path, objectives=[contrast])
