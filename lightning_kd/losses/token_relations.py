"""Loss between the relations of tokens: how queries, keys and values resemble each other."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands
from lightning_kd.losses.attention import attention_kl, check_heads, token_relations

Relation = Literal["qq", "qk", "qv", "kq", "kk", "kv", "vq", "vk", "vv"]
ALL_RELATIONS: tuple[Relation, ...] = get_args(Relation)
MINILM_RELATIONS: tuple[Relation, ...] = ("qq", "kk", "vv")


def token_relation_kl(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    relation_heads: int,
    relations: Sequence[Relation] = MINILM_RELATIONS,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence between the token relations of two networks, whatever their widths and heads.

    .. math::
        L = \sum_{(A, B)} \mathrm{KL}(R^t_{AB} \,\|\, R^s_{AB}), \qquad
        R_{AB} = \mathrm{softmax}\Bigl(\frac{A B^\top}{\sqrt{d_r}}\Bigr), \quad d_r = D / A_r

    over the pairs in ``relations``. Each of the queries, keys and values is cut into :math:`A_r` equal relation heads,
    independent of the attention's own heads, so that only the number of tokens must be the same on both sides. Each
    divergence is summed over the keys and averaged as in `attention_kl`. No gradient flows to ``teacher``.

    Args:
        student: Queries, keys and values, each of shape ``(N, L, D_s)``, floating point.
        teacher: Likewise, each of shape ``(N, L, D_t)``.
        relation_heads: :math:`A_r`; it must divide both widths.
        relations: Pairs of ``"q"``, ``"k"`` and ``"v"``. Queries with keys at the attention's own number of heads are
            attention itself. G2SD's relations are all nine, of which it takes the mean: a ninth of this sum.
        mask: Boolean, shape ``(N, L)``, true for real tokens; padded ones are left out.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes do not fit, a tensor is empty, or ``relation_heads`` does not divide both widths.
        TypeError: If a tensor is not floating point or ``mask`` is not boolean.
        ValueError: If ``relations`` is empty or holds an unknown pair, or ``reduction`` is unknown.

    Source:
        Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained
        Transformers", arXiv:2012.15828. All nine relations: Huang et al., "Generic-to-Specific Distillation of Masked
        Autoencoders", arXiv:2302.14771, whose code defines them and leaves them off.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import token_relation_kl
        >>> narrow = [torch.eye(4)[None]] * 3  # R has 1/2 on its diagonal before the softmax
        >>> wide = [torch.cat([torch.eye(4), torch.zeros(4, 12)], dim=1)[None] * 2**0.5] * 3  # 2 / sqrt(16) is 1/2 too
        >>> token_relation_kl(narrow, wide, relation_heads=1) < 1e-6
        tensor(True)
    """
    check_reduction(reduction)
    _check_relations(relations)
    _check_vectors(student, teacher, relation_heads)
    promoted = [operands(s, t) for s, t in zip(student, teacher, strict=True)]
    terms = []
    for left, right in relations:
        (s_left, t_left), (s_right, t_right) = promoted["qkv".index(left)], promoted["qkv".index(right)]
        student_scores = token_relations(s_left, s_right, heads=relation_heads)
        teacher_scores = token_relations(t_left, t_right, heads=relation_heads)
        terms.append(attention_kl(student_scores, teacher_scores, mask=mask, reduction=reduction))
    return torch.stack(terms).sum(dim=0)


class TokenRelationKL(nn.Module):
    """Module form of `token_relation_kl`.

    Args:
        relation_heads: Number of relation heads; it must divide both widths.
        relations: Pairs of ``"q"``, ``"k"`` and ``"v"``.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``relations`` is empty or holds an unknown pair, or ``reduction`` is unknown.
    """

    def __init__(
        self,
        *,
        relation_heads: int,
        relations: Sequence[Relation] = MINILM_RELATIONS,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_relations(relations)
        check_reduction(reduction)
        self.relation_heads = relation_heads
        self.relations = tuple(relations)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], *, mask: Tensor | None = None) -> Tensor:
        return token_relation_kl(
            student,
            teacher,
            relation_heads=self.relation_heads,
            relations=self.relations,
            mask=mask,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"relation_heads={self.relation_heads}, relations={self.relations}, reduction={self.reduction!r}"


def _check_relations(relations: Sequence[Relation]) -> None:
    if not relations:
        raise ValueError("`relations` must hold at least one pair such as 'vv', got none.")
    for index, relation in enumerate(relations):
        check_choice(f"relations[{index}]", relation, ALL_RELATIONS)


def _check_vectors(student: Sequence[Tensor], teacher: Sequence[Tensor], relation_heads: int) -> None:
    for name, vectors in (("student", student), ("teacher", teacher)):
        if len(vectors) != 3 or any(x.ndim != 3 or x.shape != vectors[0].shape for x in vectors):
            raise ShapeError(
                f"`{name}` must be queries, keys and values of one shape (samples, tokens, width), "
                f"got {[tuple(x.shape) for x in vectors]}."
            )
        check_heads("relation_heads", relation_heads, vectors[0].shape[-1])
    if student[0].shape[:2] != teacher[0].shape[:2]:
        raise ShapeError(
            "relations are compared token by token: student and teacher must have the same samples and tokens, "
            f"got {tuple(student[0].shape[:2])} and {tuple(teacher[0].shape[:2])}. Give both the same patch size, or "
            "distil features, which are averaged to a common grid (FeatureKD)."
        )
