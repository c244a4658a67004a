"""Callbacks for the Lightning Trainer."""

from lightning_kd.callbacks.channel_pruning import GradualChannelPruning
from lightning_kd.callbacks.distillation import KnowledgeDistillation
from lightning_kd.callbacks.elastic_sampling import ElasticSampling
from lightning_kd.callbacks.export import ExportStudent
from lightning_kd.callbacks.latency import LatencyMonitor
from lightning_kd.callbacks.latency_budget import LatencyBudget
from lightning_kd.callbacks.low_bit import LowBitTraining
from lightning_kd.callbacks.quantization import QuantizationAwareTraining
from lightning_kd.callbacks.sparsity import TwoFourSparsity
from lightning_kd.callbacks.speculative import SpeculativeAcceptance
from lightning_kd.callbacks.structured_pruning import StructuredPruning
from lightning_kd.callbacks.teacher_intervention import TeacherIntervention
from lightning_kd.callbacks.weight_aligning import WeightAligning

__all__ = [
    "ElasticSampling",
    "ExportStudent",
    "GradualChannelPruning",
    "KnowledgeDistillation",
    "LatencyBudget",
    "LatencyMonitor",
    "LowBitTraining",
    "QuantizationAwareTraining",
    "SpeculativeAcceptance",
    "StructuredPruning",
    "TeacherIntervention",
    "TwoFourSparsity",
    "WeightAligning",
]
