"""Exit branches: from a feature in the middle of a student straight to class scores, as OFA-KD builds them."""

import itertools
import math

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import AdapterNorm, Geometry
from lightning_kd.errors import SetupError
from lightning_kd.layout import pooled

HEADS = 4


class MapBranch(nn.Module):
    """Exit branch for a convolutional student: convolutions that halve the grid, pooling, a linear classifier.

    Args:
        student: Geometry of the tapped feature.
        classes: Number of classes.
        stages_left: How many stages of the student are deeper; as many convolution blocks stand in for them. Each
            doubles the channels, the last one leads to ``width``. With none it is one 1x1 convolution.
        width: Channels in front of the classifier.

    Source:
        Hao et al., "One-for-All", arXiv:2310.19444. Batches of one sample with a 1x1 map are ours (`AdapterNorm`).

    Example:
        >>> from lightning_kd.layout import Layout
        >>> branch = MapBranch(Geometry(Layout("NCHW"), 16, (16, 16)), classes=10, stages_left=2, width=64)
        >>> branch(torch.zeros(2, 16, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(self, student: Geometry, *, classes: int, stages_left: int, width: int) -> None:
        super().__init__()
        self.layout = student.layout
        widths = [student.width * 2**depth for depth in range(stages_left)] + [width]
        blocks = [_separable(*pair) for pair in itertools.pairwise(widths)]
        self.convolutions = nn.Sequential(*blocks) if blocks else nn.Conv2d(student.width, width, 1)
        self.classifier = nn.Linear(width, classes)
        self.apply(_initialize)

    @override
    def forward(self, feature: Tensor) -> Tensor:
        """Return class scores of shape ``(N, classes)``.

        Args:
            feature: The student's feature as tapped.

        Returns:
            Class scores.
        """
        scores: Tensor = self.classifier(pooled(self.convolutions(self.layout.channels_first(feature))))
        return scores


class TokenBranch(nn.Module):
    """Exit branch for a student of tokens: patch mergings, transformer blocks, a linear classifier.

    Prefix tokens go round the mergings and through the blocks. The first of them is classified, the mean of the patches
    if there is none.

    Args:
        student: Geometry of the tapped feature.
        classes: Number of classes.
        stages_left: How many stages of the student are deeper; as many blocks follow the mergings, at least one.
        width: Width after the mergings.
        grid: Height and width of the patch grid after the mergings, each of which halves both.

    Raises:
        SetupError: If halving does not lead from the student's grid to ``grid``, or prefix tokens would have to change
            their width.

    Source:
        Hao et al., "One-for-All", arXiv:2310.19444, for grids that lead to 7x7 and at most one prefix token. Other
        grids, taking the first of several prefix tokens, and fewer than 4 heads in widths that 4 does not divide are
        ours.

    Example:
        >>> from lightning_kd.layout import Layout
        >>> tokens = Geometry(Layout("NLD", prefix_tokens=1), 64, (8, 8))
        >>> TokenBranch(tokens, classes=10, stages_left=2, width=64, grid=(2, 2))(torch.zeros(2, 65, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(self, student: Geometry, *, classes: int, stages_left: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.layout = student.layout
        mergings = _halvings(student.grid, grid)
        inside = width if mergings else student.width
        if student.layout.prefix_tokens and student.width != inside:
            raise SetupError(
                f"prefix tokens of width {student.width} cannot join patches merged to width {inside}: tap blocks of "
                "the student's last width."
            )
        self.merge = nn.Sequential(*(_merging(student.width, width, index, mergings) for index in range(mergings)))
        heads = math.gcd(HEADS, inside)
        self.blocks = nn.Sequential(*(Block(inside, heads, mlp_ratio=4.0) for _ in range(max(stages_left, 1))))
        self.classifier = nn.Linear(inside, classes)
        self.apply(_initialize)

    @override
    def forward(self, feature: Tensor) -> Tensor:
        """Return class scores of shape ``(N, classes)``.

        Args:
            feature: The student's feature as tapped.

        Returns:
            Class scores.
        """
        patches = self.merge(self.layout.channels_first(feature)).flatten(2).transpose(1, 2)
        prefix = self.layout.prefix_tokens
        tokens = self.blocks(torch.cat([feature[:, :prefix], patches], dim=1) if prefix else patches)
        scores: Tensor = self.classifier(tokens[:, 0] if prefix else tokens.mean(dim=1))
        return scores


class PatchMerging(nn.Module):
    """Merges 2x2 patches into one: LayerNorm over their channels, linear map without bias, activation.

    Args:
        inputs: Channels of a patch.
        outputs: Channels of a merged patch.
        activation: What follows.
    """

    def __init__(self, inputs: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * inputs)
        self.reduction = nn.Linear(4 * inputs, outputs, bias=False)
        self.activation = activation

    @override
    def forward(self, patches: Tensor) -> Tensor:
        """Return the merged patches.

        Args:
            patches: Shape ``(N, inputs, H, W)``, both sizes even.

        Returns:
            Shape ``(N, outputs, H / 2, W / 2)``.
        """
        together = F.pixel_unshuffle(patches, 2).movedim(1, -1)
        merged: Tensor = self.activation(self.reduction(self.norm(together)))
        return merged.movedim(-1, 1)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Two depthwise-separable convolutions, the first of stride 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, inputs, 1, bias=False),
        AdapterNorm(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        AdapterNorm(outputs),
        nn.ReLU(),
    )


def _merging(inputs: int, outputs: int, index: int, mergings: int) -> PatchMerging:
    """The first merging changes the width; the last has no activation unless it is the first."""
    last = 0 < index == mergings - 1
    return PatchMerging(outputs if index else inputs, outputs, nn.Identity() if last else nn.GELU())


def _halvings(grid: tuple[int, ...], wanted: tuple[int, int]) -> int:
    """How often ``grid`` must be halved to become ``wanted``."""
    for count in range(max(grid).bit_length()):
        if grid == tuple(size * 2**count for size in wanted):
            return count
    raise SetupError(
        f"halving does not lead from the student's patch grid {grid} to {wanted}: choose the last grid, final_grid=, "
        "so that it does."
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
