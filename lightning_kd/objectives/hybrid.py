"""Distillation from two teachers: token relations of one, final features of the other."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Geometry, Probe
from lightning_kd.errors import ShapeError
from lightning_kd.layout import common_grid
from lightning_kd.losses import standardized_smooth_l1, token_relation_kl
from lightning_kd.losses.attention import check_heads
from lightning_kd.losses.token_relations import Relation
from lightning_kd.objectives._attention import AttentionObjective
from lightning_kd.schedules import Progress, Ramp, Weight, weight_at
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap
from lightning_kd.tokens import distinct_tokens, take_tokens

_DROP = Ramp(0.0, 0.5, over=100)
_RELATIONS: tuple[Relation, ...] = ("qk", "vv")


def growing_drop(progress: Progress) -> float:
    """Share of redundant patches that is left out: from 0 to a half over 100 epochs."""
    return _DROP(progress)


class HybridKD(AttentionObjective):
    r"""Token relations of a masked-image teacher and final features of a contrastive or supervised one.

    .. math::
        L = \mathrm{KL}\bigl(R^t_{QK} \,\|\, R^s_{QK}\bigr) + \mathrm{KL}\bigl(R^t_{VV} \,\|\, R^s_{VV}\bigr)
            + \mathrm{SmoothL1}(W F^s, \mathrm{LN}_0(F^t))

    The relations are taken per head at one attention module on each side, the features from the last tokens. Both
    terms see the patches that the feature teacher tells apart best: the share ``drop`` with the highest mean cosine to
    the image's patches is redundant and left out. Class and register tokens are not compared.

    One teacher holds both: ``Peers(masked, contrastive)`` runs them on one input, and taps name the side, as in
    ``"a.blocks.8.attn"`` and ``"b.norm"``. Any single teacher may also give both.

    Args:
        student_attention: Attention module of the student.
        teacher_attention: Attention module of the masked-image teacher.
        student_feature: Place of the student's final features.
        teacher_feature: Place of the other teacher's final features.
        relation_heads: Number of relation heads, a divisor of both widths; ``None`` takes the attention's own heads,
            which must then be equally many.
        drop: Share of patches that is left out, from 0 to below 1: a number, or a schedule.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if an attention module cannot be read.
        ShapeError: At setup, if tokens or heads do not correspond.
        ValueError: If ``drop`` is not in [0, 1).

    Source:
        Shi et al., "Hybrid Distillation: Connecting Masked Autoencoders with Contrastive Learners", arXiv:2306.15876,
        for the idea only: its formulas could not be confirmed. Which relations, the smooth L1 (beta 2, as in G2SD),
        equal weights, what is redundant, and the ramp of ``drop`` from 0 to 0.5 over 100 epochs are ours.

    Example:
        >>> from lightning_kd.schedules import Progress
        >>> HybridKD("blocks.8.attn", "a.blocks.8.attn", "norm", "b.norm").drop(Progress(epoch=50))
        0.25
    """

    def __init__(
        self,
        student_attention: str | Tap,
        teacher_attention: str | Tap,
        student_feature: str | Tap,
        teacher_feature: str | Tap,
        *,
        relation_heads: int | None = None,
        drop: Weight = growing_drop,
        weight: Weight = 1.0,
        name: str = "hybrid",
    ) -> None:
        super().__init__(student_attention, teacher_attention, max_tokens=None, name=name, weight=weight)
        if not callable(drop):
            _check_share(drop)
        self.relation_heads = relation_heads
        self.drop = drop
        self.feature_taps = Tap.of(student_feature), Tap.of(teacher_feature)
        self.geometries: list[Geometry] = []
        self.projection: nn.Module = nn.Identity()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        super().locate(student, teacher)
        self.student_taps += self.feature_taps[:1]
        self.teacher_taps += self.feature_taps[1:]

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        self.skips = [(pair.student.prefix_tokens(student), pair.teacher.prefix_tokens(teacher)) for pair in self.pairs]
        self.geometries = [
            probe.geometry(tap) for probe, tap in zip((student, teacher), self.feature_taps, strict=True)
        ]
        self.projection = nn.Linear(self.geometries[0].width, self.geometries[1].width)
        vectors = self.projections(student.observation, teacher.observation)[0]
        patches = self._patches(student.observation, teacher.observation)[0].shape[1]
        if vectors[0].query.shape[1] != patches:
            raise ShapeError(
                f"relations are over {vectors[0].query.shape[1]} patches and final features over {patches}, of which "
                "the same are left out: name attention and final features of one grid."
            )
        for vector in vectors:
            check_heads("relation_heads", self._heads(), vector.query.shape[-1])

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        s_final, t_final = self._patches(student, teacher)
        kept = distinct_tokens(t_final, self._count(s_final.shape[1], step))
        s_qkv, t_qkv = ([take_tokens(x, kept) for x in qkv] for qkv in self.projections(student, teacher)[0])
        relations = token_relation_kl(s_qkv, t_qkv, relation_heads=self._heads(), relations=_RELATIONS)
        final = self.projection(take_tokens(s_final, kept)), take_tokens(t_final, kept)
        return relations + standardized_smooth_l1(*final, channel_axis=-1)

    def _heads(self) -> int:
        if self.relation_heads is not None:
            return self.relation_heads
        return self.pairs[0].heads(
            "relations are compared head by head; give relation_heads=, a divisor of both widths."
        )

    def _patches(self, student: Observation, teacher: Observation) -> tuple[Tensor, Tensor]:
        """Final features of both sides on the common grid, shape ``(N, L, D)``."""
        calls = zip(self.geometries, (student, teacher), self.feature_taps, strict=True)
        maps = common_grid(*(geometry.layout.channels_first(call.features[tap]) for geometry, call, tap in calls))
        return maps[0].flatten(2).mT, maps[1].flatten(2).mT

    def _count(self, patches: int, step: Step) -> int:
        """How many patches are kept, at least one."""
        return max(1, patches - int(_check_share(weight_at(self.drop, step.progress)) * patches))


def _check_share(drop: float) -> float:
    if not 0 <= drop < 1:
        raise ValueError(f"`drop` must be a share of the patches in [0, 1), or a schedule, got {drop!r}.")
    return drop
