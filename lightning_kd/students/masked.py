"""The masked autoencoder: a vision transformer that sees some patches of an image and paints the others."""

import math
from typing import Any, NamedTuple

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import SetupError, ShapeError

STANDARD_DEVIATION = 0.02


class Reconstruction(NamedTuple):
    """What a `MaskedAutoencoder` returns.

    Attributes:
        patches: Predicted pixels of every patch, shape ``(N, L, P)``, see `patchify`.
        mask: Which patches were hidden, shape ``(N, L)``, boolean.
    """

    patches: Tensor
    mask: Tensor


class MaskedAutoencoder(nn.Module):
    """A masked autoencoder around a timm vision transformer.

    The patches of lowest noise stay visible, in the order of their noise, and only they and the prefix tokens go
    through the encoder. The decoder sees all tokens, a learned one in place of each hidden patch, with fixed sine and
    cosine positions, and predicts pixels.

    The noise is an argument, because whoever gets the same noise hides the same patches: a teacher gets the student's
    arguments, so that drawing it in the training step lets both see the same ones::

        reconstruction = self.net(images, self.net.noise(images))
        loss = masked_reconstruction(reconstruction.patches, self.net.patchify(images), reconstruction.mask)

    ``encoder`` is the network to keep, with the names and weights of the bare one. Its own classifier, if it has one,
    is not used and gets no gradient: create it with ``num_classes=0``.

    Args:
        encoder: A timm ``VisionTransformer`` or subclass with position embeddings.
        decoder_width: Width of the decoder, a multiple of 4.
        decoder_depth: Number of its blocks.
        decoder_heads: Number of attention heads, a divisor of ``decoder_width``.
        mask_ratio: Part of the patches that is hidden, in [0, 1); the number of visible ones is rounded down.

    Raises:
        SetupError: If ``encoder`` is no timm vision transformer, or the decoder's width does not fit.
        ValueError: If ``mask_ratio`` is out of range.

    Source:
        He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377. The position embedding of the
        encoder is its own; in the paper it is fixed.

    Example:
        >>> import timm
        >>> images = torch.zeros(2, 3, 64, 64)
        >>> encoder = timm.create_model("test_vit", img_size=64, num_classes=0)
        >>> net = MaskedAutoencoder(encoder, decoder_width=32, decoder_depth=1, decoder_heads=2)
        >>> reconstruction = net(images, net.noise(images))
        >>> reconstruction.patches.shape, reconstruction.mask.sum(dim=1)
        (torch.Size([2, 16, 768]), tensor([12, 12]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, VisionTransformer) or encoder.pos_embed is None:
            raise SetupError(
                f"`encoder` must be a timm VisionTransformer with position embeddings, got {type(encoder).__name__}."
            )
        if decoder_width % 4 or decoder_width % decoder_heads:
            raise SetupError(
                f"`decoder_width` must be a multiple of 4 and of decoder_heads={decoder_heads}, got {decoder_width}."
            )
        if not 0.0 <= mask_ratio < 1.0:
            raise ValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio!r}.")
        self.encoder: Any = encoder
        self.mask_ratio = mask_ratio
        self.num_prefix_tokens: int = encoder.num_prefix_tokens
        self.patch_size: tuple[int, int] = tuple(encoder.patch_embed.patch_size)
        self.decoder = Decoder(
            encoder.embed_dim,
            decoder_width,
            grid=tuple(encoder.patch_embed.grid_size),
            prefix_tokens=self.num_prefix_tokens,
            depth=decoder_depth,
            heads=decoder_heads,
        )
        self.head = nn.Linear(decoder_width, encoder.patch_embed.proj.in_channels * math.prod(self.patch_size))
        _initialize(self.decoder)
        _initialize(self.head)

    @override
    def forward(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Hide patches and predict them.

        Args:
            images: Shape ``(N, C, H, W)``, floating point.
            noise: A number per patch, shape ``(N, L)``, see `noise`; ``None`` draws it, in evaluation mode only.

        Returns:
            The prediction of every patch, and which ones were hidden.

        Raises:
            SetupError: In training mode, if ``noise`` is not given.
            ShapeError: If ``noise`` is not one number per patch.
        """
        if noise is None:
            if self.training:
                raise SetupError(
                    "`noise` must be given in training, so that a teacher hides the same patches: call "
                    "net(images, net.noise(images))."
                )
            noise = self.noise(images)
        tokens, order = self.encode(images, noise)
        hidden: Tensor = self.decoder(tokens, order)
        visible = tokens.shape[1] - self.num_prefix_tokens
        mask = torch.ones_like(noise, dtype=torch.bool).scatter(1, order[:, :visible], value=False)
        return Reconstruction(self.head(hidden[:, self.num_prefix_tokens :]), mask)

    def encode(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder on the visible patches.

        Args:
            images: Shape ``(N, C, H, W)``, floating point.
            noise: A number per patch, shape ``(N, L)``.

        Returns:
            Prefix tokens and visible patches behind the encoder's last norm, shape ``(N, prefix + visible, D)``, and
            the indices of all patches in the order of their noise, shape ``(N, L)``.

        Raises:
            ShapeError: If ``noise`` is not one number per patch.
        """
        tokens: Tensor = self.encoder._pos_embed(self.encoder.patch_embed(images))  # noqa: SLF001 - timm's only way
        prefix, patches = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
        if noise.shape != patches.shape[:2]:
            raise ShapeError(f"`noise` must have shape {tuple(patches.shape[:2])}, got {tuple(noise.shape)}.")
        order = noise.argsort(dim=1)
        kept = order[:, : int(patches.shape[1] * (1 - self.mask_ratio)), None].expand(-1, -1, patches.shape[2])
        tokens = self.encoder.norm_pre(torch.cat([prefix, patches.gather(1, kept)], dim=1))
        return self.encoder.norm(self.encoder.blocks(tokens)), order

    def noise(self, images: Tensor) -> Tensor:
        """Draw what decides which patches are hidden.

        Args:
            images: Shape ``(N, C, H, W)``.

        Returns:
            Uniform in [0, 1), shape ``(N, L)``, on the images' device.
        """
        height, width = (size // patch for size, patch in zip(images.shape[2:], self.patch_size, strict=True))
        return torch.rand(images.shape[0], height * width, device=images.device)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images into the patches that are predicted, see the function `patchify`."""
        return patchify(images, self.patch_size)


class Decoder(nn.Module):
    """Sees every token, a learned one in place of each hidden patch; ``blocks`` can be tapped.

    Args:
        inputs: Width of the encoder.
        width: Width of the decoder.
        grid: Height and width of the patch grid.
        prefix_tokens: Tokens before the patches.
        depth: Number of blocks.
        heads: Number of attention heads.
    """

    positions: Tensor

    def __init__(
        self, inputs: int, width: int, *, grid: tuple[int, ...], prefix_tokens: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens
        self.enter = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=STANDARD_DEVIATION))
        # Prefix tokens have no place in the image.
        positions = torch.cat([torch.zeros(prefix_tokens, width), build_sincos2d_pos_embed(list(grid), width)])
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.Sequential(*(Block(width, num_heads=heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @override
    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Put every token back into its place and decode.

        Args:
            tokens: Prefix tokens and visible patches, shape ``(N, prefix + visible, D)``.
            order: Indices of all patches, the visible ones first, shape ``(N, L)``.

        Returns:
            All tokens in the order of the image, shape ``(N, prefix + L, width)``.
        """
        entered = self.enter(tokens)
        prefix, visible = entered[:, : self.prefix_tokens], entered[:, self.prefix_tokens :]
        hidden = self.mask_token.to(entered.dtype).expand(len(order), order.shape[1] - visible.shape[1], -1)
        shuffled = torch.cat([visible, hidden], dim=1)
        patches = shuffled.gather(1, order.argsort(dim=1)[..., None].expand_as(shuffled))
        decoded: Tensor = self.norm(self.blocks(torch.cat([prefix, patches], dim=1) + self.positions))
        return decoded


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cut images into patches, row by row.

    Args:
        images: Shape ``(N, C, H, W)``.
        patch_size: Height and width of a patch in pixels.

    Returns:
        Shape ``(N, L, P)``; the values of a patch are ordered by row, column, channel, as published.

    Raises:
        ShapeError: If the images are no multiple of the patch size.

    Example:
        >>> patchify(torch.arange(8.0).reshape(1, 2, 2, 2), (1, 2))  # a channel holds 0..3, the other 4..7
        tensor([[[0., 4., 1., 5.],
                 [2., 6., 3., 7.]]])
    """
    if images.ndim != 4 or any(size % patch for size, patch in zip(images.shape[2:], patch_size, strict=True)):
        raise ShapeError(
            f"`images` must have shape (N, C, H, W) with H and W multiples of {patch_size}, got {tuple(images.shape)}."
        )
    (n, c, height, width), (p, q) = images.shape, patch_size
    cut = images.reshape(n, c, height // p, p, width // q, q)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, p * q * c)


def _initialize(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
