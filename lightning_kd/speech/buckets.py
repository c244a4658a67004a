"""Batches of samples of similar length, the same in number on every process."""

import math
from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.distributed as dist
from torch.utils.data import Sampler
from typing_extensions import override

from lightning_kd._checks import check_not_negative
from lightning_kd.errors import AudioError

EPOCHS = 100_003  # more than anyone trains, so that no two seeds share an order


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of similar length in random order, so that little is padded or cropped off.

    With ``max_length`` the number of batches may differ by a few from epoch to epoch.

    Lengths are varied by ``noise`` before they are sorted, so that batches differ from epoch to epoch; then neighbours
    are batched, and the batches shuffled. With several processes each takes its share of the batches, all equally many:
    those that are left over are filled up from the first. Order and shares follow from ``seed`` and the epoch alone.

    Give it to a ``DataLoader`` as ``batch_sampler``; Lightning's Trainer tells it the epoch, and must be told
    ``use_distributed_sampler=False``, because this sampler distributes by itself.

    Args:
        lengths: Length of every sample, in samples of audio.
        batch_size: Samples in a batch; ``None`` if ``max_length`` limits it alone.
        max_length: Most that a batch may hold once it is padded: its longest times its number.
        noise: Share of each length by which it is varied, at least 0.
        seed: Of the order.

    Raises:
        AudioError: If a length is not above 0, or one sample alone exceeds ``max_length``.
        ValueError: If neither limit is given, or a number is out of range.

    Example:
        >>> sampler = LengthBucketSampler([5, 90, 6, 88], batch_size=2)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 2], [1, 3]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int | None = None,
        max_length: int | None = None,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_not_negative("noise", noise)
        if batch_size is None and max_length is None:
            raise ValueError("`batch_size` or `max_length` must limit a batch, got neither.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size` must be above 0, got {batch_size}.")
        if not lengths or min(lengths) < 1:
            raise AudioError(f"`lengths` must be above 0, one for each sample, got {min(lengths, default='none')}.")
        if max_length is not None and max(lengths) > max_length:
            raise AudioError(
                f"`max_length` must be at least the longest sample's {max(lengths)}, got {max_length}: leave it out of "
                "the data, or crop it."
            )
        self.lengths = torch.tensor(lengths, dtype=torch.float64)
        self.batch_size = batch_size
        self.max_length = max_length
        self.noise = noise
        self.seed = seed
        self.epoch = 0

    @property
    def sampler(self) -> Self:
        """Itself: where Trainers look for whom to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch from now on.

        Args:
            epoch: From 0.
        """
        self.epoch = epoch

    @override
    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        rank, processes = _place()
        wanted = math.ceil(len(batches) / processes) * processes
        for index in range(rank, wanted, processes):
            yield batches[index % len(batches)]

    def __len__(self) -> int:
        """Batches of this process in this epoch."""
        return math.ceil(len(self._batches()) / _place()[1])

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * EPOCHS + self.epoch)
        varied = self.lengths * (1 + self.noise * (2 * torch.rand(len(self.lengths), generator=generator) - 1))
        # Equal lengths come in random order.
        order = torch.randperm(len(varied), generator=generator)
        order = order[varied[order].argsort(stable=True)]
        batches = self._cut(order.tolist())
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]

    def _cut(self, order: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        longest = 0.0
        for index in order:
            longest = max(longest, float(self.lengths[index]))
            if not batches or self._is_full(len(batches[-1]), longest):
                batches.append([])
                longest = float(self.lengths[index])
            batches[-1].append(index)
        return batches

    def _is_full(self, count: int, longest: float) -> bool:
        return count == self.batch_size or (self.max_length is not None and (count + 1) * longest > self.max_length)


def _place() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
