"""Named terms of the distillation loss."""

from typing import TYPE_CHECKING

from lightning_kd._lazy import lazy_names
from lightning_kd.objectives.affinity import AffinityKD
from lightning_kd.objectives.attention_map import ATKD
from lightning_kd.objectives.base import Matching, Objective, PairedObjective
from lightning_kd.objectives.channel_wise import CWDKD
from lightning_kd.objectives.cka import CKAKD
from lightning_kd.objectives.contrastive import CRDKD
from lightning_kd.objectives.correlation import DISTKD
from lightning_kd.objectives.ctc import CTCKD, GuidedCTCKD
from lightning_kd.objectives.ctc_intermediate import IntermediateCTCKD
from lightning_kd.objectives.ctc_sequence import CTCSequenceKD
from lightning_kd.objectives.curriculum import CTKD, TAIDKD
from lightning_kd.objectives.decoupled import DKD, NKD
from lightning_kd.objectives.deit import DeiTKD
from lightning_kd.objectives.discriminator import DiscriminatorKD
from lightning_kd.objectives.distilhubert import DistilHuBERTKD
from lightning_kd.objectives.divergences import JSKD, SkewKLKD, SymmetricKLKD
from lightning_kd.objectives.dphubert import DPHuBERTKD
from lightning_kd.objectives.feature import FeatureKD
from lightning_kd.objectives.frames import FrameKD
from lightning_kd.objectives.generation import MGDKD
from lightning_kd.objectives.hidden_states import HiddenCosineKD
from lightning_kd.objectives.hints import FitNetKD
from lightning_kd.objectives.hubert_hints import ARMHuBERTKD, FitHuBERTKD
from lightning_kd.objectives.hybrid import HybridKD
from lightning_kd.objectives.incremental import OldClassesKD
from lightning_kd.objectives.inner_relations import ICKD, PatchSimilarityKD
from lightning_kd.objectives.logit import LogitKD
from lightning_kd.objectives.minilm import MiniLMKD
from lightning_kd.objectives.mutual_information import MIKD
from lightning_kd.objectives.patch_embedding import PatchEmbeddingKD
from lightning_kd.objectives.pooled import PooledCosineKD
from lightning_kd.objectives.recalibration import FRDKD
from lightning_kd.objectives.relations import CCKD, PKTKD, RKD, SPKD
from lightning_kd.objectives.reused_classifier import SimKD
from lightning_kd.objectives.review import ReviewKD
from lightning_kd.objectives.scale import ScaleKD
from lightning_kd.objectives.selective import BSDKD, HFDKD, SelectiveKD
from lightning_kd.objectives.tinybert import TinyBERTKD, TinyBERTLogitKD
from lightning_kd.objectives.transducer import TransducerKD
from lightning_kd.objectives.transkd import CSFKD
from lightning_kd.objectives.unic import UNICKD
from lightning_kd.objectives.unlabelled import KD3KD, InstanceAlignmentKD, WeightAwareKD
from lightning_kd.objectives.variational import VIDKD
from lightning_kd.objectives.vitkd import ViTKD

if TYPE_CHECKING:
    from lightning_kd.objectives.adaptive_computation import ACMBudget, ACMGateKD, ACMModuleKD
    from lightning_kd.objectives.exits import LGViTKD, MultiExitKD
    from lightning_kd.objectives.lighthubert import LightHuBERTKD
    from lightning_kd.objectives.masked import DMAEKD, G2SDKD, FurtherPretrainingKD
    from lightning_kd.objectives.ofa import OFAKD

__all__ = [
    "ATKD",
    "BSDKD",
    "CCKD",
    "CKAKD",
    "CRDKD",
    "CSFKD",
    "CTCKD",
    "CTKD",
    "CWDKD",
    "DISTKD",
    "DKD",
    "DMAEKD",
    "FRDKD",
    "G2SDKD",
    "HFDKD",
    "ICKD",
    "JSKD",
    "KD3KD",
    "MGDKD",
    "MIKD",
    "NKD",
    "OFAKD",
    "PKTKD",
    "RKD",
    "SPKD",
    "TAIDKD",
    "UNICKD",
    "VIDKD",
    "ACMBudget",
    "ACMGateKD",
    "ACMModuleKD",
    "ARMHuBERTKD",
    "AffinityKD",
    "CTCSequenceKD",
    "DPHuBERTKD",
    "DeiTKD",
    "DiscriminatorKD",
    "DistilHuBERTKD",
    "FeatureKD",
    "FitHuBERTKD",
    "FitNetKD",
    "FrameKD",
    "FurtherPretrainingKD",
    "GuidedCTCKD",
    "HiddenCosineKD",
    "HybridKD",
    "InstanceAlignmentKD",
    "IntermediateCTCKD",
    "LGViTKD",
    "LightHuBERTKD",
    "LogitKD",
    "Matching",
    "MiniLMKD",
    "MultiExitKD",
    "Objective",
    "OldClassesKD",
    "PairedObjective",
    "PatchEmbeddingKD",
    "PatchSimilarityKD",
    "PooledCosineKD",
    "ReviewKD",
    "ScaleKD",
    "SelectiveKD",
    "SimKD",
    "SkewKLKD",
    "SymmetricKLKD",
    "TinyBERTKD",
    "TinyBERTLogitKD",
    "TransducerKD",
    "ViTKD",
    "WeightAwareKD",
]

# These are built on timm's layers, which take seconds to import.
_HOMES = {
    "adaptive_computation": ("ACMBudget", "ACMGateKD", "ACMModuleKD"),
    "lighthubert": ("LightHuBERTKD",),
    "exits": ("LGViTKD", "MultiExitKD"),
    "masked": ("DMAEKD", "FurtherPretrainingKD", "G2SDKD"),
    "ofa": ("OFAKD",),
}
__getattr__ = lazy_names(__name__, _HOMES)
