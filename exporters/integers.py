"""Networks for runtimes that have no 64-bit integers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from exporters.errors import ConversionError
from exporters.network import Network, PositionalNetwork
from exporters.signature import Signature, TensorSpec


class _Narrowed(nn.Module):
    """A network between 32-bit integers: its 64-bit inputs are widened and its 64-bit outputs cut."""

    def __init__(self, network: PositionalNetwork, wide: tuple[bool, ...]) -> None:
        super().__init__()
        self.network = network
        self.wide = wide

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs."""
        pairs = zip(inputs, self.wide, strict=True)
        outputs = self.network(*(tensor.long() if wide else tensor for tensor, wide in pairs))
        return tuple(tensor.int() if tensor.dtype == torch.int64 else tensor for tensor in outputs)


def with_32_bit_integers(network: Network, *, runtime: str, dtypes: tuple[str, ...]) -> Network:
    """The same network as a runtime without 64-bit integers takes it; the network itself if it has none.

    Args:
        network: The network.
        runtime: Name of the runtime, for the message.
        dtypes: NumPy names of the types that inputs and outputs may have there, beside int64.

    Returns:
        The network, with int32 wherever its signature had int64.

    Raises:
        ConversionError: If an input or output has a type that the runtime lacks.
    """
    declared = network.signature
    for spec in (*declared.inputs, *declared.outputs):
        if spec.dtype not in (*dtypes, "int64"):
            raise ConversionError(
                f"`{spec.name}` must be {', '.join(dtypes)} or int64 for {runtime}, got {spec.dtype}; "
                f"convert it in forward."
            )
    wide = tuple(spec.dtype == "int64" for spec in declared.inputs)
    if not any((*wide, *(spec.dtype == "int64" for spec in declared.outputs))):
        return network
    narrow = PositionalNetwork(_Narrowed(network.module, wide)).eval()
    signature: Signature = replace(
        declared, inputs=tuple(map(_narrow, declared.inputs)), outputs=tuple(map(_narrow, declared.outputs))
    )
    example = tuple(tensor.int() if is_wide else tensor for tensor, is_wide in zip(network.example, wide, strict=True))
    return replace(network, module=narrow, signature=signature, example=example, samples=_samples(network))


def _narrow(spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype="int32") if spec.dtype == "int64" else spec


def _samples(network: Network) -> tuple[Mapping[str, np.ndarray], ...]:
    return tuple(
        {name: array.astype(np.int32) if array.dtype == np.int64 else array for name, array in sample.items()}
        for sample in network.samples
    )
