"""Knowledge distillation for PyTorch Lightning: one callback distils any LightningModule from any teacher."""

from typing import TYPE_CHECKING

from lightning_kd._lazy import lazy_names

if TYPE_CHECKING:
    from lightning_kd.callbacks import (
        ElasticSampling,
        ExportStudent,
        GradualChannelPruning,
        KnowledgeDistillation,
        LatencyBudget,
        LatencyMonitor,
        LowBitTraining,
        QuantizationAwareTraining,
        StructuredPruning,
        TeacherIntervention,
        TwoFourSparsity,
        WeightAligning,
    )
    from lightning_kd.distiller import Distiller, Losses
    from lightning_kd.indexed import IndexedDataset
    from lightning_kd.layout import Layout
    from lightning_kd.mixin import DistillationMixin
    from lightning_kd.mutual import MutualLearning
    from lightning_kd.objectives import CKAKD, FeatureKD, LogitKD, Objective, PatchEmbeddingKD
    from lightning_kd.schedules import Progress, Ramp, Steps, Window
    from lightning_kd.similarity import match_layers, similarity_map
    from lightning_kd.step import Step
    from lightning_kd.taps import Tap
    from lightning_kd.teachers import EMATeacher, EnsembleTeacher, FrozenTeacher

__all__ = [
    "CKAKD",
    "DistillationMixin",
    "Distiller",
    "EMATeacher",
    "ElasticSampling",
    "EnsembleTeacher",
    "ExportStudent",
    "FeatureKD",
    "FrozenTeacher",
    "GradualChannelPruning",
    "IndexedDataset",
    "KnowledgeDistillation",
    "LatencyBudget",
    "LatencyMonitor",
    "Layout",
    "LogitKD",
    "Losses",
    "LowBitTraining",
    "MutualLearning",
    "Objective",
    "PatchEmbeddingKD",
    "Progress",
    "QuantizationAwareTraining",
    "Ramp",
    "Step",
    "Steps",
    "StructuredPruning",
    "Tap",
    "TeacherIntervention",
    "TwoFourSparsity",
    "WeightAligning",
    "Window",
    "match_layers",
    "similarity_map",
]

_HOMES = {
    "callbacks": (
        "ElasticSampling",
        "StructuredPruning",
        "ExportStudent",
        "GradualChannelPruning",
        "KnowledgeDistillation",
        "LatencyBudget",
        "LatencyMonitor",
        "LowBitTraining",
        "QuantizationAwareTraining",
        "TeacherIntervention",
        "TwoFourSparsity",
        "WeightAligning",
    ),
    "distiller": ("Distiller", "Losses"),
    "indexed": ("IndexedDataset",),
    "layout": ("Layout",),
    "mixin": ("DistillationMixin",),
    "mutual": ("MutualLearning",),
    "objectives": ("CKAKD", "FeatureKD", "LogitKD", "Objective", "PatchEmbeddingKD"),
    "schedules": ("Progress", "Ramp", "Steps", "Window"),
    "similarity": ("match_layers", "similarity_map"),
    "step": ("Step",),
    "taps": ("Tap",),
    "teachers": ("EMATeacher", "EnsembleTeacher", "FrozenTeacher"),
}


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
