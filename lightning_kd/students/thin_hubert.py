"""Thin and deep HuBERTs: FitHuBERT with half the frames, ARMHuBERT with attention maps that serve two layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.hubert.modeling_hubert import HubertEncoder, HubertEncoderLayer
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import SetupError


def fithubert_config() -> HubertConfig:
    """Sizes of FitHuBERT: 12 layers of width 480, narrow convolutions, and half the frames in front of the first layer.

    Returns:
        Settings for `ThinHubert`; change them as you like before you build it.

    Source:
        Lee et al., "FitHuBERT", arXiv:2207.00555.

    Example:
        >>> fithubert_config().time_reduction
        2
    """
    return HubertConfig(
        hidden_size=480,
        intermediate_size=480,
        num_attention_heads=12,
        num_hidden_layers=12,
        conv_dim=(128, 256, 256, 256, 256, 256, 512, 512, 512),
        conv_kernel=(10, 1, 3, 3, 3, 3, 1, 2, 2),
        conv_stride=(5, 1, 2, 2, 2, 2, 1, 2, 2),
        layerdrop=0.0,
        apply_spec_augment=False,
        time_reduction=2,
    )


def armhubert_config() -> HubertConfig:
    """Sizes of ARMHuBERT: 12 layers of width 480, of which every second one reuses the map of the one before it.

    The width and that of the feed-forward layers, 1024, are ours: with them there are 26.44 million parameters, and
    26.45 are published.

    Returns:
        Settings for `ThinHubert`; change them as you like before you build it.

    Source:
        Jang et al., "Recycle-and-Distill" (ARMHuBERT), arXiv:2305.11685.

    Example:
        >>> armhubert_config().attention_reuse[:4]
        [False, True, False, True]
    """
    return HubertConfig(
        hidden_size=480,
        intermediate_size=1024,
        num_attention_heads=12,
        num_hidden_layers=12,
        layerdrop=0.0,
        attention_reuse=[False, True] * 6,
    )


class ThinHubert(HubertModel):  # type: ignore[misc]
    """A HuBERT with fewer frames inside, and layers that reuse the attention map of the layer before them.

    ``config.time_reduction`` frames become one in front of the first layer, by a convolution; what is left over at the
    end is dropped. Where ``config.attention_reuse`` is True, a layer has no queries and keys: it applies the map of the
    layer before it to values of its own. Everything else is HuBERT's: checkpoints, masks, SpecAugment.

    Args:
        config: Such as `fithubert_config` or `armhubert_config`; post-norm, without LayerDrop.

    Raises:
        SetupError: If ``config`` is of a pre-norm model, has LayerDrop on, or ``attention_reuse`` does not fit.
        ValueError: If ``time_reduction`` is not above 0.

    Example:
        >>> config = fithubert_config()
        >>> config.update({"hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 2})
        >>> import torch
        >>> ThinHubert(config).eval()(torch.zeros(1, 8000)).last_hidden_state.shape  # of 24 frames
        torch.Size([1, 12, 48])
    """

    def __init__(self, config: HubertConfig) -> None:
        reuse = _reuse_of(config)
        super().__init__(config)
        self.time_reduction = getattr(config, "time_reduction", 1)
        check_positive("time_reduction", self.time_reduction)
        self.encoder = _ThinEncoder(config, self.time_reduction, reuse)
        self.post_init()

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of the layers for so many samples.

        Args:
            lengths: Samples, shape ``(N,)``.

        Returns:
            Frames, shape ``(N,)``.
        """
        frames: Tensor = self._get_feat_extract_output_lengths(lengths)
        return frames // self.time_reduction


class _ThinEncoder(HubertEncoder):  # type: ignore[misc]
    def __init__(self, config: HubertConfig, time_reduction: int, reuse: list[bool]) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.time_reduction = (
            nn.Conv1d(width, width, time_reduction, stride=time_reduction) if time_reduction > 1 else None
        )
        if any(reuse):
            self.layers = nn.ModuleList(_MapLayer(config, reuses=reuses) for reuses in reuse)

    @override
    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        if attention_mask is not None:
            hidden_states = hidden_states.masked_fill(~attention_mask[..., None], 0.0)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        hidden_states = self.dropout(self.layer_norm(hidden_states))
        if self.time_reduction is not None:
            hidden_states = self.time_reduction(hidden_states.transpose(1, 2)).transpose(1, 2)
            factor = self.time_reduction.stride[0]
            # A frame is valid if the last of those that it is made of is.
            attention_mask = None if attention_mask is None else attention_mask[:, factor - 1 :: factor]
        if isinstance(self.layers[0], _MapLayer):
            return BaseModelOutput(last_hidden_state=self._with_maps(hidden_states, attention_mask))
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=mask)
        return BaseModelOutput(last_hidden_state=hidden_states)

    def _with_maps(self, hidden_states: Tensor, valid: Tensor | None) -> Tensor:
        attention_map = None
        for layer in self.layers:
            hidden_states, attention_map = layer(hidden_states, valid, attention_map)
        return hidden_states


class _MapLayer(HubertEncoderLayer):  # type: ignore[misc]
    """A layer that hands its attention map on."""

    def __init__(self, config: HubertConfig, *, reuses: bool) -> None:
        super().__init__(config)
        self.attention = _ReusingAttention(config) if reuses else _MapAttention(config)

    @override
    def forward(
        self, hidden_states: Tensor, valid: Tensor | None = None, attention_map: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.attention, _MapAttention):
            attention_map = self.attention.map_of(hidden_states, valid)
        attended = self.attention(hidden_states, attention_map)
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.feed_forward(hidden_states)), attention_map


class _ReusingAttention(nn.Module):
    """Attention without queries and keys: the map comes from elsewhere."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    @override
    def forward(self, hidden_states: Tensor, attention_map: Tensor) -> Tensor:
        mixed = attention_map @ self._per_head(self.v_proj(hidden_states))
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended

    def _per_head(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.reshape(*hidden_states.shape[:2], self.heads, -1).transpose(1, 2)


class _MapAttention(_ReusingAttention):
    """Attention that makes a map; transformers' fast implementations have none to give."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def map_of(self, hidden_states: Tensor, valid: Tensor | None) -> Tensor:
        """The map, shape ``(N, heads, T, T)``; frames that are not ``valid`` are not attended to."""
        query, key = (self._per_head(project(hidden_states)) for project in (self.q_proj, self.k_proj))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)
        return F.dropout(scores.softmax(dim=-1), self.dropout, training=self.training)


def _reuse_of(config: HubertConfig) -> list[bool]:
    """Which layers reuse a map; checked."""
    if config.do_stable_layer_norm or config.layerdrop > 0:
        raise SetupError(
            "`config` must be of a post-norm model without LayerDrop, got "
            f"do_stable_layer_norm={config.do_stable_layer_norm}, layerdrop={config.layerdrop}."
        )
    reuse = getattr(config, "attention_reuse", None) or [False] * config.num_hidden_layers
    if len(reuse) != config.num_hidden_layers or reuse[0]:
        raise SetupError(
            f"`config.attention_reuse` must say for each of the {config.num_hidden_layers} layers whether it reuses a "
            f"map, and the first has none to reuse, got {reuse}."
        )
    return [bool(reuses) for reuses in reuse]
