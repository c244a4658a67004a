"""Recipes for speech encoders that become smaller while they are distilled."""

from collections.abc import Sequence
from typing import Literal

import lightning.pytorch as pl
from torch import nn

from lightning_kd._checks import check_choice
from lightning_kd.callbacks import ElasticSampling, KnowledgeDistillation, StructuredPruning
from lightning_kd.errors import SetupError
from lightning_kd.losses.contextual import HiddenFrameDistance
from lightning_kd.objectives import DPHuBERTKD, Objective
from lightning_kd.objectives.adaptive_computation import ACMBudget, ACMGateKD, ACMModuleKD
from lightning_kd.objectives.lighthubert import LightHuBERTKD, without_spans
from lightning_kd.schedules import Weight


def dphubert(
    teacher: nn.Module,
    *,
    path: str = "",
    groups: Sequence[Sequence[int]] = ((0,), (4, 8, 12)),
    sparsity: float = 0.75,
    sparsity_steps: int = 5000,
    learning_rate: Weight = 0.02,
) -> tuple[KnowledgeDistillation, StructuredPruning]:
    """DPHuBERT, first stage: a copy of the teacher learns which of its parts to keep while it is distilled.

    After ``fit``, ``pruning.prune(student)`` is the smaller network; train it with `dphubert_second_stage`. There is no
    task loss. Published: crops without padding, 50,000 steps of AdamW at 2e-4 after 15,000 of warm-up, no weight decay,
    gradients clipped at 10; the gates' rate follows the same course.

    Args:
        teacher: A trained HuBERT or wav2vec 2.0 encoder; the student starts as a copy of it, without LayerDrop and
            SpecAugment.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        groups: Layers that are compared, those in a group with one linear layer, see `DPHuBERTKD`.
        sparsity: Share of the encoder's parameters to remove.
        sparsity_steps: Steps until that is asked for.
        learning_rate: Of gates and multipliers: a number, or a schedule.

    Returns:
        Both callbacks.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.
    """
    kd = KnowledgeDistillation(teacher, student=path, objectives=[DPHuBERTKD(groups)], task_weight=0.0)
    pruning = StructuredPruning(
        sparsity=sparsity, sparsity_steps=sparsity_steps, learning_rate=learning_rate, student=path
    )
    return kd, pruning


def dphubert_second_stage(first: KnowledgeDistillation) -> KnowledgeDistillation:
    """DPHuBERT, second stage: the pruned network is distilled on, with the linear layers of the first stage.

    Published: 25,000 steps at 1e-4 after 5,000 of warm-up.

    Args:
        first: The distillation of the first stage, after its ``fit``.

    Returns:
        The callback for the ``fit`` of the pruned network.

    Source:
        Peng et al., "DPHuBERT", arXiv:2305.17651.
    """
    return KnowledgeDistillation(
        first.teacher, student=first.student, objectives=first.objectives, task_weight=first.task_weight
    )


def lighthubert(
    teacher: nn.Module,
    *,
    path: str = "",
    stage: Literal[1, 2] = 2,
    average_top: int | None = None,
    distance: HiddenFrameDistance = "mse",
    seed: int = 0,
) -> list[pl.Callback]:
    """LightHuBERT: a supernet learns what its teacher hears where spans are hidden from it.

    Stage 1 trains the largest network of a `lightning_kd.students.SpeechSupernet`; stage 2 is another ``fit`` of the
    same supernet with a random sub-network at each step. `lightning_kd.students.find_subnet` then chooses one, and
    ``supernet.extract`` makes it. The module's step hides spans:
    ``self.net(audio, attention_mask=mask, mask_time_indices=spans)``.

    Args:
        teacher: A trained HuBERT or wav2vec 2.0 encoder.
        path: Where the supernet is in the LightningModule; ``""`` is the module itself.
        stage: 1 or 2.
        average_top: What is regressed, see `LightHuBERTKD`.
        distance: ``"mse"``, ``"l1"`` or ``"smooth_l1"``.
        seed: Decides which sub-networks are drawn.

    Returns:
        The distillation, and in stage 2 `ElasticSampling`. There is no task loss.

    Raises:
        ValueError: If ``stage`` is neither 1 nor 2.

    Source:
        Wang et al., "LightHuBERT: Lightweight and Configurable Speech Representation Learning with Once-for-All
        Hidden-Unit BERT", arXiv:2203.15610; target and distance are from memory.
    """
    check_choice("stage", stage, (1, 2))
    kd = KnowledgeDistillation(
        teacher,
        student=path,
        objectives=[LightHuBERTKD(average_top=average_top, distance=distance)],
        task_weight=0.0,
        input_transform=without_spans,
        name=f"lighthubert_{stage}",
    )
    return [kd] if stage == 1 else [kd, ElasticSampling(student=path, seed=seed)]


def adaptive_computation(
    teacher: nn.Module | None,
    *,
    path: str = "",
    phase: Literal[1, 2, 3],
    target: float = 0.6,
    objectives: Sequence[Objective] = (),
) -> KnowledgeDistillation:
    """Adaptive computation modules, one ``fit`` for each of three phases.

    The student is ``with_adaptive_computation(teacher)``. In phase 1 its optimiser has
    ``adaptive_parameters(student, "learners")``, in phase 2 those of the ``"gate"``, in phase 3 all.

    Args:
        teacher: The trained network; in phase 3 only ``objectives`` need it, and ``None`` goes without.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        phase: 1 trains learners, 2 gates, 3 everything with the task.
        target: Share of the modules' full cost that phase 3 is to use.
        objectives: What is distilled beside the task in phase 3.

    Returns:
        The callback. Published: 2, 1 and 97 epochs; Adam at 1e-3, 1e-2 and 1e-4.

    Raises:
        SetupError: If there are ``objectives`` in phase 1 or 2.
        ValueError: If ``phase`` or ``target`` is out of range.

    Source:
        Wójcik et al., "Adaptive Computation Modules: Granular Conditional Computation for Efficient Inference",
        arXiv:2312.10193. Distillation in phase 3 is ours.
    """
    check_choice("phase", phase, (1, 2, 3))
    if objectives and phase != 3:
        raise SetupError(f"`objectives` belong to phase 3, got them in phase {phase}: leave them out.")
    first: Objective = (ACMModuleKD(), ACMGateKD(), ACMBudget(target=target))[phase - 1]
    return KnowledgeDistillation(
        teacher,
        student=path,
        objectives=[first, *objectives],
        task_weight=1.0 if phase == 3 else 0.0,
        name=f"acm_{phase}",
    )
