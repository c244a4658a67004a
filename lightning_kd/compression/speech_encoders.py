"""Speech encoders of transformers whose layers have widths of their own: described, made, saved and loaded."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import SetupError
from lightning_kd.speech.encoders import speech_encoder

Model = TypeVar("Model", bound=nn.Module)
KINDS = ("HubertModel", "Wav2Vec2Model")
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """Widths of a HuBERT or wav2vec 2.0 encoder, layer by layer, which a configuration of transformers cannot express.

    Attributes:
        width: Width of the transformer.
        head_width: Width of an attention head, the same everywhere.
        heads: Attention heads of each layer; 0 leaves the output's bias only.
        intermediate: Units of each layer's feed-forward network; 0 likewise.
        convolutions: Channels of each convolution of the front end.
        scaled: Whether the front end's last channels are multiplied by factors, as gates leave them.

    Example:
        >>> shape = EncoderShape(width=8, head_width=4, heads=(2, 1), intermediate=(16, 5), convolutions=(8,))
        >>> EncoderShape.from_dict(shape.to_dict()) == shape
        True
    """

    width: int
    head_width: int
    heads: tuple[int, ...]
    intermediate: tuple[int, ...]
    convolutions: tuple[int, ...]
    scaled: bool = False

    @classmethod
    def of(cls, encoder: nn.Module) -> Self:
        """Read the shape of an encoder, see `find_encoder`."""
        inner: Any = encoder
        layers, convolutions = inner.encoder.layers, inner.feature_extractor.conv_layers
        attentions = [layer.attention for layer in layers if not isinstance(layer.attention, ConstantAttention)]
        config = inner.config
        head_width = attentions[0].head_dim if attentions else config.hidden_size // config.num_attention_heads
        return cls(
            width=config.hidden_size,
            head_width=head_width,
            heads=tuple(_heads(layer.attention, head_width) for layer in layers),
            intermediate=tuple(_units(layer.feed_forward) for layer in layers),
            convolutions=tuple(layer.conv.out_channels for layer in convolutions),
            scaled=isinstance(convolutions[-1].activation, nn.Sequential),
        )

    def to_dict(self) -> dict[str, Any]:
        """The shape in values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave, also by way of JSON."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)


def find_encoder(model: nn.Module, name: str = "student") -> tuple[str, Any]:
    """Find the only HuBERT or wav2vec 2.0 encoder in a network, be it the network itself.

    Args:
        model: Where to look: ``HubertModel``, ``HubertForCTC``, ``Wav2Vec2Model`` and so on, or a module around one.
        name: What ``model`` is called in the message.

    Returns:
        What precedes the paths of its submodules, ``""`` or ``"path."``, and the encoder.

    Raises:
        SetupError: If there is none, more than one, or one of another kind.
    """
    found = speech_encoder(model, name)
    if not any(base.__name__ in KINDS for base in type(found.module).__mro__):
        raise SetupError(
            f"the {name} must hold a {' or '.join(KINDS)} of transformers, whose attention works with any number of "
            f"heads, got {type(found.module).__name__}."
        )
    return (f"{found.path}." if found.path else ""), found.module


def shaped_model(model_class: type[Model], config: Any, shape: EncoderShape) -> Model:
    """Make a model of transformers with new weights whose encoder has a given shape.

    Args:
        model_class: Class of the model, such as ``HubertModel`` or ``HubertForCTC``.
        config: Its configuration, which is copied; widths and depth are those of ``shape``.
        shape: Shape of the encoder.

    Returns:
        The model. Its configuration holds the shape as ``encoder_shape``.
    """
    config = copy.deepcopy(config)
    fitting = shape.width % shape.head_width == 0
    config.hidden_size = shape.width
    config.num_attention_heads = shape.width // shape.head_width if fitting else 1
    config.num_hidden_layers = len(shape.heads)
    config.intermediate_size = max((1, *shape.intermediate))
    config.conv_dim = list(shape.convolutions)
    config.encoder_shape = shape.to_dict()
    model = model_class(config)
    _, encoder = find_encoder(model, "model")
    for layer, heads, units in zip(encoder.encoder.layers, shape.heads, shape.intermediate, strict=True):
        _set_heads(layer, shape.width, heads, shape.head_width)
        _set_units(layer, shape.width, units)
    if shape.scaled:
        last = encoder.feature_extractor.conv_layers[-1]
        last.activation = nn.Sequential(last.activation, ChannelScale(shape.convolutions[-1]))
    return model


def save_shaped(model: nn.Module, folder: Path) -> None:
    """Save a model with an encoder of any shape: ``config.json``, which holds the shape, and ``model.safetensors``.

    ``from_pretrained`` of transformers cannot read it, and says that sizes do not match; `load_shaped` can.

    Args:
        model: A model of transformers.
        folder: Where to; made if it does not exist.

    Raises:
        SetupError: If the model holds no encoder whose shape is known.
    """
    saved: Any = model
    config = copy.deepcopy(saved.config)
    config.encoder_shape = EncoderShape.of(find_encoder(model, "model")[1]).to_dict()
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_shaped(model_class: type[Model], folder: Path) -> Model:
    """Load what `save_shaped` wrote.

    Args:
        model_class: Class of the model, such as ``HubertModel``.
        folder: Where it is.

    Returns:
        The model, in evaluation mode as transformers' own loading leaves it.

    Raises:
        SetupError: If the configuration there holds no shape.
    """
    loaded: Any = model_class
    config = loaded.config_class.from_pretrained(folder)
    values = getattr(config, "encoder_shape", None)
    if values is None:
        raise SetupError(f"`folder` must hold what save_shaped() wrote, got {folder}: use from_pretrained() for it.")
    model = shaped_model(model_class, config, EncoderShape.from_dict(values))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval()


def attention_parameters(heads: Tensor | float, *, width: int, head_width: int) -> Tensor | float:
    """Parameters of an attention module, linear in its heads, whose number may be an expected one.

    Args:
        heads: Number of heads.
        width: Width of the transformer.
        head_width: Width of a head.

    Returns:
        How many.

    Example:
        >>> attention_parameters(12, width=768, head_width=64), attention_parameters(6.5, width=768, head_width=64)
        (2362368, 1279968.0)
    """
    return 3 * (width + 1) * heads * head_width + (heads * head_width + 1) * width


def feed_forward_parameters(units: Tensor | float, *, width: int) -> Tensor | float:
    """Parameters of a feed-forward network, linear in its units, whose number may be an expected one.

    Args:
        units: Number of intermediate units.
        width: Width of the transformer.

    Returns:
        How many.

    Example:
        >>> feed_forward_parameters(3072, width=768)
        4722432
    """
    return (width + 1) * units + (units + 1) * width


class Constant(nn.Module):
    """A feed-forward network all of whose units were removed: the bias of its output is left.

    Args:
        width: Width of the transformer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    @override
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.bias.to(hidden_states.dtype).expand_as(hidden_states)


class ConstantAttention(Constant):
    """An attention module all of whose heads were removed."""

    @override
    def forward(self, hidden_states: Tensor, **_: Any) -> Any:
        return super().forward(hidden_states), None


class ChannelScale(nn.Module):
    """Factors of the channels of a sequence, ``(N, C, T)``.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    @override
    def forward(self, features: Tensor) -> Tensor:
        return features * self.scale[:, None].to(features.dtype)


def _heads(attention: Any, head_width: int) -> int:
    return 0 if isinstance(attention, ConstantAttention) else int(attention.q_proj.out_features) // head_width


def _units(feed_forward: Any) -> int:
    return 0 if isinstance(feed_forward, Constant) else int(feed_forward.intermediate_dense.out_features)


def _set_heads(layer: Any, width: int, heads: int, head_width: int) -> None:
    if heads == 0:
        layer.attention = ConstantAttention(width)
        return
    attention = layer.attention
    attention.num_heads, attention.head_dim, attention.scaling = heads, head_width, head_width**-0.5
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(width, heads * head_width))
    attention.out_proj = nn.Linear(heads * head_width, width)


def _set_units(layer: Any, width: int, units: int) -> None:
    if units == 0:
        layer.feed_forward = Constant(width)
        return
    layer.feed_forward.intermediate_dense = nn.Linear(width, units)
    layer.feed_forward.output_dense = nn.Linear(units, width)
