"""Random spans of frames to hide, as masking distillation and masked prediction want them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_kd._checks import check_fraction
from lightning_kd.frames import lengths_to_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanMask:
    """Draws which frames of each utterance to hide; never any of its padding.

    The number of spans is ``share * frames`` over their mean length, rounded up or down at random. Lengths are uniform.
    Spans lie anywhere; with a ``gap`` they do not overlap and keep that distance, and those that find no room are left
    out. Random numbers are torch's, of the CPU.

    Attributes:
        share: Frames in spans, from 0 to 1, if none overlap.
        shortest: Frames of the shortest span.
        longest: Frames of the longest span.
        gap: Least number of frames between spans; ``None`` lets them overlap.

    Raises:
        ValueError: If ``share`` is not from 0 to 1, or the other numbers do not fit together.

    Source:
        The default is ARMHuBERT's, arXiv:2305.11685, whose spans have 0 to 20 frames; ``SpanMask(share=0.65,
        shortest=10, longest=10, gap=None)`` is HuBERT's, arXiv:2106.07447. How spans are placed is ours.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> SpanMask(longest=4)(torch.tensor([8, 3]), frames=8).int()[:, 3:].sum(dim=1)[1]  # of padding, none
        tensor(0)
    """

    share: float = 0.8
    shortest: int = 0
    longest: int = 20
    gap: int | None = 1

    def __post_init__(self) -> None:
        """Check the values."""
        check_fraction("share", self.share)
        if not 0 <= self.shortest <= self.longest or self.longest < 1:
            raise ValueError(
                f"`longest` must be at least 1 and `shortest`, got {self.longest} and {self.shortest} frames."
            )
        if self.gap is not None and self.gap < 0:
            raise ValueError(f"`gap` must be a number of frames, or None for spans that overlap, got {self.gap}.")

    def __call__(self, lengths: Tensor, frames: int) -> Tensor:
        """Draw spans for a batch.

        Args:
            lengths: Valid frames of each utterance, shape ``(N,)``, whole numbers.
            frames: Frames of the padded batch.

        Returns:
            Which frames to hide, shape ``(N, frames)``, boolean, on the device of ``lengths``.
        """
        rows = [self._row(min(length, frames), frames) for length in lengths.tolist()]
        return torch.stack(rows).to(lengths.device) & lengths_to_mask(lengths, frames)

    def _row(self, length: int, frames: int) -> Tensor:
        mean = (self.shortest + self.longest) / 2
        count = int(self.share * length / mean + torch.rand(()).item())
        sizes = torch.randint(self.shortest, self.longest + 1, (count,)).clamp(max=length)
        if self.gap is None:
            starts = (torch.rand(count) * (length - sizes + 1)).long()
        else:
            sizes = sizes[(sizes + self.gap).cumsum(0) - self.gap <= length]
            # What is left is spread over the places before, between and behind the spans.
            left = length - int((sizes + self.gap).sum()) + self.gap
            before = torch.randint(0, left + 1, (len(sizes),)).sort().values if len(sizes) else sizes
            starts = before + (sizes + self.gap).cumsum(0) - (sizes + self.gap)
        places = torch.arange(frames)
        return ((places >= starts[:, None]) & (places < (starts + sizes)[:, None])).any(dim=0)
