"""Recipes whose teacher was asked beforehand: its soft labels, stored with the augmentation, are all that is learnt."""

from typing import TYPE_CHECKING

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.objectives import LogitKD

if TYPE_CHECKING:
    from lightning_kd.teachers import TeacherCache


def tinyvit(cache: "TeacherCache", *, path: str = "") -> KnowledgeDistillation:
    """TinyViT: pre-training on a large teacher's sparse soft labels, one view per epoch, without ground truth.

    Write the cache with ``SeededReplay`` or ``MixedReplay`` and as many views as there are epochs, with ``top_k=100``
    for ImageNet-21k and 10 for ImageNet-1k; train on ``cache.dataset(data, replay=...)``. Published: 90 epochs of
    ImageNet-21k, then 30 epochs of ImageNet-1k with labels and without distillation. Dataset Reinforcement
    (arXiv:2303.08983) has the same loss on ``Views(choice="random")``.

    Args:
        cache: The teacher's outputs.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback. The published loss is the cross-entropy, whose gradient is that of the divergence here.

    Source:
        Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", arXiv:2207.10666.
    """
    return _soft_labels(cache, path)


def fkd(cache: "TeacherCache", *, path: str = "") -> KnowledgeDistillation:
    """FKD: soft labels of many crops of each image; a batch holds several crops of every image that it reads.

    Write the cache with ``CropReplay(size=224, scale=(0.08, 0.936))``, ``top_k=5`` and up to 500 views; train on
    ``cache.dataset(data, replay=..., views=Views(choice="random", crops=4))`` with a quarter of the batch size and of
    the epochs. Published: no other loss. FerKD (arXiv:2312.17473) gives the cache a ``RegionCalibration`` and the views
    a ``SelfMix`` beside.

    Args:
        cache: The teacher's outputs.
        path: Where the student is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", arXiv:2112.01528.
    """
    return _soft_labels(cache, path)


def _soft_labels(cache: "TeacherCache", path: str) -> KnowledgeDistillation:
    return KnowledgeDistillation(
        cache, student=path, objectives=[LogitKD(temperature=1.0, name="soft_labels")], task_weight=0.0
    )
