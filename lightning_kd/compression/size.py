"""What a network costs: parameters, and multiply-accumulates of one call."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_kd._modes import looking_only
from lightning_kd.taps import Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """Cost of a network.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates of one call: half of what PyTorch's counter calls floating-point operations, which
            are those of matrix products, convolutions and attention.
    """

    parameters: int
    macs: int


def network_size(network: nn.Module, example: Any) -> NetworkSize:
    """Count parameters and multiply-accumulates.

    Args:
        network: The network; it runs once in evaluation mode.
        example: One input: a tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        The counts, for the example's batch size.

    Example:
        >>> import torch
        >>> network_size(nn.Linear(4, 3), torch.zeros(1, 4))
        NetworkSize(parameters=15, macs=12)
    """
    inputs = Inputs.of(example)
    with looking_only(network), FlopCounterMode(display=False) as counter:
        network(*inputs.args, **inputs.kwargs)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkSize(parameters=parameters, macs=counter.get_total_flops() // 2)
