"""Memory of a GPU and the stream on which it is copied, through NVIDIA's CUDA bindings."""

import weakref
from typing import Any

import numpy as np
from cuda.bindings import runtime

from exporters.errors import PlatformError


class DeviceMemory:
    """Named buffers on the first GPU; they grow when they have to, and go with this object.

    Raises:
        PlatformError: If there is no usable GPU.
    """

    def __init__(self) -> None:
        self.stream = int(_checked(runtime.cudaStreamCreate()))
        self._buffers: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, _free, self._buffers, self.stream)

    def address(self, name: str, size_bytes: int) -> int:
        """Address of a buffer of at least this size."""
        address, held_bytes = self._buffers.get(name, (0, 0))
        if not address or held_bytes < size_bytes:
            if address:
                del self._buffers[name]
                _checked(runtime.cudaFree(address))
            # A tensor of no elements has an address, too.
            address = int(_checked(runtime.cudaMalloc(max(size_bytes, 1))))
            self._buffers[name] = (address, size_bytes)
        return address

    def upload(self, name: str, array: np.ndarray) -> int:
        """Copy a contiguous array into a buffer, whose address is returned."""
        address = self.address(name, array.nbytes)
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self.stream))
        return address

    def download(self, name: str, array: np.ndarray) -> None:
        """Copy a buffer into a contiguous array of its size, and wait for everything on the stream."""
        address = self.address(name, array.nbytes)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self.stream))
        _checked(runtime.cudaStreamSynchronize(self.stream))


def _checked(returned: tuple[Any, ...]) -> Any:
    """What a CUDA function returned beside its status."""
    status, *values = returned
    if status != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(status)[1].decode()
        raise PlatformError(f"an NVIDIA GPU must be usable to run TensorRT, but CUDA says: {text}.")
    return values[0] if values else None


def _free(buffers: dict[str, tuple[int, int]], stream: int) -> None:
    for address, _ in buffers.values():
        runtime.cudaFree(address)
    runtime.cudaStreamDestroy(stream)
