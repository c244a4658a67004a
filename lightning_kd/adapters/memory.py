"""Banks that remember an embedding of every sample of the data set, for contrastive methods."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.distributed import gather_rows
from lightning_kd.errors import SetupError
from lightning_kd.losses._common import without_autocast


def contrast_groups(samples: int | None, labels: Sequence[int] | Tensor | None, *, negatives: int) -> Tensor:
    """Which samples are not contrasted with each other: those of one class, or without labels only a sample itself.

    Args:
        samples: Size of the data set; may be left out with ``labels``.
        labels: Class of each sample in the order of its index, shape ``(n,)``; ``None`` where classes do not matter.
        negatives: How many others each sample is to be contrasted with.

    Returns:
        Group of each sample, shape ``(n,)``.

    Raises:
        ValueError: If neither is given, they contradict each other, or some sample has too few others.

    Example:
        >>> contrast_groups(4, None, negatives=3)
        tensor([0, 1, 2, 3])
    """
    if labels is not None:
        groups = torch.as_tensor(labels).cpu()
    elif samples is not None and samples > 0:
        groups = torch.arange(samples)
    else:
        raise ValueError(f"`samples` must be the size of the data set where `labels` are not given, got {samples!r}.")
    if groups.ndim != 1 or groups.is_floating_point() or samples not in (None, len(groups)):
        raise ValueError(
            f"`labels` must be one whole number per sample, {samples or 'n'} of them, got {groups.dtype} of shape "
            f"{tuple(groups.shape)}."
        )
    others = len(groups) - max(Counter(groups.tolist()).values(), default=0)
    if not 1 <= negatives <= others:
        raise ValueError(
            f"`negatives` must be from 1 to {others}, as many of the {len(groups)} samples as any of them can be "
            f"contrasted with, got {negatives}."
        )
    return groups


def check_momentum(momentum: float) -> None:
    """Raise `ValueError` unless a bank would change."""
    if not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must be at least 0 and below 1, got {momentum!r}.")


class ContrastiveMemory(nn.Module):
    r"""Embeddings of all samples, one bank per side: whom to contrast a sample with.

    A side's sample :math:`i` is compared with the other side's bank :math:`b`:

    .. math::
        P_k = \frac{\exp(b_k^\top x_i / \tau)}{Z}, \qquad Z = n \cdot \mathrm{mean}(\exp(b_k^\top x_i / \tau))

    where :math:`Z`, one number per side, is set at the first batch and then stays. The banks and both :math:`Z` are
    buffers: they are saved, and under DDP they are the same on all ranks, because every rank enters the samples of all.

    A batch costs :math:`O(N n d)` time, for the scores of all :math:`n` samples at once, which is less than to collect
    the embeddings of thousands of negatives for each of its :math:`N` samples; memory is :math:`O(N n + n d)`.

    Args:
        groups: Group of each sample in the order of its index, whole numbers of shape ``(n,)``: samples of one group
            are not contrasted. See `contrast_groups`.
        width: Size :math:`d` of an embedding.
        temperature: :math:`\tau > 0`, dimensionless.
        momentum: What an embedding keeps of its former self when its sample is seen again, in [0, 1).

    Raises:
        ValueError: If ``temperature`` or ``momentum`` is out of range.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation", arXiv:1910.10699.
    """

    student: Tensor
    teacher: Tensor
    log_partitions: Tensor
    groups: Tensor

    def __init__(self, groups: Tensor, width: int, *, temperature: float = 0.07, momentum: float = 0.5) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_momentum(momentum)
        self.temperature = temperature
        self.momentum = momentum
        samples, bound = len(groups), 1 / math.sqrt(width / 3)
        self.register_buffer("student", torch.empty(samples, width).uniform_(-bound, bound))
        self.register_buffer("teacher", torch.empty(samples, width).uniform_(-bound, bound))
        self.register_buffer("log_partitions", torch.full((2,), torch.nan))
        self.register_buffer("groups", groups, persistent=False)
        self._started = False

    def candidates(self, indices: Tensor, negatives: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw whom each sample is compared with: itself, and others without repetition.

        Args:
            indices: Samples of the batch, integers in [0, n), shape ``(N,)``.
            negatives: How many others each gets.
            generator: Source of randomness on the device of the banks; ``None`` is PyTorch's own.

        Returns:
            Indices, shape ``(N, 1 + negatives)``, the sample's own first.

        Raises:
            SetupError: If an index is out of range.
        """
        self._check(indices)
        keys = torch.rand(len(indices), len(self.groups), device=indices.device, generator=generator)
        keys = keys.masked_fill(self.groups[indices][:, None] == self.groups[None, :], -1.0)
        others = keys.topk(negatives, dim=1, sorted=False).indices
        return torch.cat([indices[:, None], others], dim=1)

    def _check(self, indices: Tensor) -> None:
        """Look at the indices of the first batch, and of later ones where the device need not be waited for."""
        if self._started and indices.device.type != "cpu":
            return
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= len(self.groups):
            raise SetupError(
                f"`indices` must be from 0 to {len(self.groups) - 1}, for {len(self.groups)} samples, got {low} to "
                f"{high}: give the size of the data set that the indices belong to."
            )
        if not self._started and len(set(indices.tolist())) < len(indices):
            warnings.warn(
                "`indices` of the first batch name a sample twice: are they labels? Wrap the data set, "
                "IndexedDataset(dataset). If sampling repeats samples it is right: the first of each is remembered.",
                stacklevel=2,
            )

    @override
    def forward(self, student: Tensor, teacher: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the candidates: of the teacher's for the student, and of the student's for the teacher.

        Args:
            student: Embeddings of length 1, shape ``(N, d)``.
            teacher: Embeddings of length 1, shape ``(N, d)``.
            candidates: What `candidates` drew.

        Returns:
            Two tensors of shape ``(N, 1 + negatives)`` in nats, at least float32.
        """
        student_scores = self._scores(student, self.teacher, candidates)
        teacher_scores = self._scores(teacher, self.student, candidates)
        if not self._started:
            self._start(student_scores, teacher_scores)
        student_partition, teacher_partition = self.log_partitions.clone()
        return student_scores - student_partition, teacher_scores - teacher_partition

    def _scores(self, embeddings: Tensor, bank: Tensor, candidates: Tensor) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(embeddings.dtype, bank.dtype), torch.float32)
        with without_autocast(bank):
            # The bank changes before the backward pass, which needs it as it was.
            scores = embeddings.to(dtype) @ bank.to(dtype, copy=True).T
        return scores.gather(1, candidates) / self.temperature

    @torch.no_grad()
    def _start(self, *scores: Tensor) -> None:
        """Set the partitions that were not loaded, from the batches of all ranks."""
        for side, values in enumerate(scores):
            everyone = gather_rows(values.logsumexp(dim=1))
            log_mean = everyone.logsumexp(dim=0) - math.log(len(everyone) * values.shape[1])
            estimate = (log_mean + math.log(len(self.groups))).to(self.log_partitions.dtype)
            unset = self.log_partitions[side].isnan()
            self.log_partitions[side] = torch.where(unset, estimate, self.log_partitions[side])
        self._started = True

    @torch.no_grad()
    def update(self, indices: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Remember the embeddings of a batch, and of the other ranks' batches; call it after the scores.

        Args:
            indices: Samples of the batch, shape ``(N,)``.
            student: Their embeddings, shape ``(N, d)``.
            teacher: Likewise.
        """
        indices = gather_rows(indices)
        # Rows of one sample all get the first one's value, so that it does not matter which is written last.
        first = (indices[:, None] == indices[None, :]).int().argmax(dim=1)
        for bank, embeddings in ((self.student, student), (self.teacher, teacher)):
            seen = gather_rows(embeddings.detach())[first].to(bank.dtype)
            bank[indices] = F.normalize(torch.lerp(seen, bank[indices], self.momentum), dim=1)

    @override
    def extra_repr(self) -> str:
        samples, width = self.student.shape
        return f"samples={samples}, width={width}, temperature={self.temperature}, momentum={self.momentum}"
