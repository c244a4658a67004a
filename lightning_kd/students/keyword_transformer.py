"""KWT: a transformer over the frames of a second of cepstra, with an optional distillation token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError

HEAD_WIDTH = 64
MLP_RATIO = 4
STANDARD_DEVIATION = 0.02


class FrameAttention(nn.Module):
    """Self-attention over all frames.

    Args:
        width: Width of a frame, a multiple of 64.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = width // HEAD_WIDTH
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    @override
    def forward(self, frames: Tensor) -> Tensor:
        """Return the mixed frames, shape ``(N, T, width)`` like ``frames``."""
        batch, count, width = frames.shape
        qkv = self.qkv(frames).reshape(batch, count, 3, self.num_heads, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return output


class PostNormBlock(nn.Module):
    """Attention and a two-layer network, each added to its input and normalised after that.

    Args:
        width: Width of a frame.
        dropout: Share of values that training hides.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        hidden = MLP_RATIO * width
        self.attn = FrameAttention(width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm2 = nn.LayerNorm(width)

    @override
    def forward(self, frames: Tensor) -> Tensor:
        """Return the frames, shape ``(N, T, width)`` like ``frames``."""
        frames = self.norm1(frames + self.attn(frames))
        output: Tensor = self.norm2(frames + self.mlp(frames))
        return output


class KeywordTransformer(nn.Module):
    """KWT on cepstra of `lightning_kd.speech.MFCC`.

    Parameters with 12 classes: 607,308 at width 64 (KWT-1), 2,394,252 at 128 (KWT-2), 5,360,844 at 192 (KWT-3), which
    are the published 607, 2,394 and 5,361 thousand. The MLPs are four times as wide as the frames.

    With ``distilled=True`` a second token listens to the teacher and has a head of its own. In training mode the result
    is then ``(z_class, z_distillation)``, as of `with_distillation_token`, and in evaluation mode their mean.

    Args:
        width: Width of a frame, a multiple of 64; heads have 64.
        classes: Number of classes.
        coefficients: Cepstral coefficients of a frame.
        frames: Frames of an input; 98 are a second.
        depth: Number of blocks.
        distilled: Whether there is a distillation token.
        dropout: Share of values that training hides.

    Raises:
        ValueError: If ``width`` is not a multiple of 64.

    Source:
        Berg, O'Connor and Cruz, "Keyword Transformer: A Self-Attention Model for Keyword Spotting", arXiv:2104.00769.

    Example:
        >>> student = KeywordTransformer(64, distilled=True)
        >>> [scores.shape for scores in student(torch.randn(2, 40, 98))]
        [torch.Size([2, 12]), torch.Size([2, 12])]
        >>> student.eval()(torch.randn(2, 40, 98)).shape
        torch.Size([2, 12])
    """

    def __init__(
        self,
        width: int = 64,
        *,
        classes: int = 12,
        coefficients: int = 40,
        frames: int = 98,
        depth: int = 12,
        distilled: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < HEAD_WIDTH or width % HEAD_WIDTH:
            raise ValueError(f"`width` must be a multiple of {HEAD_WIDTH}, the width of a head, got {width!r}.")
        self.shape = (coefficients, frames)
        self.num_prefix_tokens = 2 if distilled else 1
        self.embedding = nn.Linear(coefficients, width)
        self.tokens = nn.Parameter(_drawn(self.num_prefix_tokens, width))
        self.positions = nn.Parameter(_drawn(self.num_prefix_tokens + frames, width))
        self.blocks = nn.Sequential(*(PostNormBlock(width, dropout=dropout) for _ in range(depth)))
        self.head = nn.Linear(width, classes)
        self.head_dist = nn.Linear(width, classes) if distilled else None

    @override
    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Class scores.

        Args:
            features: Cepstra, shape ``(N, coefficients, frames)``.

        Returns:
            Logits, shape ``(N, classes)``; with a distillation token and in training mode those of both heads.

        Raises:
            ShapeError: If ``features`` has another shape.
        """
        if features.ndim != 3 or features.shape[1:] != self.shape:
            raise ShapeError(
                f"`features` must have shape (N, {self.shape[0]}, {self.shape[1]}), got {tuple(features.shape)}: "
                "put MFCC() in front, and give it a second of audio or build the student with frames=."
            )
        frames = self.embedding(features.transpose(1, 2))
        tokens = self.tokens.unsqueeze(0).expand(frames.shape[0], -1, -1)
        encoded = self.blocks(torch.cat([tokens, frames], dim=1) + self.positions)
        scores: Tensor = self.head(encoded[:, 0])
        if self.head_dist is None:
            return scores
        of_distillation: Tensor = self.head_dist(encoded[:, 1])
        return (scores, of_distillation) if self.training else (scores + of_distillation) / 2


def _drawn(tokens: int, width: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(tokens, width), std=STANDARD_DEVIATION)
