"""Named terms of the distillation loss."""

from lightning_kd.objectives.base import Matching, Objective, PairedObjective
from lightning_kd.objectives.cka import CKAKD
from lightning_kd.objectives.feature import FeatureKD
from lightning_kd.objectives.logit import LogitKD
from lightning_kd.objectives.patch_embedding import PatchEmbeddingKD

__all__ = ["CKAKD", "FeatureKD", "LogitKD", "Matching", "Objective", "PairedObjective", "PatchEmbeddingKD"]
