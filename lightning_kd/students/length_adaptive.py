"""Length-adaptive encoders: layers that drop frames on the way and put them back at the end."""

import copy
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.compression.speech_encoders import find_encoder
from lightning_kd.elastic import Elastic
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra

Model = TypeVar("Model", bound=nn.Module)


class LengthAdaptiveEncoder(Elastic):
    """The transformer of a speech encoder, whose layers see fewer and fewer frames.

    After each layer only the frames that differ most from the one before them go on; the first always does. At the
    end every frame is put back in its place, with the value it had when it was dropped. Lengths are shares of each
    utterance's own frames, so that padding changes nothing. In training, `lightning_kd.callbacks.ElasticSampling` draws
    lengths at each step: one network then serves every length.

    With ``fixed_frames`` the lengths are numbers that an export can hold, for inputs of that many frames without
    padding.

    Args:
        transformer: ``model.encoder`` of a HuBERT or wav2vec 2.0 model; its modules are taken over.
        drop: Largest share of the frames that a layer drops when lengths are drawn, in [0, 1).

    Attributes:
        keep: Share of the frames that each layer passes on, not increasing; at first all.
        fixed_frames: Frames of every input; ``None`` for any.

    Source:
        Kim and Cho, "Length-Adaptive Transformer: Train Once with Length Drop, Use Anytime with Search",
        arXiv:2010.07003, from memory. It ranks tokens by the attention that they receive; ranking frames by their
        difference from the one before is ours.
    """

    def __init__(self, transformer: nn.Module, *, drop: float = 0.2) -> None:
        super().__init__()
        if isinstance(drop, bool) or not 0 <= drop < 1:
            raise ValueError(f"`drop` must be in [0, 1), got {drop!r}.")
        inner: Any = transformer
        self.config = inner.config
        self.drop = drop
        self.pos_conv_embed = inner.pos_conv_embed
        self.layer_norm = inner.layer_norm
        self.dropout = inner.dropout
        self.layers = inner.layers
        self.keep: tuple[float, ...] = (1.0,) * len(inner.layers)
        self.fixed_frames: int | None = None

    @override
    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the layers on fewer and fewer frames.

        Args:
            hidden_states: Frames, shape ``(N, T, D)``.
            attention_mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.
            kwargs: Passed on to the layers.

        Returns:
            A ``BaseModelOutput`` with all frames.

        Raises:
            SetupError: If ``fixed_frames`` is set and the input has another length, or padding.
        """
        if self.fixed_frames is not None and (
            hidden_states.shape[1] != self.fixed_frames or attention_mask is not None
        ):
            raise SetupError(
                f"`fixed_frames` is {self.fixed_frames}: inputs must have that many frames and no attention mask, got "
                f"{hidden_states.shape[1]} frames."
            )
        before_layers = not self.config.do_stable_layer_norm
        if attention_mask is not None:
            hidden_states = hidden_states.masked_fill(~attention_mask[..., None].bool(), 0.0)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        hidden_states = self.dropout(self.layer_norm(hidden_states) if before_layers else hidden_states)
        hidden_states = self._run(hidden_states, attention_mask, kwargs)
        output = hidden_states if before_layers else self.layer_norm(hidden_states)
        return import_extra("transformers.modeling_outputs", "speech").BaseModelOutput(last_hidden_state=output)

    @override
    def draw(self, generator: torch.Generator) -> None:
        shares = torch.rand(len(self.layers), generator=generator) * self.drop
        self.keep = tuple((1 - shares).cumprod(0).tolist())

    @override
    def restore(self) -> None:
        self.keep = (1.0,) * len(self.layers)

    def _run(self, states: Tensor, valid: Tensor | None, kwargs: dict[str, Any]) -> Tensor:
        make_mask = import_extra("transformers.masking_utils", "speech").create_bidirectional_mask
        everyone, before = states, 1.0
        places = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        lengths = None if valid is None else valid.sum(dim=1)
        frames = states.shape[1]
        for layer, share in zip(self.layers, self.keep, strict=True):
            mask = make_mask(config=self.config, inputs_embeds=states, attention_mask=valid)
            states = layer(states, attention_mask=mask, **kwargs)
            if share < before:
                everyone, before = _put_back(everyone, states, places, valid), share
                counts = math.ceil(share * frames) if lengths is None else (lengths.double() * share).ceil().long()
                chosen, valid = most_different(states, valid, counts)
                places = places.gather(1, chosen)
                states = states.gather(1, chosen[..., None].expand(-1, -1, states.shape[2]))
        return _put_back(everyone, states, places, valid)


def with_length_adaptation(model: Model, *, drop: float = 0.2) -> Model:
    """Make a copy of a speech model whose layers can drop frames, see `LengthAdaptiveEncoder`.

    Args:
        model: A model of transformers with a HuBERT or wav2vec 2.0 encoder; it is not changed.
        drop: Largest share of the frames that a layer drops when lengths are drawn, in [0, 1).

    Returns:
        The copy, in training mode with everything to train, also if the model is a frozen teacher. It computes the same
        until it is told to drop frames.

    Raises:
        SetupError: If the model holds no such encoder, or has LayerDrop.
        ValueError: If ``drop`` is out of range.
    """
    changed = copy.deepcopy(model)
    _, encoder = find_encoder(changed, "model")
    if encoder.config.layerdrop > 0:
        raise SetupError(
            f"`layerdrop` of the model must be 0, got {encoder.config.layerdrop}: lengths belong to layers; set "
            "model.config.layerdrop = 0."
        )
    encoder.encoder = LengthAdaptiveEncoder(encoder.encoder, drop=drop)
    return changed.train().requires_grad_(True)


def set_lengths(model: nn.Module, keep: Sequence[float], *, fixed_frames: int | None = None) -> None:
    """Choose which share of the frames each layer passes on.

    Args:
        model: A model made by `with_length_adaptation`; it is changed.
        keep: Of each layer, above 0, at most 1 and not increasing.
        fixed_frames: Frames of every input, which makes the lengths constants of an export; ``None`` for any.

    Raises:
        SetupError: If the model is not length-adaptive.
        ValueError: If ``keep`` does not fit.
    """
    found = [module for module in model.modules() if isinstance(module, LengthAdaptiveEncoder)]
    if len(found) != 1:
        raise SetupError(f"`model` must be made by with_length_adaptation(), got {type(model).__name__}.")
    shares = tuple(float(share) for share in keep)
    falling = all(0 < after <= before <= 1 for before, after in zip((1.0, *shares), shares, strict=False))
    if len(shares) != len(found[0].layers) or not falling:
        raise ValueError(
            f"`keep` must hold {len(found[0].layers)} shares above 0, at most 1 and not increasing, got {keep!r}."
        )
    found[0].keep, found[0].fixed_frames = shares, fixed_frames


def most_different(states: Tensor, valid: Tensor | None, counts: Tensor | int) -> tuple[Tensor, Tensor | None]:
    """Choose the frames that differ most from the one before them, by the cosine; the first one always.

    Args:
        states: Shape ``(N, T, D)``.
        valid: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all, and then ``counts`` is a number.
        counts: How many frames to choose, of each utterance.

    Returns:
        Their indices in temporal order, shape ``(N, K)``, and which of these are valid; ``None`` for all.

    Example:
        >>> states = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        >>> most_different(states, None, 2)
        (tensor([[0, 2]]), None)
    """
    directions = F.normalize(states, dim=-1)
    change = (directions[:, 1:] - directions[:, :-1]).square().sum(dim=-1)  # twice one minus the cosine
    change = F.pad(change, (1, 0), value=5.0)  # more than any pair gives
    if valid is None or isinstance(counts, int):
        chosen = change.topk(int(counts), dim=1).indices
        # Not sort: mobile runtimes have kernels for the largest values only.
        return (-chosen.float()).topk(int(counts), dim=1).values.neg().long(), None
    order = change.masked_fill(~valid, -1.0).argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    remaining = torch.arange(order.shape[1], device=order.device) < counts[:, None]
    chosen = order.masked_fill(~remaining, states.shape[1]).sort(dim=1).values
    return chosen.clamp(max=states.shape[1] - 1), remaining


def _put_back(everyone: Tensor, states: Tensor, places: Tensor, valid: Tensor | None) -> Tensor:
    """All frames, with the new values of those that are still there."""
    if valid is None:
        return everyone.scatter(1, places[..., None].expand_as(states), states.to(everyone.dtype))
    rows = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
    return everyone.index_put((rows[valid], places[valid]), states[valid].to(everyone.dtype))
