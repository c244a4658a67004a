"""Named terms of the distillation loss."""

from lightning_kd.objectives.attention_map import ATKD
from lightning_kd.objectives.base import Matching, Objective, PairedObjective
from lightning_kd.objectives.channel_wise import CWDKD
from lightning_kd.objectives.cka import CKAKD
from lightning_kd.objectives.exits import LGViTKD, MultiExitKD
from lightning_kd.objectives.feature import FeatureKD
from lightning_kd.objectives.generation import MGDKD
from lightning_kd.objectives.hints import FitNetKD
from lightning_kd.objectives.logit import LogitKD
from lightning_kd.objectives.patch_embedding import PatchEmbeddingKD
from lightning_kd.objectives.recalibration import FRDKD
from lightning_kd.objectives.review import ReviewKD
from lightning_kd.objectives.variational import VIDKD
from lightning_kd.objectives.vitkd import ViTKD

__all__ = [
    "ATKD",
    "CKAKD",
    "CWDKD",
    "FRDKD",
    "FeatureKD",
    "FitNetKD",
    "LGViTKD",
    "LogitKD",
    "MGDKD",
    "Matching",
    "MultiExitKD",
    "Objective",
    "PairedObjective",
    "PatchEmbeddingKD",
    "ReviewKD",
    "VIDKD",
    "ViTKD",
]
