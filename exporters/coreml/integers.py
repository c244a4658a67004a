"""A network whose whole numbers have 32 bits, as Core ML's have."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from exporters.errors import ConversionError
from exporters.network import Network, PositionalNetwork
from exporters.signature import Signature

_DTYPES = {"float32": "float32", "int32": "int32", "int64": "int32"}


class In32Bits(nn.Module):
    """A network that takes and returns 32-bit instead of 64-bit integers.

    Args:
        network: The network.
        wide: Whether each of its inputs has 64 bits.
    """

    def __init__(self, network: PositionalNetwork, wide: tuple[bool, ...]) -> None:
        super().__init__()
        self.network = network
        self.wide = wide

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs."""
        outputs = self.network(*(x.long() if wide else x for x, wide in zip(inputs, self.wide, strict=True)))
        return tuple(output.int() if output.dtype == torch.int64 else output for output in outputs)


def in_32_bits(network: Network) -> Network:
    """The network as Core ML has it: 64-bit integers become 32-bit, and nothing else changes.

    Raises:
        ConversionError: If Core ML has no such input or output type.
    """
    signature = _signature(network.signature)
    if signature == network.signature:
        return network
    wide = tuple(spec.dtype == "int64" for spec in network.signature.inputs)
    return replace(
        network,
        module=PositionalNetwork(In32Bits(network.module, wide)).eval(),
        signature=signature,
        example=tuple(x.int() if is_wide else x for x, is_wide in zip(network.example, wide, strict=True)),
        samples=tuple(
            {spec.name: np.asarray(sample[spec.name], dtype=spec.dtype) for spec in signature.inputs}
            for sample in network.samples
        ),
    )


def _signature(signature: Signature) -> Signature:
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype not in _DTYPES:
            raise ConversionError(
                f"`{spec.name}` must be float32, int32 or int64 for Core ML, got {spec.dtype}; convert it in forward."
            )
    return replace(
        signature,
        inputs=tuple(replace(spec, dtype=_DTYPES[spec.dtype]) for spec in signature.inputs),
        outputs=tuple(replace(spec, dtype=_DTYPES[spec.dtype]) for spec in signature.outputs),
    )
