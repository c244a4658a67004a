"""Adapters of TransKD: how its maps are merged, and how its patch embeddings are mixed and assisted.

Features are read channels first, as everywhere; on tokens of one grid the published modules compute the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import AdapterNorm
from lightning_kd.errors import ShapeError


class SelectiveMerge(nn.Module):
    r"""Merger of TransKD's cross selective fusion (CSF): channel by channel, how much of which map.

    .. math::
        r = w_1 \odot x + w_2 \odot u, \quad (w_1, w_2) = \mathrm{softmax}(A_1 s, A_2 s), \quad
        s = \mathrm{ReLU}(\mathrm{BN}(S\, \mathrm{GAP}(x + u)))

    with 1x1 convolutions :math:`S` (to ``max(width / 16, 32)`` channels, without bias) and :math:`A_i` (with bias), the
    softmax over the two maps. For a batch of one sample the authors' code has further weights in place of :math:`S`
    and BN, which no other batch trains. Here BN then takes its running statistics; in a training of such batches alone
    they stay at 0 and 1, so that what remains is, as published, a convolution and ReLU.

    Args:
        width: Width of both maps.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393; batches of one sample are ours.

    Example:
        >>> merge = SelectiveMerge(64)
        >>> for weight in merge.select.parameters():
        ...     _ = nn.init.zeros_(weight)
        >>> merge(torch.zeros(2, 64, 4, 4), torch.ones(2, 64, 4, 4)).unique()  # both weights are 1/2
        tensor([0.5000], grad_fn=<Unique2Backward0>)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 16, 32)
        self.squeeze = nn.Sequential(nn.Conv2d(width, hidden, 1, bias=False), AdapterNorm(hidden), nn.ReLU())
        self.select = nn.ModuleList(nn.Conv2d(hidden, width, 1) for _ in range(2))

    @override
    def forward(self, own: Tensor, deeper: Tensor) -> Tensor:
        """Return the merged map.

        Args:
            own: The level's own map, shape ``(N, width, H, W)``.
            deeper: Fused map of the deeper levels, same shape.

        Returns:
            Their weighted sum, same shape.
        """
        squeezed = self.squeeze((own + deeper).mean(dim=(2, 3), keepdim=True))
        weights = torch.stack([branch(squeezed) for branch in self.select]).softmax(dim=0)
        return weights[0] * own + weights[1] * deeper


class GlobalLocalMixer(nn.Module):
    r"""TransKD's global-local context mixer (GL-Mixer) of a patch embedding.

    .. math::
        E' = a\, \mathrm{MHSA}(E) + b\, \bigl(C_1(E) \odot \sigma(C_2(E))\bigr)

    with multi-head self-attention (queries, keys and values without bias, output with bias), convolutions :math:`C_i`
    of kernel 3 along the tokens in row order, and learned scalars :math:`a, b`. These start at 1, which is ours: the
    authors' code leaves them uninitialised.

    Args:
        width: Width of the embedding.
        heads: Attention heads; must divide ``width``.
        residual: Whether :math:`E` is added, off in the published default.

    Raises:
        ShapeError: If ``heads`` does not divide ``width``.
        ValueError: If ``heads`` is not above 0.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393.

    Example:
        >>> GlobalLocalMixer(256)(torch.zeros(2, 256, 4, 4)).shape
        torch.Size([2, 256, 4, 4])
    """

    def __init__(self, width: int, *, heads: int = 8, residual: bool = False) -> None:
        super().__init__()
        check_positive("heads", heads)
        if width % heads:
            raise ShapeError(f"`heads` must divide the embedding's width of {width}, got {heads}.")
        self.heads = heads
        self.residual = residual
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.join = nn.Linear(width, width)
        self.local, self.gate = (nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.global_scale, self.local_scale = (nn.Parameter(torch.ones(())) for _ in range(2))

    @override
    def forward(self, embedding: Tensor) -> Tensor:
        """Return the mixed embedding.

        Args:
            embedding: Shape ``(N, width, *grid)`` with one or two grid axes.

        Returns:
            Same shape.
        """
        tokens = embedding.flatten(2)
        local = self.local(tokens) * self.gate(tokens).sigmoid()
        mixed: Tensor = self.global_scale * self._attention(tokens) + self.local_scale * local
        return mixed.reshape(embedding.shape) + (embedding if self.residual else 0.0)

    def _attention(self, tokens: Tensor) -> Tensor:
        parts = self.attend(tokens.transpose(1, 2)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(*parts.unbind())
        joined: Tensor = self.join(heads.transpose(1, 2).flatten(2))
        return joined.transpose(1, 2)

    @override
    def extra_repr(self) -> str:
        return f"heads={self.heads}, residual={self.residual}"


class EmbeddingAssistant(nn.Module):
    """TransKD's embedding assistant (EA): an overlapping patch embedding of the teacher's width, used in training only.

    A convolution whose kernel of ``2 * stride - 1`` overlaps its neighbours (7 at stride 4, 3 at stride 2, as
    published; other strides are ours), then LayerNorm over the channels.

    Args:
        inputs: Width of the student's map, 3 for an image.
        outputs: Width of the teacher's embedding.
        stride: Cells of the map per token along each axis.

    Raises:
        ValueError: If a stride is not above 0.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393.

    Example:
        >>> EmbeddingAssistant(3, 64, stride=(4, 4))(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 64, 16, 16])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: tuple[int, int]) -> None:
        super().__init__()
        for cells in stride:
            check_positive("stride", cells)
        padding = (stride[0] - 1, stride[1] - 1)
        self.embed = nn.Conv2d(inputs, outputs, (stride[0] + padding[0], stride[1] + padding[1]), stride, padding)
        self.norm = nn.LayerNorm(outputs)
        weight, bias = self.embed.parameters()
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(bias)

    @override
    def forward(self, source: Tensor) -> Tensor:
        """Return the embedding.

        Args:
            source: The image, or the student's map of the stage before, shape ``(N, inputs, H, W)``.

        Returns:
            Shape ``(N, outputs, ceil(H / stride), ceil(W / stride))``.
        """
        embedded: Tensor = self.norm(self.embed(source).movedim(1, -1))
        return embedded.movedim(-1, 1)
