"""Recipes that distil what goes on inside transformers, and self-distillation on the way through a network."""

from dataclasses import replace
from typing import Literal

from torch import nn

from lightning_kd.attention import attention_paths
from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.families import last_map_tap
from lightning_kd.objectives import HybridKD, LGViTKD, MiniLMKD, MultiExitKD, TinyBERTKD, TinyBERTLogitKD
from lightning_kd.objectives.exits import ExitTarget
from lightning_kd.recipes.stages import Stage, in_stages
from lightning_kd.students.peers import Peers
from lightning_kd.teachers import FrozenTeacher
from lightning_kd.teachers.frozen import unwrapped


def tinybert(teacher: nn.Module, *, path: str = "", first_epochs: int = 10) -> KnowledgeDistillation:
    """TinyBERT: attention scores, hidden states and embeddings first, then the predictions alone.

    Args:
        teacher: A trained transformer with as many heads as the student, and a multiple of its blocks.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        first_epochs: Length of the first stage.

    Returns:
        The callback, with two stages of one fit and no task loss, as published.

    Source:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", arXiv:1909.10351. The length of the
        first stage is for language tasks, and stages of one fit instead of two trainings are ours.
    """
    objectives = in_stages(Stage([TinyBERTKD()], first_epochs), Stage([TinyBERTLogitKD()]))
    return KnowledgeDistillation(teacher, student=path, objectives=objectives, task_weight=0.0)


def minilm(
    teacher: nn.Module, *, path: str = "", version: Literal[1, 2] = 2, relation_heads: int | None = None
) -> KnowledgeDistillation:
    """MiniLM: the relations of queries, keys and values in the last block, beside the task loss.

    Args:
        teacher: A trained transformer that sees as many tokens as the student.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        version: 2 for any widths and heads; 1 compares attention and values, with equally many heads.
        relation_heads: Version 2 only: number of relation heads, a divisor of both widths; ``None`` takes 48.

    Returns:
        The callback.

    Raises:
        ValueError: If version 1 is given ``relation_heads``.

    Source:
        Wang et al., "MiniLMv2", arXiv:2012.15828; version 1 arXiv:2002.10957. The task loss beside it is ours; the
        publications pre-train without labels.
    """
    return KnowledgeDistillation(
        teacher, student=path, objectives=[MiniLMKD(version=version, relation_heads=relation_heads)]
    )


def lgvit(*, path: str = "") -> KnowledgeDistillation:
    """LGViT's second stage: local and global early exits learn from the end of their own network.

    Args:
        path: Where the student, made with `lightning_kd.students.EarlyExits`, is in the LightningModule.

    Returns:
        The callback, without a teacher. Freeze the backbone, as published; one that trains is accepted, too.

    Source:
        Xu et al., "LGViT: Dynamic Early Exiting for Accelerating Vision Transformer", arXiv:2308.00255.
    """
    return KnowledgeDistillation(None, student=path, objectives=[LGViTKD()], task_weight=0.7, allow=["frozen"])


def multi_exit(*, path: str = "", target: ExitTarget = "final") -> KnowledgeDistillation:
    """Every early exit learns from the end of its own network, from the next exit, or from the mean of all.

    Args:
        path: Where the student, made with `lightning_kd.students.EarlyExits`, is in the LightningModule.
        target: ``"final"``, ``"next"`` or ``"ensemble"``.

    Returns:
        The callback, without a teacher.

    Source:
        After Zhang et al., "Be Your Own Teacher", arXiv:1905.08094; the other targets are ours.
    """
    return KnowledgeDistillation(None, student=path, objectives=[MultiExitKD(target=target)])


def hybrid(
    masked_teacher: nn.Module, feature_teacher: nn.Module, student: nn.Module, *, path: str = ""
) -> KnowledgeDistillation:
    """Hybrid Distillation: token relations of a masked-image teacher, final features of another teacher.

    Args:
        masked_teacher: A vision transformer trained by masked image modelling.
        feature_teacher: One trained with labels or by contrast, on as many patches.
        student: The vision transformer that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback. Relations are read at two thirds of the depth.

    Raises:
        SetupError: If a network's family or its attention modules are not known, or a teacher comes with an input
            transform or batch statistics of its own.

    Source:
        Ours, after Shi et al., "Hybrid Distillation: Connecting Masked Autoencoders with Contrastive Learners",
        arXiv:2306.15876, whose code is not public.
    """
    for role, teacher in (("masked_teacher", masked_teacher), ("feature_teacher", feature_teacher)):
        if isinstance(teacher, FrozenTeacher) and (teacher.input_transform is not None or teacher.batch_statistics):
            raise SetupError(
                f"`{role}` must see the student's images in evaluation mode, as both teachers run as one, got a "
                "FrozenTeacher with options: build HybridKD, and KnowledgeDistillation(FrozenTeacher(Peers(...)))."
            )
    relations = _at_two_thirds(student, "student"), f"a.{_at_two_thirds(masked_teacher, 'masked_teacher')}"
    last = last_map_tap(unwrapped(feature_teacher), "feature_teacher")
    term = HybridKD(*relations, last_map_tap(student, "student"), replace(last, path=f"b.{last.path}"))
    peers = Peers(unwrapped(masked_teacher), unwrapped(feature_teacher))
    return KnowledgeDistillation(peers, student=path, objectives=[term])


def _at_two_thirds(network: nn.Module, name: str) -> str:
    paths = attention_paths(unwrapped(network), name)
    return paths[2 * len(paths) // 3]
