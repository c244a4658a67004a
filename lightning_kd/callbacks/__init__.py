"""Callbacks for the Lightning Trainer."""

from lightning_kd.callbacks.distillation import KnowledgeDistillation
from lightning_kd.callbacks.export import ExportStudent
from lightning_kd.callbacks.latency import LatencyMonitor

__all__ = ["ExportStudent", "KnowledgeDistillation", "LatencyMonitor"]
