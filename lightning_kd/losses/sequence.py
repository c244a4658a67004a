"""Losses of whole transcripts: how probable a CTC student finds what its teacher would write."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.decoding import Hypothesis, check_blank, frame_counts
from lightning_kd.errors import ShapeError


def ctc_negative_log_likelihood(
    logits: Tensor, transcripts: Sequence[Sequence[int]], mask: Tensor | None = None, *, blank: int
) -> Tensor:
    """Negative log-likelihood of one transcript per utterance under a CTC network.

    Args:
        logits: Unnormalised scores, shape ``(N, T, V)``, floating point.
        transcripts: Class indices of each utterance, without blanks; an empty one says that all frames are blank.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``, a run from the first frame on; ``None``
            counts all.
        blank: Index of the blank.

    Returns:
        Nats per utterance, shape ``(N,)``. A transcript that does not fit into its frames, which need one for each
        label and one more between equal ones, has likelihood 0, and counts as 0 nats without gradient.

    Raises:
        ShapeError: If the logits have not three axes or no class ``blank``, or the numbers of utterances differ.
        ValueError: If a transcript holds the blank or an index that is no class.

    Example:
        >>> logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
        >>> ctc_negative_log_likelihood(logits, [[0]], blank=1).neg().exp()  # 1 - 0.4 * 0.4
        tensor([0.8400])
    """
    check_blank(logits, blank)
    if len(transcripts) != len(logits):
        raise ShapeError(f"`transcripts` must hold one per utterance, {len(logits)}, got {len(transcripts)}.")
    _check_labels(transcripts, classes=logits.shape[-1], blank=blank)
    scores = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    if mask is not None:
        scores = scores.masked_fill(~mask[..., None], 0.0)
    frames = torch.tensor(frame_counts(logits, mask))
    lengths = torch.tensor([len(transcript) for transcript in transcripts])
    labels = torch.tensor([label for transcript in transcripts for label in transcript], dtype=torch.long)
    return F.ctc_loss(
        scores.transpose(0, 1),
        labels.to(logits.device),
        frames,
        lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )


def ctc_hypotheses(
    student_logits: Tensor,
    hypotheses: Sequence[Sequence[Hypothesis]],
    mask: Tensor | None = None,
    *,
    blank: int,
    per_label: bool = True,
    relative: bool = False,
) -> Tensor:
    r"""CTC loss of a student on its teacher's best transcripts, weighted by how probable the teacher finds each.

    .. math::
        L = \frac1N \sum_n \sum_k w_{nk} \, \ell(y_{nk}), \qquad
        w_{nk} = \frac{P_T(y_{nk} | x_n)}{\sum_j P_T(y_{nj} | x_n)}

    with :math:`\ell` the negative log-likelihood. One hypothesis per utterance is the 1-best loss: its weight is 1.

    Args:
        student_logits: Unnormalised scores, shape ``(N, T, V)``, floating point.
        hypotheses: At least one hypothesis per utterance, see `lightning_kd.decoding`.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``; ``None`` counts all.
        blank: Index of the blank.
        per_label: Whether each negative log-likelihood is divided by the transcript's length, at least 1, as the mean
            of PyTorch's ``ctc_loss`` is, so that long utterances do not outweigh others.
        relative: Whether the weighted sum of an utterance is divided by the plain sum over its hypotheses, so that
            only their order matters. It has no gradient where there is one hypothesis.

    Returns:
        Loss in nats (dimensionless if ``relative``), shape ``()``.

    Raises:
        ShapeError: If an utterance has no hypothesis, or as `ctc_negative_log_likelihood`.
        ValueError: As `ctc_negative_log_likelihood`.

    Source:
        Hilmes, Rossenbach and Schlueter, Interspeech 2025, code, for N best hypotheses and ``relative``.

    Example:
        >>> logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
        >>> ctc_hypotheses(logits, [[Hypothesis((0,))]], blank=1)  # -log 0.84
        tensor(0.1744)
    """
    counts = [len(found) for found in hypotheses]
    if not counts or min(counts) < 1:
        raise ShapeError(f"`hypotheses` must hold at least one transcript per utterance, got {counts}.")
    if len(counts) != len(student_logits):
        raise ShapeError(f"`hypotheses` must hold a list per utterance, {len(student_logits)}, got {len(counts)}.")
    owner = torch.arange(len(counts), device=student_logits.device).repeat_interleave(
        torch.tensor(counts, device=student_logits.device)
    )
    flat = [hypothesis for found in hypotheses for hypothesis in found]
    losses = ctc_negative_log_likelihood(
        student_logits[owner], [h.labels for h in flat], None if mask is None else mask[owner], blank=blank
    )
    if per_label:
        losses = losses / losses.new_tensor([max(len(h.labels), 1) for h in flat])
    weights = torch.cat([torch.tensor([h.log_probability for h in found]).softmax(dim=0) for found in hypotheses])
    per_utterance = losses.new_zeros(len(counts)).index_add(0, owner, losses * weights.to(losses))
    if relative:
        per_utterance = per_utterance / losses.new_zeros(len(counts)).index_add(0, owner, losses).clamp(min=1e-12)
    return per_utterance.mean()


def _check_labels(transcripts: Sequence[Sequence[int]], *, classes: int, blank: int) -> None:
    wrong = {label for transcript in transcripts for label in transcript if label == blank or not 0 <= label < classes}
    if wrong:
        raise ValueError(
            f"`transcripts` must hold classes from 0 to {classes - 1} without the blank, {blank}, got "
            f"{sorted(wrong)}: are they of another tokenizer?"
        )


class CTCHypotheses(nn.Module):
    """Module form of `ctc_hypotheses`.

    Args:
        blank: Index of the blank.
        per_label: Whether negative log-likelihoods are divided by the length of their transcript.
        relative: Whether weighted sums are divided by plain ones.
    """

    def __init__(self, *, blank: int, per_label: bool = True, relative: bool = False) -> None:
        super().__init__()
        self.blank = blank
        self.per_label = per_label
        self.relative = relative

    @override
    def forward(
        self, student_logits: Tensor, hypotheses: Sequence[Sequence[Hypothesis]], mask: Tensor | None = None
    ) -> Tensor:
        return ctc_hypotheses(
            student_logits, hypotheses, mask, blank=self.blank, per_label=self.per_label, relative=self.relative
        )

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, per_label={self.per_label}, relative={self.relative}"
