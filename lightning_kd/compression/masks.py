"""Weights that are kept at zero while others learn."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from exporters.quantization.sparsity import GROUP, KEPT, is_two_four
from lightning_kd.compression.weights import LayerWeight, layer_weights
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.taps import module_paths


def two_four_mask(weight: Tensor) -> Tensor:
    """Which weights 2:4 pruning keeps: the two largest magnitudes of every four along the input dimension.

    Of equal magnitudes the one with the lowest index is kept.

    Args:
        weight: Shape ``(output, input, ...)`` with a number of inputs that four divides.

    Returns:
        True where a weight is kept, boolean, of the weight's shape.

    Raises:
        ShapeError: If four does not divide the number of inputs.

    Source:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378; the rule for ties is ours.

    Example:
        >>> weight = torch.tensor([[0.1, -0.9, 0.4, 0.3, -0.2, 0.25, 0.05, -0.6]])
        >>> weight * two_four_mask(weight)
        tensor([[ 0.0000, -0.9000,  0.4000,  0.0000, -0.0000,  0.2500,  0.0000, -0.6000]])
    """
    if weight.ndim < 2 or weight.shape[1] % GROUP:
        raise ShapeError(
            f"`weight` must have a multiple of {GROUP} inputs on axis 1 for 2:4 sparsity, got {tuple(weight.shape)}."
        )
    along = weight.detach().abs().movedim(1, -1)
    groups = along.reshape(-1, GROUP)
    largest = groups.sort(dim=1, descending=True, stable=True).indices[:, :KEPT]
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, largest, value=True)
    return kept.reshape(along.shape).movedim(-1, 1).contiguous()


def can_be_two_four(weight: LayerWeight) -> bool:
    """Whether four divides the number of a layer's inputs; of grouped convolutions it never counts as one."""
    grouped = getattr(weight.holder, "groups", 1) > 1
    return not grouped and weight.parameter.shape[1] % GROUP == 0


def two_four_layers(network: nn.Module) -> dict[str, bool]:
    """Which layers of a network are 2:4 sparse.

    Args:
        network: The network.

    Returns:
        The answer for every linear layer and convolution, by the weight's name.

    Example:
        >>> network = nn.Linear(4, 1)
        >>> two_four_layers(network)
        {'weight': False}
        >>> with torch.no_grad():
        ...     _ = network.weight.mul_(two_four_mask(network.weight))
        >>> two_four_layers(network)
        {'weight': True}
    """
    return {
        name: is_two_four(weight.parameter.detach().float().cpu().numpy())
        for name, weight in layer_weights(network).items()
    }


def pruned_share(weight: Tensor) -> float:
    """Part of a layer's L1 norm that 2:4 pruning takes away, from 0 to 1: how much the layer suffers.

    Args:
        weight: Shape ``(output, input, ...)`` with a number of inputs that four divides.

    Returns:
        The part; 0 for a layer of zeros.

    Example:
        >>> round(pruned_share(torch.tensor([[1.0, 2.0, 3.0, 4.0]])), 6)  # (1 + 2) / 10
        0.3
    """
    magnitudes = weight.detach().abs().double()
    total = float(magnitudes.sum())
    return float(magnitudes[~two_four_mask(weight)].sum()) / total if total > 0 else 0.0


def layer_importance(network: nn.Module, paths: Sequence[str]) -> list[float]:
    """How much of what 2:4 pruning takes away lies in each part of a network: where distillation has most to repair.

    Args:
        network: The network before it is pruned.
        paths: Paths of modules.

    Returns:
        The `pruned_share` of all weights in each module that can be 2:4, over their sum; equal parts if nothing would
        be taken away, as of a network that is sparse already.

    Source:
        Ours: sparse distillation is published with importances whose formula is not.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False))
        >>> network[0].weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])  # loses 3 of 10
        >>> network[1].weight.data = torch.tensor([[0.0, 1.0, 4.0, 5.0]])  # loses 1 of 10
        >>> [round(importance, 6) for importance in layer_importance(network, ["0", "1"])]
        [0.75, 0.25]
    """
    weights = [weight for weight in layer_weights(network).values() if can_be_two_four(weight)]
    shares = []
    for path in paths:
        inside = [w.parameter.detach() for w in weights if f".{w.name}".startswith(f".{path}." if path else ".")]
        total = sum(float(weight.abs().double().sum()) for weight in inside)
        lost = sum(pruned_share(weight) * float(weight.abs().double().sum()) for weight in inside)
        shares.append(lost / total if total > 0 else 0.0)
    whole = sum(shares)
    return [share / whole if whole > 0 else 1 / len(shares) for share in shares]


class WeightMasks:
    """Parameters of a network and which of their elements may differ from zero.

    Args:
        network: The network; its parameters are looked up by name, so that it may have been rebuilt since.
        masks: Boolean tensors by the parameter's name, True where an element may differ from zero.

    Raises:
        SetupError: If the network has no such parameter.
        ShapeError: If a mask has another shape than its parameter.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> WeightMasks(layer, {"weight": torch.tensor([[True, False]])}).zero_weights()
        >>> layer.weight[0, 1].item()
        0.0
    """

    def __init__(self, network: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = named_parameters(network)
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        for name, mask in masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise SetupError(
                    f"`masks` names {name!r}, which is no parameter of {type(network).__name__} (any more)."
                )
            if parameter.shape != mask.shape:
                raise ShapeError(
                    f"the mask of `{name}` must have shape {tuple(parameter.shape)}, got {tuple(mask.shape)}."
                )
            self._pairs.append((parameter, mask.to(parameter.device)))

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Set to zero what must be."""
        for parameter, mask in self._pairs:
            parameter.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Set to zero the gradients of what must stay zero."""
        for parameter, mask in self._pairs:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def zero_states(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Set to zero what optimizers remember of it, such as momentum."""
        for optimizer in optimizers:
            for parameter, mask in self._pairs:
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == mask.shape:
                        value.masked_fill_(~mask, 0.0)


def named_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name; the wrapper that ``torch.compile`` puts around a module is not spelled."""
    return {
        f"{path}.{name}".lstrip("."): parameter
        for path, module in module_paths(network).items()
        for name, parameter in module.named_parameters(recurse=False)
    }
