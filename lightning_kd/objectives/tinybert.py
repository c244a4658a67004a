"""Distillation of a transformer's insides layer by layer, and of its predictions afterwards: TinyBERT."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.adapters import Geometry, Probe
from lightning_kd.attention import attention_output, block_of
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import attention_score_mse, feature_mse, soft_cross_entropy
from lightning_kd.losses.attention import MASKED_SCORE, token_relations
from lightning_kd.objectives._attention import AttentionObjective
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap
from lightning_kd.tokens import common_tokens

_HEADS = "attention scores are compared head by head; MiniLMKD compares relations over any number of heads."


class TinyBERTKD(AttentionObjective):
    r"""Attention scores, hidden states and the embedding of every student block against the teacher's: step 1.

    .. math::
        L = \sum_{m=1}^{L_s} \mathrm{MSE}(A^s_m, A^t_{g(m)}) + \sum_{m=0}^{L_s} \mathrm{MSE}(W H^s_m, H^t_{g(m)}),
        \qquad g(m) = m L_t / L_s

    with :math:`A` the scores before the softmax, :math:`H_0` the input of the first block, :math:`H_m` the output of
    block :math:`m`, and one linear layer :math:`W` shared by all. The numbers of heads must be the same, and the
    student's blocks of one width.

    Hidden states are compared token by token where both networks have the same tokens, else on the common grid of
    their patches. Scores need equally many patches; class and register tokens take part if both networks have equally
    many. Scores cost memory quadratic in the tokens for each head, which is the method itself; ``max_tokens`` compares
    evenly spaced tokens instead. Position biases and rotary embeddings of a block are not part of its scores.

    Scores of keys that an ``attention_mask`` of shape ``(N, L)``, given by keyword, hides count as 0.

    Args:
        student: Attention modules of the student; ``None`` takes those of all blocks.
        teacher: Attention modules of the teacher, a multiple of the student's; ``None`` takes those of all blocks.
        max_tokens: Compare the scores of at most so many tokens of each sample; ``None`` compares all.
        projection: ``"always"`` learns :math:`W`; ``"none"`` compares hidden states as they are, of equal widths.
        attention_outputs: Whether the outputs of the attention modules are compared too, by their mean squared error,
            summed over the blocks, as Teacher Intervention does: in BERT after the residual and the norm, elsewhere
            after the output projection.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if no attention module can be read, or the teacher's blocks are no multiple.
        ShapeError: At setup, if tokens or heads do not correspond, or the widths of a network's blocks differ.

    Source:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", arXiv:1909.10351. Step 2 is
        `TinyBERTLogitKD`; the two are separate passes, not summed. Prefix tokens, the common grid and ``max_tokens``
        are ours.

    Example:
        >>> TinyBERTKD().name
        'tinybert'
    """

    def __init__(
        self,
        student: Places | None = None,
        teacher: Places | None = None,
        *,
        max_tokens: int | None = None,
        projection: Literal["always", "none"] = "always",
        attention_outputs: bool = False,
        weight: Weight = 1.0,
        name: str = "tinybert",
    ) -> None:
        super().__init__(student, teacher, max_tokens=max_tokens, name=name, weight=weight)
        check_choice("projection", projection, ("always", "none"))
        self.wanted = projection
        self.attention_outputs = attention_outputs
        self.outputs: list[tuple[Tap, Tap]] = []
        self.hidden: list[tuple[Tap, Tap]] = []
        self.geometries: list[tuple[Geometry, Geometry]] = []
        self.projection: nn.Module = nn.Identity()

    @override
    def choose(self, student: Sequence[Tap], teacher: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
        blocks, remainder = divmod(len(teacher), len(student))
        if remainder or not blocks:
            raise SetupError(
                f"`{self.name}` maps student block m to teacher block m * L_t / L_s, got {len(student)} blocks of the "
                f"student and {len(teacher)} of the teacher: list teacher= attention modules, a multiple of the "
                "student's, or use MiniLMKD, which takes any depths."
            )
        return list(zip(student, teacher[blocks - 1 :: blocks], strict=True))

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        super().locate(student, teacher)
        taps = [(pair.student.tap, pair.teacher.tap) for pair in self.pairs]
        embeddings = _embedding(taps[0][0]), _embedding(taps[0][1])
        self.hidden = [embeddings, *((_block_output(s), _block_output(t)) for s, t in taps)]
        if self.attention_outputs:
            self.outputs = [
                (
                    Tap(attention_output(student, s.path, "student")),
                    Tap(attention_output(teacher, t.path, "teacher")),
                )
                for s, t in taps
            ]
        self.student_taps += tuple(s for s, _ in (*self.hidden, *self.outputs))
        self.teacher_taps += tuple(t for _, t in (*self.hidden, *self.outputs))

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in self.hidden]
        widths = [{geometry.width for geometry in side} for side in zip(*self.geometries, strict=True)]
        if any(len(width) > 1 for width in widths):
            raise ShapeError(
                f"one linear layer is shared by all blocks, which must be of one width, got {sorted(widths[0])} of the "
                f"student and {sorted(widths[1])} of the teacher: name attention modules of one stage, or use MiniLMKD."
            )
        if self.wanted == "always":
            self.projection = nn.Linear(widths[0].pop(), widths[1].pop())
        elif widths[0] != widths[1]:
            raise ShapeError(
                f"`projection='none'` needs equal widths, got student {widths[0].pop()} and teacher {widths[1].pop()}: "
                "use projection='always'."
            )
        for pair in self.pairs:
            pair.heads(_HEADS)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = [
            attention_score_mse(
                _hiding(token_relations(s.query, s.key, heads=pair.student.heads), student),
                _hiding(token_relations(t.query, t.key, heads=pair.teacher.heads), student),
            )
            for pair, (s, t) in zip(self.pairs, self.projections(student, teacher), strict=True)
        ]
        outputs = [feature_mse(student.features[s], teacher.features[t]) for s, t in self.outputs]
        return torch.stack([*scores, *self._hidden_terms(student, teacher), *outputs]).sum()

    def _hidden_terms(self, student: Observation, teacher: Observation) -> list[Tensor]:
        terms = []
        for (s_tap, t_tap), (s_geometry, t_geometry) in zip(self.hidden, self.geometries, strict=True):
            features = student.features[s_tap], teacher.features[t_tap]
            s, t = common_tokens(*features, s_geometry.layout, t_geometry.layout)
            terms.append(feature_mse(self.projection(s), t))
        return terms


class TinyBERTLogitKD(LogitObjective):
    r"""Cross-entropy with the teacher's predictions, averaged over samples and classes: TinyBERT's step 2.

    .. math::
        L = -\frac{1}{N K} \sum_{n, k} p_{nk} \log q_{nk}, \qquad
        p = \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    The mean over :math:`K` classes is what the published code does: the gradient is a :math:`K`-th of that of `LogitKD`
    at temperature 1. Outputs are read as by `LogitKD`.

    Args:
        temperature: Softmax temperature above 0, dimensionless; there is no factor :math:`T^2`.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all and needs no labels.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0.

    Source:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", arXiv:1909.10351.

    Example:
        >>> TinyBERTLogitKD()
        TinyBERTLogitKD(temperature=1.0, weight=1.0)
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "tinybert_logit",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        self.temperature = temperature

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        classes = scores.student.shape[-1]
        return (
            soft_cross_entropy(scores.student, scores.teacher, temperature=self.temperature, mask=scores.mask) / classes
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, weight={self.weight}"


def _hiding(scores: Tensor, call: Observation) -> Tensor:
    """Scores with those of padded keys at the value that counts as masked."""
    mask = call.inputs.kwargs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape != (scores.shape[0], scores.shape[-1]):
        return scores
    return scores.masked_fill(~mask.bool()[:, None, None, :], MASKED_SCORE)


def _block_output(attention: Tap) -> Tap:
    return Tap(block_of(attention.path), prefix_tokens=attention.prefix_tokens)


def _embedding(attention: Tap) -> Tap:
    """Input of the first block of the list that the attention is in."""
    blocks = block_of(attention.path).rpartition(".")[0]
    return Tap(f"{blocks}.0".lstrip("."), at="input", prefix_tokens=attention.prefix_tokens)
