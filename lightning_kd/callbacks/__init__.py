"""Callbacks for the Lightning Trainer."""

from lightning_kd.callbacks.distillation import KnowledgeDistillation
from lightning_kd.callbacks.export import ExportStudent
from lightning_kd.callbacks.latency import LatencyMonitor
from lightning_kd.callbacks.low_bit import LowBitTraining
from lightning_kd.callbacks.sparsity import TwoFourSparsity

__all__ = ["ExportStudent", "KnowledgeDistillation", "LatencyMonitor", "LowBitTraining", "TwoFourSparsity"]
