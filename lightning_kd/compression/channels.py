"""Physical removal of channels: smaller convolutions and linear layers that any runtime makes use of."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_positive
from lightning_kd._modes import looking_only
from lightning_kd.compression.channel_groups import ChannelGraph, Importance, check_importance, tensors_of
from lightning_kd.compression.masks import named_parameters
from lightning_kd.compression.size import NetworkSize, network_size
from lightning_kd.errors import SetupError
from lightning_kd.taps import Inputs

RELATIVE_ERROR = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport:
    """What removing channels changed.

    Attributes:
        before: Cost of the network as it was, for the example's batch size.
        after: Cost of the smaller one.
        removed: Indices of the removed output channels by the path of the layer, in the order of removal: with it
            `replay_pruning` makes the smaller network again before its weights are loaded. It can be stored as JSON.
    """

    before: NetworkSize
    after: NetworkSize
    removed: Mapping[str, tuple[int, ...]]


def prune_channels(
    network: nn.Module,
    example: Any,
    *,
    ratio: float,
    importance: Importance = "magnitude",
    loss: Callable[[nn.Module], Tensor] | None = None,
    skip: Sequence[str] = (),
    round_to: int = 1,
) -> tuple[nn.Module, PruningReport]:
    """Remove the least important channels of every group of layers that share them.

    The result has the modules and names of the network, with smaller layers; distil it before use. Do so before a
    LightningModule gets it, as optimisers and adapters are made for its shapes. What can be removed: see
    `lightning_kd.compression.channel_groups.ChannelGraph`. In transformers that is the inside of the MLPs.

    Args:
        network: A trained network; it is not changed.
        example: One input: a tensor, a tuple of positional or a dict of keyword arguments.
        ratio: Part of each group's channels to remove, above 0 and below 1; rounded down to whole channels.
        importance: ``"magnitude"``, ``"taylor"`` or ``"batch_norm"``. With the last, groups without BatchNorm stay.
        loss: For ``"taylor"``: the loss of a network on some batches, as a scalar.
        skip: Paths of layers whose output channels stay, with everything below; ``*`` stands for any characters.
        round_to: Channels that stay are a multiple of this, where there are that many.

    Returns:
        The smaller network, in the mode of the given one, and what changed.

    Raises:
        ValueError: If ``ratio``, ``importance`` or ``round_to`` is out of range.
        SetupError: If nothing can be removed, ``loss`` is missing, or the smaller network does not run.
        MissingExtraError: If torch-pruning is not installed.

    Source:
        Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900, whose library finds what depends on
        what; ``"taylor"`` after Molchanov et al., arXiv:1906.10771; ``"batch_norm"`` after Liu et al.,
        arXiv:1708.06519.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> smaller, report = prune_channels(network, torch.zeros(1, 3, 8, 8), ratio=0.5)
        >>> smaller[0].weight.shape, smaller[2].weight.shape, report.before.parameters, report.after.parameters
        (torch.Size([4, 3, 3, 3]), torch.Size([4, 4, 3, 3]), 516, 260)
    """
    if isinstance(ratio, bool) or not 0 < ratio < 1:
        raise ValueError(f"`ratio` must be above 0 and below 1, got {ratio!r}.")
    check_positive("round_to", round_to)
    check_importance(importance)
    if (loss is None) == (importance == "taylor"):
        raise SetupError(f"`loss` must be given if importance='taylor' and only then, got importance={importance!r}.")
    graph = ChannelGraph(copy.deepcopy(network), example, skip)
    if loss is not None:
        torch.autograd.backward(loss(graph.network))
    groups = [g for g in graph.groups if importance != "batch_norm" or g.normalizers]
    removed = {group.name: tuple(group.least(ratio, importance, round_to)) for group in groups}
    graph.network.zero_grad(set_to_none=True)
    return _smaller(network, graph, example, removed)


def remove_zero_channels(
    network: nn.Module, example: Any, *, skip: Sequence[str] = ()
) -> tuple[nn.Module, PruningReport]:
    """Remove the channels that are read with weights of zero only, as `GradualChannelPruning` leaves them.

    Args:
        network: The network; it is not changed.
        example: One input: a tensor, a tuple of positional or a dict of keyword arguments.
        skip: Paths of layers whose output channels stay.

    Returns:
        The smaller network, which computes the same, and what changed.

    Raises:
        SetupError: If there is no such channel, or the smaller network computes something else.
        MissingExtraError: If torch-pruning is not installed.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> network[2].weight.data[:, :5] = 0
        >>> smaller, _ = remove_zero_channels(network, torch.zeros(1, 4))
        >>> smaller[0].weight.shape
        torch.Size([3, 4])
    """
    graph = ChannelGraph(copy.deepcopy(network), example, skip)
    removed = {group.name: tuple(group.unread()) for group in graph.groups}
    smaller, report = _smaller(network, graph, example, removed)
    pairs = zip(_outputs(network, example), _outputs(smaller, example), strict=True)
    error = max(float((actual - expected).norm() / expected.norm().clamp(min=1e-12)) for expected, actual in pairs)
    if not error <= RELATIVE_ERROR:
        raise SetupError(
            f"removing channels that nothing reads changed the output by {error:.1e} of its norm, above "
            f"{RELATIVE_ERROR}: skip= the layers whose channels are used in another way."
        )
    return smaller, report


def replay_pruning(network: nn.Module, example: Any, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """Make a network as small as an earlier pruning made another of the same architecture, to load its weights.

    Args:
        network: A network as it was before; it is not changed.
        example: One input, as then.
        removed: `PruningReport.removed`.

    Returns:
        The smaller network.

    Raises:
        SetupError: If the network has no such layer, or the smaller one does not run.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> smaller, report = prune_channels(network, torch.zeros(1, 4), ratio=0.5)
        >>> again = replay_pruning(network, torch.zeros(1, 4), report.removed)
        >>> again.load_state_dict(smaller.state_dict())
        <All keys matched successfully>
    """
    graph = ChannelGraph(copy.deepcopy(network), example)
    unknown = sorted(removed.keys() - {group.name for group in graph.groups})
    if unknown:
        raise SetupError(f"`removed` names {unknown}, whose channels cannot be removed from {type(network).__name__}.")
    return _smaller(network, graph, example, {name: tuple(channels) for name, channels in removed.items()})[0]


def channel_masks(
    network: nn.Module, example: Any, *, ratio: float, importance: Importance, skip: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Masks that zero what `prune_channels` would remove.

    Args:
        network: The network; it is not changed.
        example: One input.
        ratio: Part of each group's channels, from 0 to 1.
        importance: ``"magnitude"`` or ``"batch_norm"``.
        skip: Paths of layers whose output channels stay.

    Returns:
        True where a parameter's element may differ from zero, by the parameter's name.

    Raises:
        SetupError: If nothing can be removed.
        MissingExtraError: If torch-pruning is not installed.
    """
    graph = ChannelGraph(copy.deepcopy(network), example, skip)
    names = {id(parameter): name for name, parameter in named_parameters(graph.network).items()}
    masks: dict[str, Tensor] = {}
    for group in graph.groups:
        zero = torch.zeros(group.channels, dtype=torch.bool)
        zero[group.least(ratio, importance)] = True
        for part in group.slices if importance != "batch_norm" or group.normalizers else ():
            ones = torch.ones(part.parameter.shape, dtype=torch.bool)
            mask = masks.setdefault(names[id(part.parameter)], ones)
            mask.movedim(part.axis, 0)[part.entries[zero[part.channels]]] = False
    return masks


def _smaller(
    network: nn.Module, graph: ChannelGraph, example: Any, removed: Mapping[str, tuple[int, ...]]
) -> tuple[nn.Module, PruningReport]:
    removed = {name: channels for name, channels in removed.items() if channels}
    if not removed:
        raise SetupError("no channel would be removed: raise `ratio`, lower `round_to`, or check `skip`.")
    for name, channels in removed.items():
        graph.remove(name, channels)
    smaller = graph.network
    for before, after in zip(network.modules(), smaller.modules(), strict=True):
        after.training = before.training
    frozen = dict(network.named_parameters())
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(frozen[name].requires_grad)
    try:
        shapes = [tuple(output.shape) for output in _outputs(smaller, example)]
    except RuntimeError as error:
        raise SetupError(
            f"the network does not run with fewer channels ({error}): skip= the layers concerned."
        ) from error
    expected = [tuple(output.shape) for output in _outputs(network, example)]
    if shapes != expected:
        raise SetupError(
            f"removing channels changed the shapes of outputs from {expected} to {shapes}: skip= the layers that make "
            "them."
        )
    sizes = network_size(network, example), network_size(smaller, example)
    return smaller, PruningReport(before=sizes[0], after=sizes[1], removed=removed)


def _outputs(network: nn.Module, example: Any) -> list[Tensor]:
    inputs = Inputs.of(example)
    with looking_only(network):
        return tensors_of(network(*inputs.args, **inputs.kwargs))
