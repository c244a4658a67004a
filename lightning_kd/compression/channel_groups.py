"""Channels that can only be removed together: what one layer writes, and what others read of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_kd._checks import check_choice
from lightning_kd._projections import form_of
from lightning_kd.compression.weights import left_out
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra
from lightning_kd.taps import Inputs

Importance = Literal["magnitude", "taylor", "batch_norm"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A parameter that holds one entry along an axis for each channel of a group.

    Attributes:
        parameter: The parameter.
        axis: The axis.
        entries: Indices along it.
        channels: The group's channel of each entry; after flattening a map, several entries belong to one channel.
        reads: Whether it reads the channels; else it makes them.
    """

    parameter: nn.Parameter
    axis: int
    entries: Tensor
    channels: Tensor
    reads: bool

    def per_entry(self, values: Tensor) -> Tensor:
        """``values``, of the parameter's shape, as one row per entry."""
        return values.movedim(self.axis, 0)[self.entries].reshape(len(self.entries), -1)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """The output channels of a layer, with all that depends on them.

    Attributes:
        name: Path of the layer.
        channels: How many channels there are.
        slices: What holds entries for them.
        normalizers: Scales of the BatchNorm layers on the way.
    """

    name: str
    channels: int
    slices: tuple[Slice, ...]
    normalizers: tuple[Slice, ...]

    def scores(self, importance: Importance) -> Tensor:
        """How much each channel matters.

        Args:
            importance: ``"magnitude"``, the L2 norm of all its entries; ``"taylor"``, the change of the loss to first
                order if it vanishes, from the parameters' gradients; ``"batch_norm"``, the scales of BatchNorm.

        Returns:
            Scores, at least 0, shape ``(channels,)``.
        """
        scores = torch.zeros(self.channels)
        for part in self.normalizers if importance == "batch_norm" else self.slices:
            values = part.parameter.detach().float().cpu()
            if importance == "magnitude":
                per_entry = part.per_entry(values).square().sum(dim=1)
            elif importance == "batch_norm":
                per_entry = part.per_entry(values).abs().sum(dim=1)
            else:
                gradient = part.parameter.grad
                change = values * (0.0 if gradient is None else gradient.float().cpu())
                per_entry = part.per_entry(change).sum(dim=1).abs()
            scores.index_add_(0, part.channels, per_entry)
        return scores.sqrt() if importance == "magnitude" else scores

    def least(self, ratio: float, importance: Importance, round_to: int = 1) -> list[int]:
        """The channels to remove: of equal scores those with the lowest indices; one always stays.

        Args:
            ratio: Part of the channels to remove, from 0 to 1.
            importance: See `scores`.
            round_to: The number that stays is a multiple of this.

        Returns:
            Indices in ascending order.
        """
        stays = self.channels - int(self.channels * ratio)
        stays = min(self.channels, max(1, -(-stays // round_to)) * round_to)
        order = self.scores(importance).sort(stable=True).indices
        return sorted(order[: self.channels - stays].tolist())

    def unread(self) -> list[int]:
        """Channels that every layer reads with weights of zero: they can go without changing anything."""
        read = torch.zeros(self.channels)
        for part in self.slices:
            if part.reads:
                magnitudes = part.per_entry(part.parameter.detach().float().cpu().abs()).sum(dim=1)
                read.index_add_(0, part.channels, magnitudes)
        unread: list[int] = read.eq(0).nonzero().flatten().tolist()
        return unread if len(unread) < self.channels else unread[1:]


class ChannelGraph:
    """Which channels of a network depend on which, found by running it.

    A group is made of convolutions, linear layers and BatchNorm only, so that channels which nobody reads can be
    removed without changing any output. Left out are channels that a LayerNorm, a GroupNorm or a bare parameter takes
    part in (the residual stream of transformers and of ConvNeXt), attention heads, grouped convolutions that are not
    depthwise, and what nothing reads: the outputs.

    Args:
        network: The network, which must be free to be changed: pass a copy.
        example: One input: a tensor, a tuple of positional or a dict of keyword arguments.
        skip: Paths of layers whose outputs stay as they are; ``*`` stands for any characters.

    Raises:
        SetupError: If no channels can be removed.
        MissingExtraError: If torch-pruning is not installed.
    """

    def __init__(self, network: nn.Module, example: Any, skip: Sequence[str] = ()) -> None:
        self.network = network.eval().requires_grad_(True)
        pruning = import_extra("torch_pruning", "pruning")
        self._graph = pruning.DependencyGraph().build_dependency(
            network,
            Inputs.of(example),
            forward_fn=lambda model, inputs: model(*inputs.args, **inputs.kwargs),
            output_transform=lambda output: [tensor for tensor in tensors_of(output) if tensor.requires_grad],
            unwrapped_parameters=_bare_parameters(network),
        )
        self.groups = list(self._find(skip))
        if not self.groups:
            raise SetupError(
                f"{type(network).__name__} has no channels that can be removed between convolutions, linear layers and "
                f"BatchNorm, apart from skip={list(skip)}."
            )

    def remove(self, name: str, channels: Sequence[int]) -> None:
        """Remove output channels of a layer, with all that depends on them.

        Args:
            name: Path of the layer.
            channels: Indices.
        """
        self._dependants(self.network.get_submodule(name), channels).prune()

    def _dependants(self, layer: nn.Module, channels: Sequence[int]) -> Any:
        function = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, function, list(channels))

    def _find(self, skip: Sequence[str]) -> Iterator[ChannelGroup]:
        attention = set(_attention_layers(self.network))
        seen: set[nn.Module] = set()
        for name, layer in self.network.named_modules():
            known = isinstance(layer, nn.Linear | _ConvNd) and layer in self._graph.module2node
            if not known or layer in seen or layer in attention:
                continue
            channels = self._graph.get_out_channels(layer)
            dependants = list(self._dependants(layer, range(channels)).items)
            writers = {item.dep.layer for item in dependants if _writes(item.dep)}
            seen |= writers
            kept = any(left_out(path, skip) for path, module in self.network.named_modules() if module in writers)
            if kept or not all(_is_simple(item.dep.layer) for item in dependants):
                continue
            slices = [part for item in dependants for part in _slices(item)]
            if any(part.reads for part in slices):
                normalizers = [p for i in dependants if isinstance(i.dep.layer, _BatchNorm) for p in _slices(i)[:1]]
                yield ChannelGroup(name, channels, tuple(slices), tuple(normalizers))


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor in what a network returned, in order."""
    leaves, _ = torch.utils._pytree.tree_flatten(output)  # noqa: SLF001
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def check_importance(importance: str) -> None:
    """Raise `ValueError` unless ``importance`` is an `Importance`."""
    check_choice("importance", importance, ("magnitude", "taylor", "batch_norm"))


def _bare_parameters(network: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Parameters of modules that are no layers, with their last axis: torch-pruning must be told of them."""
    layers = (nn.Linear, _ConvNd, _BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.Embedding, nn.PReLU)
    own = (*layers, nn.MultiheadAttention, nn.modules.instancenorm._InstanceNorm, nn.LSTM)  # noqa: SLF001
    bare = [module for module in network.modules() if not isinstance(module, own)]
    return [(p, p.ndim - 1) for module in bare for p in module.parameters(recurse=False)]


def _attention_layers(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        form = form_of(module)
        if isinstance(module, nn.MultiheadAttention):
            yield from module.modules()
        elif form is not None:
            yield from (module.get_submodule(leaf) for leaf in form[0])


def _is_simple(layer: Any) -> bool:
    if isinstance(layer, nn.Parameter):
        return False
    if isinstance(layer, _ConvNd):
        return not layer.transposed and (layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels)
    return isinstance(layer, nn.Linear | _BatchNorm) or next(layer.parameters(), None) is None


def _writes(dependency: Any) -> bool:
    return "out_channels" in dependency.pruning_fn.__name__ and isinstance(dependency.layer, nn.Linear | _ConvNd)


def _slices(item: Any) -> list[Slice]:
    layer = item.dep.layer
    parameters = dict(layer.named_parameters(recurse=False))
    if not parameters:
        return []
    entries, channels = torch.tensor(item.idxs), torch.tensor(item.root_idxs)
    if "in_channels" in item.dep.pruning_fn.__name__ and isinstance(layer, nn.Linear | _ConvNd):
        return [Slice(parameters["weight"], 1, entries, channels, reads=True)]
    return [Slice(parameter, 0, entries, channels, reads=False) for parameter in parameters.values()]
