"""Students that are more than a plain network: what they need for training, and what stays at inference."""

from typing import TYPE_CHECKING

from lightning_kd._lazy import lazy_names
from lightning_kd.students.adaptive import (
    AdaptiveComputation,
    adaptive_modules,
    adaptive_parameters,
    fix_learners,
    with_adaptive_computation,
)
from lightning_kd.students.bcresnet import BCResNet
from lightning_kd.students.distillation_token import with_distillation_token
from lightning_kd.students.exits import EarlyExits, Exit, lgvit_exits
from lightning_kd.students.hubert import distilhubert_student
from lightning_kd.students.inherit import inherit_weights
from lightning_kd.students.keyword_transformer import KeywordTransformer
from lightning_kd.students.length_adaptive import LengthAdaptiveEncoder, set_lengths, with_length_adaptation
from lightning_kd.students.masked import MaskedAutoencoder, Reconstruction, patchify
from lightning_kd.students.matchbox import MatchboxNet
from lightning_kd.students.peers import Peers
from lightning_kd.students.simkd import ReusedClassifier, with_teacher_classifier
from lightning_kd.students.supernet import (
    LIGHTHUBERT_BASE,
    LIGHTHUBERT_SMALL,
    SearchSpace,
    SpeechSupernet,
    find_subnet,
    supernet_encoder,
)
from lightning_kd.students.whisper import distil_whisper_student, draft_decoder, maximally_spaced

if TYPE_CHECKING:
    from lightning_kd.students.thin_hubert import ThinHubert, armhubert_config, fithubert_config

__all__ = [
    "LIGHTHUBERT_BASE",
    "LIGHTHUBERT_SMALL",
    "AdaptiveComputation",
    "BCResNet",
    "EarlyExits",
    "Exit",
    "KeywordTransformer",
    "LengthAdaptiveEncoder",
    "MaskedAutoencoder",
    "MatchboxNet",
    "Peers",
    "Reconstruction",
    "ReusedClassifier",
    "SearchSpace",
    "SpeechSupernet",
    "ThinHubert",
    "adaptive_modules",
    "adaptive_parameters",
    "armhubert_config",
    "distil_whisper_student",
    "distilhubert_student",
    "draft_decoder",
    "find_subnet",
    "fithubert_config",
    "fix_learners",
    "inherit_weights",
    "lgvit_exits",
    "maximally_spaced",
    "patchify",
    "set_lengths",
    "supernet_encoder",
    "with_adaptive_computation",
    "with_distillation_token",
    "with_length_adaptation",
    "with_teacher_classifier",
]

# These are built on transformers, an extra.
_HOMES = {"thin_hubert": ("ThinHubert", "armhubert_config", "fithubert_config")}
__getattr__ = lazy_names(__name__, _HOMES)
