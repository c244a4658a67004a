"""Callbacks for the Lightning Trainer."""

from lightning_kd.callbacks.distillation import KnowledgeDistillation

__all__ = ["KnowledgeDistillation"]
