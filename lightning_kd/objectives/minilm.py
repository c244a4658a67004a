"""Distillation of the relations between tokens inside one attention module: MiniLM and MiniLMv2."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Probe
from lightning_kd.losses import token_relation_kl
from lightning_kd.losses.token_relations import MINILM_RELATIONS, Relation
from lightning_kd.objectives._attention import AttentionObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation

RELATION_HEADS = 48
_FIRST_VERSION: tuple[Relation, ...] = ("qk", "vv")


class MiniLMKD(AttentionObjective):
    """KL divergence between the token relations of one attention module on each side.

    Version 2 compares queries with queries, keys with keys and values with values, over relation heads that need not
    be the networks' own: widths, heads and depths may differ, and there is no projection. Version 1 compares the
    attention itself and the relation of the values, over the networks' own heads, which must be equally many.

    Class and register tokens take part if both networks have equally many, else they are left out on both sides. The
    numbers of patches must be the same. Relations of all tokens cost memory quadratic in their number for each relation
    head, which is the method itself; ``max_tokens`` compares evenly spaced tokens instead. Over several pairs the term
    is their mean.

    Args:
        student: Attention module or modules of the student; ``None`` takes that of the last block, as published.
        teacher: Likewise. For teachers deeper than 12 blocks an upper middle one teaches better than the last.
        version: 2 or 1.
        relation_heads: Version 2 only: number of relation heads, a divisor of both widths; ``None`` takes 48.
        relations: Version 2 only: pairs of ``"q"``, ``"k"`` and ``"v"``; ``None`` takes qq, kk and vv, weight 1 each.
        max_tokens: Compare at most so many tokens of each sample; ``None`` compares all.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if no attention module can be read.
        ShapeError: At setup, if tokens do not correspond, ``relation_heads`` does not divide both widths, or the
            numbers of heads differ (version 1).
        ValueError: If ``version`` is unknown, or version 1 is given ``relation_heads`` or ``relations``.

    Source:
        Version 2: Wang et al., "MiniLMv2", arXiv:2012.15828; its form is that of a re-implementation. Version 1: Wang
        et al., "MiniLM", arXiv:2002.10957. Version 1, the 48 relation heads and the choice of the teacher's layer
        are from memory of the papers; prefix tokens and ``max_tokens`` are ours.

    Example:
        >>> MiniLMKD(relation_heads=64, weight=1.0).relations
        ('qq', 'kk', 'vv')
    """

    def __init__(
        self,
        student: Places | None = None,
        teacher: Places | None = None,
        *,
        version: Literal[1, 2] = 2,
        relation_heads: int | None = None,
        relations: Sequence[Relation] | None = None,
        max_tokens: int | None = None,
        weight: Weight = 1.0,
        name: str = "minilm",
    ) -> None:
        super().__init__(student, teacher, max_tokens=max_tokens, name=name, weight=weight)
        check_choice("version", version, (1, 2))
        if version == 1 and not (relation_heads is None and relations is None):
            raise ValueError(
                f"`relation_heads` and `relations` belong to version 2, got {relation_heads!r} and {relations!r}: "
                "version 1 compares attention and values over the networks' own heads."
            )
        self.version = version
        self.relation_heads = RELATION_HEADS if relation_heads is None else relation_heads
        self.relations = tuple(relations or (MINILM_RELATIONS if version == 2 else _FIRST_VERSION))

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        with torch.no_grad():
            self._term(student.observation, teacher.observation)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return self._term(student, teacher)

    def _term(self, student: Observation, teacher: Observation) -> Tensor:
        terms = [
            token_relation_kl(s, t, relation_heads=heads, relations=self.relations)
            for heads, (s, t) in zip(self._heads(), self.projections(student, teacher), strict=True)
        ]
        return torch.stack(terms).mean()

    def _heads(self) -> list[int]:
        if self.version == 2:
            return [self.relation_heads] * len(self.pairs)
        return [pair.heads("attention is compared head by head; use MiniLMKD(version=2).") for pair in self.pairs]
