"""The methods of the catalogue that distil classifiers, each as its recipe with the published defaults.

``METHODS`` is the table that the benchmarks share; ``ELSEWHERE`` says of every other objective why it is not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, PatchEmbeddingKD, objectives, recipes
from lightning_kd.families import family_of, last_map_tap, stage_taps
from lightning_kd.objectives import JSKD, MIKD, Objective
from lightning_kd.students import with_distillation_token, with_teacher_classifier

PATH = "net"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a method is applied to.

    Attributes:
        teacher: The trained network.
        student: The network that learns; a LightningModule holds it as ``net``.
        images: An example, two images or more.
        labels: Class of every training image, ``(N,)``.
    """

    teacher: nn.Module
    student: nn.Module
    images: Tensor
    labels: Tensor


def _fits(_: Setting) -> str | None:
    return None


def _as_it_is(setting: Setting) -> nn.Module:
    return setting.student


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to distil.

    Attributes:
        recipe: Makes the callback.
        student: Makes the network that is trained of the setting's student.
        obstacle: Why a setting's networks cannot be distilled so; ``None`` if they can.
    """

    recipe: Callable[[Setting], KnowledgeDistillation]
    student: Callable[[Setting], nn.Module] = _as_it_is
    obstacle: Callable[[Setting], str | None] = _fits


def _of_outputs(recipe: Callable[..., KnowledgeDistillation], **options: object) -> Method:
    """Method that looks at what the networks return."""
    return Method(recipe=lambda setting: recipe(setting.teacher, path=PATH, **options))


def _of_layers(recipe: Callable[..., KnowledgeDistillation]) -> Method:
    """Method that looks into both networks."""
    return Method(recipe=lambda setting: recipe(setting.teacher, setting.student, path=PATH))


def _of_objective(make: Callable[[Setting], Objective]) -> Method:
    """Method without a recipe of its own: one objective beside the task loss."""
    return Method(recipe=lambda s: KnowledgeDistillation(s.teacher, student=PATH, objectives=[make(s)]))


def _transformers(*roles: str) -> Callable[[Setting], str | None]:
    """Obstacle: these networks must be transformers."""

    def obstacle(setting: Setting) -> str | None:
        others = [role for role in roles if not _is_transformer(getattr(setting, role))]
        return f"needs a transformer as {' and as '.join(others)}" if others else None

    return obstacle


def _is_transformer(network: nn.Module) -> bool:
    family = family_of(network)
    return family is not None and family.kind == "isotropic"


def _equal_heads(setting: Setting) -> str | None:
    heads = [network.blocks[0].attn.num_heads for network in (setting.student, setting.teacher)]
    return None if heads[0] == heads[1] else f"needs equally many attention heads, not {heads[0]} and {heads[1]}"


def _one_token_more(setting: Setting) -> str | None:
    pools = getattr(setting.student, "global_pool", None)
    return None if pools == "token" else "needs a student that reads a class token"


def _averaged(setting: Setting) -> str | None:
    pools = getattr(setting.teacher, "global_pool", None)
    return None if pools != "token" else "needs a teacher that classifies the average of its last map, no class token"


def _all(*obstacles: Callable[[Setting], str | None]) -> Callable[[Setting], str | None]:
    """The first obstacle that there is."""
    return lambda setting: next((found for obstacle in obstacles if (found := obstacle(setting))), None)


def _contrast(setting: Setting) -> KnowledgeDistillation:
    """CRD with as many negatives as its recipe asks for, or all there are for every class."""
    labels = setting.labels
    others = len(labels) - int(torch.bincount(labels).max())
    return recipes.crd(setting.teacher, setting.student, labels, path=PATH, negatives=min(16384, others))


def _ending_in_the_teacher(setting: Setting) -> nn.Module:
    """SimKD's student: the teacher's classifier is what follows the average, a norm included."""
    teacher, backbone = setting.teacher, setting.student
    backbone.reset_classifier(0, "")
    after_the_average = [getattr(teacher, "fc_norm", nn.Identity()), teacher.get_classifier()]
    last_map = last_map_tap(teacher)
    return with_teacher_classifier(
        backbone, teacher, setting.images, last_map=last_map, classifier=nn.Sequential(*after_the_average)
    )


def _deepest(setting: Setting) -> tuple[list, list]:
    return [*stage_taps(setting.student)[2:]], [*stage_taps(setting.teacher)[2:]]


METHODS = {
    "kd": _of_outputs(recipes.kd),
    "lskd": _of_outputs(recipes.lskd),
    "dkd": _of_outputs(recipes.dkd),
    "nkd": _of_outputs(recipes.nkd),
    "dist": _of_outputs(recipes.dist),
    "ctkd": _of_outputs(recipes.ctkd),
    "taid": _of_outputs(recipes.taid),
    "ssld": _of_outputs(recipes.ssld),
    "skew_kl": _of_outputs(recipes.skew_kl),
    "skew_kl, reverse": _of_outputs(recipes.skew_kl, reverse=True),
    "JSKD": _of_objective(lambda _: JSKD()),
    "MIKD": _of_objective(lambda s: MIKD(last_map_tap(s.student), last_map_tap(s.teacher))),
    "FeatureKD": _of_objective(lambda s: FeatureKD(*_deepest(s))),
    "matched_features": _of_outputs(recipes.matched_features),
    "fitnet": _of_layers(recipes.fitnet),
    "attention_transfer": _of_layers(recipes.attention_transfer),
    "vid": _of_layers(recipes.vid),
    "review_kd": _of_layers(recipes.review_kd),
    "mgd": _of_layers(recipes.mgd),
    "simkd": Method(
        recipe=lambda s: recipes.simkd(s.teacher, path=PATH), student=_ending_in_the_teacher, obstacle=_averaged
    ),
    "vitkd": Method(
        recipe=lambda s: recipes.vitkd(s.teacher, s.student, path=PATH), obstacle=_transformers("student", "teacher")
    ),
    "feature_recalibration": _of_layers(recipes.feature_recalibration),
    "PatchEmbeddingKD": _of_objective(lambda _: PatchEmbeddingKD()),
    "cka": _of_layers(recipes.cka),
    "CKAKD.matched": _of_objective(lambda _: CKAKD.matched(top=3)),
    "sp": _of_layers(recipes.sp),
    "rkd": _of_layers(recipes.rkd),
    "pkt": _of_layers(recipes.pkt),
    "cc": _of_layers(recipes.cc),
    "ickd": _of_layers(recipes.ickd),
    "patch_similarity": _of_layers(recipes.patch_similarity),
    "crd": Method(recipe=_contrast),
    "ofa_kd": _of_outputs(recipes.ofa_kd),
    "scalekd": Method(recipe=lambda s: recipes.scalekd(s.teacher, path=PATH), obstacle=_transformers("teacher")),
    "deit": Method(
        recipe=lambda s: recipes.deit(s.teacher, path=PATH),
        student=lambda s: with_distillation_token(s.student),
        obstacle=_all(_transformers("student"), _one_token_more),
    ),
    "minilm": Method(
        recipe=lambda s: recipes.minilm(s.teacher, path=PATH), obstacle=_transformers("student", "teacher")
    ),
    "tinybert": Method(
        recipe=lambda s: recipes.tinybert(s.teacher, path=PATH),
        obstacle=_all(_transformers("student", "teacher"), _equal_heads),
    ),
}

_DENSE, _MASKED = "distils segmentation", "distils masked autoencoders"
_SPEECH = "distils frames of audio"
_RECOGNISERS = "distils speech recognisers"
ELSEWHERE = {
    objectives.ARMHuBERTKD: _SPEECH,
    objectives.ACMBudget: "keeps modules of its own to a budget, without a teacher",
    objectives.ACMGateKD: "trains modules that stand for parts of the teacher",
    objectives.ACMModuleKD: "trains modules that stand for parts of the teacher",
    objectives.AffinityKD: "distils networks of two towers",
    objectives.BSDKD: _DENSE,
    objectives.CSFKD: _DENSE,
    objectives.CTCKD: _RECOGNISERS,
    objectives.CTCSequenceKD: _RECOGNISERS,
    objectives.CWDKD: _DENSE,
    objectives.DMAEKD: _MASKED,
    objectives.DistilHuBERTKD: _SPEECH,
    objectives.FitHuBERTKD: _SPEECH,
    objectives.FrameKD: _SPEECH,
    objectives.DPHuBERTKD: "distils speech encoders into copies of themselves",
    objectives.DiscriminatorKD: "compares with the mean of several teachers",
    objectives.FurtherPretrainingKD: _MASKED,
    objectives.G2SDKD: _MASKED,
    objectives.GuidedCTCKD: _RECOGNISERS,
    objectives.HFDKD: _DENSE,
    objectives.HiddenCosineKD: "distils language models of one width",
    objectives.HybridKD: "needs a second, masked teacher",
    objectives.InstanceAlignmentKD: "needs perturbed images",
    objectives.KD3KD: "distils images without labels",
    objectives.IntermediateCTCKD: _RECOGNISERS,
    objectives.LGViTKD: "distils a network with early exits into itself",
    objectives.LightHuBERTKD: "distils speech encoders into a supernet",
    objectives.MultiExitKD: "distils a network with early exits into itself",
    objectives.OldClassesKD: "needs a teacher of fewer classes",
    objectives.PooledCosineKD: "distils what is pooled over frames of speech",
    objectives.UNICKD: "distils several vision transformers into one",
    objectives.SelectiveKD: _DENSE,
    objectives.WeightAwareKD: "needs features of labelled samples",
    objectives.TransducerKD: _RECOGNISERS,
}
