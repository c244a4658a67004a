"""Published systems as one function each: ready callbacks with the published defaults."""

from lightning_kd.recipes.architectures import ofa_kd, scalekd
from lightning_kd.recipes.compression import quantized_distillation, sparse_distillation, teacher_intervention
from lightning_kd.recipes.data import class_incremental, kd3, pruned_kd, weight_aware
from lightning_kd.recipes.dense import collaborative, selective, transkd
from lightning_kd.recipes.features import (
    attention_transfer,
    cka,
    cwd,
    feature_recalibration,
    fitnet,
    matched_features,
    mgd,
    review_kd,
    simkd,
    vid,
    vitkd,
)
from lightning_kd.recipes.generations import LogitEnsemble, born_again, ground_truth_weight
from lightning_kd.recipes.keywords import keyword_spotting, kwt
from lightning_kd.recipes.logits import ctkd, dist, dkd, kd, lskd, nkd, skew_kl, ssld, taid
from lightning_kd.recipes.masked import dmae, further_pretraining, g2sd
from lightning_kd.recipes.offline import fkd, tinyvit
from lightning_kd.recipes.own_teachers import (
    collaborative_students,
    deep_mutual_learning,
    momentum_distillation,
    progressive_self_distillation,
)
from lightning_kd.recipes.recognition import (
    ctc_kd,
    ctc_sequence,
    distil_whisper,
    guided_ctc,
    self_distilled_ctc,
    transducer_kd,
)
from lightning_kd.recipes.relations import cc, crd, ickd, patch_similarity, pkt, rkd, sp
from lightning_kd.recipes.several_teachers import meal_v2, unic
from lightning_kd.recipes.speech import armhubert, distilhubert, fithubert
from lightning_kd.recipes.speech_compression import (
    adaptive_computation,
    dphubert,
    dphubert_second_stage,
    lighthubert,
)
from lightning_kd.recipes.stages import Stage, in_stages
from lightning_kd.recipes.tokens import deit, deit_lt
from lightning_kd.recipes.towers import tinyclip
from lightning_kd.recipes.transformers import hybrid, lgvit, minilm, multi_exit, tinybert

__all__ = [
    "LogitEnsemble",
    "Stage",
    "adaptive_computation",
    "armhubert",
    "attention_transfer",
    "born_again",
    "cc",
    "cka",
    "class_incremental",
    "collaborative",
    "collaborative_students",
    "crd",
    "ctc_kd",
    "ctc_sequence",
    "ctkd",
    "cwd",
    "deep_mutual_learning",
    "deit",
    "deit_lt",
    "dist",
    "distil_whisper",
    "distilhubert",
    "dkd",
    "dmae",
    "dphubert",
    "dphubert_second_stage",
    "feature_recalibration",
    "fithubert",
    "fitnet",
    "fkd",
    "further_pretraining",
    "g2sd",
    "ground_truth_weight",
    "guided_ctc",
    "hybrid",
    "ickd",
    "in_stages",
    "kd",
    "kd3",
    "keyword_spotting",
    "kwt",
    "lgvit",
    "lighthubert",
    "lskd",
    "matched_features",
    "meal_v2",
    "mgd",
    "minilm",
    "momentum_distillation",
    "multi_exit",
    "nkd",
    "ofa_kd",
    "patch_similarity",
    "pkt",
    "progressive_self_distillation",
    "pruned_kd",
    "quantized_distillation",
    "review_kd",
    "rkd",
    "scalekd",
    "selective",
    "self_distilled_ctc",
    "simkd",
    "skew_kl",
    "sp",
    "sparse_distillation",
    "ssld",
    "taid",
    "teacher_intervention",
    "tinybert",
    "tinyclip",
    "tinyvit",
    "transducer_kd",
    "transkd",
    "unic",
    "vid",
    "vitkd",
    "weight_aware",
]
