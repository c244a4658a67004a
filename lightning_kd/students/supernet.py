"""LightHuBERT's supernet: a speech encoder whose first rows, heads, units and layers are encoders themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from lightning_kd.compression.speech_encoders import (
    EncoderShape,
    attention_parameters,
    feed_forward_parameters,
    find_encoder,
    shaped_model,
)
from lightning_kd.elastic import Elastic
from lightning_kd.errors import SetupError

Score = Callable[[nn.Module], float]
_POSITIONS = "encoder.pos_conv_embed.conv"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The encoders that a supernet holds: one width each, heads and units chosen layer by layer.

    Attributes:
        widths: Widths of the transformer.
        heads: Attention heads of a layer.
        ratios: Units of a layer's feed-forward network, over the width.
        depths: Numbers of layers.
        head_width: Width of a head, the same in all.
        convolutions: Channels of the front end's convolutions, the same in all.

    Raises:
        ValueError: If a choice is empty or holds something not above 0.

    Example:
        >>> LIGHTHUBERT_BASE.count, LIGHTHUBERT_SMALL.count
        (6530347008, 951892141473)
    """

    widths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]
    depths: tuple[int, ...]
    head_width: int = 64
    convolutions: tuple[int, ...] = (512,) * 7

    def __post_init__(self) -> None:
        """Check the choices."""
        for name in ("widths", "heads", "ratios", "depths"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise ValueError(f"`{name}` must hold numbers above 0, got {values!r}.")

    @property
    def count(self) -> int:
        """How many different encoders there are."""
        per_layer = len(set(self.heads)) * len(set(self.ratios))
        return len(set(self.widths)) * sum(int(per_layer**depth) for depth in set(self.depths))

    @property
    def largest(self) -> EncoderShape:
        """The encoder that holds all others."""
        return self._uniform(max(self.widths), max(self.heads), max(self.ratios), max(self.depths))

    @property
    def smallest(self) -> EncoderShape:
        """The smallest one."""
        return self._uniform(min(self.widths), min(self.heads), min(self.ratios), min(self.depths))

    def sample(self, generator: torch.Generator) -> EncoderShape:
        """Draw width and depth, and of each layer heads and units, each uniformly.

        Args:
            generator: Decides which; on the CPU.

        Returns:
            The shape.
        """

        def draw(values: tuple[Any, ...]) -> Any:
            return values[int(torch.randint(len(values), (), generator=generator))]

        width, depth = draw(self.widths), draw(self.depths)
        layers = [(draw(self.heads), draw(self.ratios)) for _ in range(depth)]
        return self._shape(width, [heads for heads, _ in layers], [ratio for _, ratio in layers])

    def _uniform(self, width: int, heads: int, ratio: float, depth: int) -> EncoderShape:
        return self._shape(width, [heads] * depth, [ratio] * depth)

    def _shape(self, width: int, heads: list[int], ratios: list[float]) -> EncoderShape:
        return EncoderShape(
            width=width,
            head_width=self.head_width,
            heads=tuple(heads),
            intermediate=tuple(int(ratio * width) for ratio in ratios),
            convolutions=self.convolutions,
        )


LIGHTHUBERT_BASE = SearchSpace(widths=(512, 640, 768), heads=(8, 10, 12), ratios=(3.5, 4.0), depths=(12,))
LIGHTHUBERT_SMALL = SearchSpace(widths=(256, 384, 512), heads=(4, 6, 8), ratios=(3.0, 3.5, 4.0), depths=(10, 11, 12))


class SpeechSupernet(Elastic):
    """A HuBERT or wav2vec 2.0 encoder that computes as any smaller one made of the front of its weights.

    A sub-network takes the first rows and columns of each weight, the first heads, units and layers; of the positional
    convolution it takes the front of the effective kernel. It computes what `extract` makes of the same weights, and
    gradients reach the supernet's. LightHuBERT trains the largest network first, then the supernet with a random
    sub-network at each step, see `lightning_kd.recipes.lighthubert`.

    Args:
        encoder: The encoder, of the space's largest shape: made by `supernet_encoder`, or trained as one.
        space: Which sub-networks there are.

    Attributes:
        shape: What it computes as; at first the largest.

    Raises:
        SetupError: If the encoder has another shape, LayerDrop or a BatchNorm, or a width does not fit the groups of
            the positional convolution.

    Source:
        Wang et al., "LightHuBERT: Lightweight and Configurable Speech Representation Learning with Once-for-All
        Hidden-Unit BERT", arXiv:2203.15610.
    """

    def __init__(self, encoder: nn.Module, space: SearchSpace) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.space = space
        self.shape = space.largest
        self._check()
        self._template: tuple[EncoderShape, dict[str, nn.Module]] = (self.shape, {})
        self._bases: dict[int, int] = {}

    def _check(self) -> None:
        prefix, inner = find_encoder(self.encoder, "encoder")
        if prefix:
            raise SetupError(
                f"`encoder` must be the encoder alone, got {type(self.encoder).__name__}: pass its {prefix[:-1]}."
            )
        found = EncoderShape.of(inner)
        if found != self.shape:
            raise SetupError(f"`encoder` must have the largest shape of the space, {self.shape}, got {found}.")
        if self.encoder.config.layerdrop > 0:
            raise SetupError(
                f"`layerdrop` of the encoder must be 0, got {self.encoder.config.layerdrop}: sub-networks choose their "
                "layers; set encoder.config.layerdrop = 0."
            )
        if any(isinstance(module, _BatchNorm) for module in self.encoder.modules()):
            raise SetupError("`encoder` must hold no BatchNorm, whose statistics are not those of a sub-network.")
        groups = self.encoder.config.num_conv_pos_embedding_groups
        for width in self.space.widths:
            if width % groups:
                raise SetupError(f"`widths` must be multiples of the {groups} groups of positions, got {width}.")

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the sub-network, or the largest one, on the arguments of the encoder.

        Args:
            args: Positional arguments of the encoder.
            kwargs: Its keyword arguments.

        Returns:
            Its output.
        """
        if self.shape == self.space.largest:
            return self.encoder(*args, **kwargs)
        template = self._empty(self.shape).train(self.training)
        weights = self.sliced(template)
        output = functional_call(template, weights, args, kwargs)
        if self.training and torch.distributed.is_available() and torch.distributed.is_initialized():
            output.last_hidden_state = output.last_hidden_state + self._idle(len(self.shape.heads))
        return output

    @override
    def draw(self, generator: torch.Generator) -> None:
        self.shape = self.space.sample(generator)

    @override
    def restore(self) -> None:
        self.shape = self.space.largest

    def extract(self, shape: EncoderShape) -> nn.Module:
        """Make the stand-alone encoder of a sub-network, with copies of its weights.

        Args:
            shape: Which, of the space.

        Returns:
            A model of the encoder's class, in the supernet's mode. `lightning_kd.compression.save_shaped` stores it.
        """
        encoder: nn.Module = shaped_model(type(self.encoder), self.encoder.config, shape)
        encoder.to(next(self.encoder.parameters()))
        encoder.load_state_dict({name: value.detach() for name, value in self.sliced(encoder).items()})
        return encoder.train(self.training)

    def sliced(self, like: nn.Module) -> dict[str, Tensor]:
        """The front of each weight in the sizes of a sub-network, with gradient to the supernet's.

        Args:
            like: A module of the sub-network's shape.

        Returns:
            Weights by name.
        """
        own = {**dict(self.encoder.named_parameters()), **dict(self.encoder.named_buffers())}
        sizes = {**dict(like.named_parameters()), **dict(like.named_buffers())}
        weights = {name: _front(own[name], wanted.shape) for name, wanted in sizes.items()}
        direction = f"{_POSITIONS}.parametrizations.weight.original1"
        kernel = _front(self.encoder.get_submodule(_POSITIONS).weight, sizes[direction].shape)
        # Weight normalisation with the kernel's own norm gives back the kernel.
        weights[direction] = kernel
        weights[f"{_POSITIONS}.parametrizations.weight.original0"] = torch.norm_except_dim(kernel, 2, 2)
        return weights

    def parameters_of(self, shape: EncoderShape) -> int:
        """Number of parameters of a sub-network.

        Args:
            shape: Which, of the space.

        Returns:
            How many.
        """
        layers = sum(
            attention_parameters(heads, width=shape.width, head_width=shape.head_width)
            + feed_forward_parameters(units, width=shape.width)
            + 4 * shape.width  # two norms
            for heads, units in zip(shape.heads, shape.intermediate, strict=True)
        )
        return self._base(shape.width) + int(layers)

    def _base(self, width: int) -> int:
        """Parameters of everything but the layers."""
        if width not in self._bases:
            bare = EncoderShape(
                width=width,
                head_width=self.space.head_width,
                heads=(),
                intermediate=(),
                convolutions=self.space.convolutions,
            )
            with torch.device("meta"):
                model = shaped_model(type(self.encoder), self.encoder.config, bare)
            self._bases[width] = sum(parameter.numel() for parameter in model.parameters())
        return self._bases[width]

    def _empty(self, shape: EncoderShape) -> nn.Module:
        """A module of a shape without weights; the last one is kept, out of sight of ``modules()``."""
        if self._template[0] != shape or not self._template[1]:
            with torch.device("meta"):
                made = shaped_model(type(self.encoder), self.encoder.config, shape)
            self._template = (shape, {"encoder": made})
        return self._template[1]["encoder"]

    def _idle(self, depth: int) -> Tensor:
        """A zero that depends on the layers that take no part: DDP waits for a gradient of each."""
        unused = [p for layer in self.encoder.encoder.layers[depth:] for p in layer.parameters()]
        return torch.stack([p.flatten()[:0].sum() for p in unused]).sum() if unused else torch.zeros(())


def supernet_encoder(model_class: type[nn.Module], config: Any, space: SearchSpace) -> nn.Module:
    """Make a new encoder of the largest shape of a space.

    Args:
        model_class: ``HubertModel`` or ``Wav2Vec2Model``.
        config: A configuration that decides everything but the shape; LayerDrop is switched off in a copy.
        space: The space.

    Returns:
        The encoder.
    """
    encoder: Any = shaped_model(model_class, config, space.largest)
    encoder.config.layerdrop = 0.0
    return encoder  # type: ignore[no-any-return]


def find_subnet(
    supernet: SpeechSupernet, *, parameters: int, samples: int = 1000, seed: int = 0, score: Score | None = None
) -> EncoderShape:
    """Find the best sub-network within a budget of parameters, among random ones and the smallest.

    Args:
        supernet: A trained supernet.
        parameters: Most parameters that the encoder may have.
        samples: How many shapes are drawn; those within the budget are compared.
        seed: Decides which are drawn.
        score: Called with the stand-alone encoder of each, returns how good it is; ``None`` takes the one with the
            most parameters.

    Returns:
        The shape, for `SpeechSupernet.extract`.

    Raises:
        SetupError: If even the smallest sub-network is larger.

    Source:
        LightHuBERT (arXiv:2203.15610) searches by random sampling, too; the default score is ours.
    """
    space, generator = supernet.space, torch.Generator().manual_seed(seed)
    shapes = dict.fromkeys([space.smallest, *(space.sample(generator) for _ in range(samples))])
    fitting = [shape for shape in shapes if supernet.parameters_of(shape) <= parameters]
    if not fitting:
        least = supernet.parameters_of(space.smallest)
        raise SetupError(f"`parameters` must be at least those of the smallest sub-network, {least}, got {parameters}.")
    if score is None:
        return max(fitting, key=supernet.parameters_of)
    return max(fitting, key=lambda shape: float(score(supernet.extract(shape))))


def _front(weight: Tensor, shape: torch.Size) -> Tensor:
    return weight[tuple(slice(size) for size in shape)]
