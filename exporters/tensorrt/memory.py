"""Memory of a GPU and the stream on which it is copied, through NVIDIA's CUDA bindings."""

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from exporters.errors import MissingRuntimeError, PlatformError

NANOSECONDS_PER_MILLISECOND = 1e6


class DeviceMemory:
    """Named buffers on the first GPU; they grow when they have to, and go with this object.

    Raises:
        MissingRuntimeError: If the bindings are not installed.
        PlatformError: If there is no usable GPU.
    """

    def __init__(self) -> None:
        self._cuda = _bindings()
        self.stream = int(self._call(self._cuda.cudaStreamCreate))
        self._buffers: dict[str, tuple[int, int]] = {}
        weakref.finalize(self, _free, self._cuda, self._buffers, self.stream)

    def address(self, name: str, size_bytes: int) -> int:
        """Address of a buffer of at least this size."""
        address, held_bytes = self._buffers.get(name, (0, 0))
        if not address or held_bytes < size_bytes:
            if address:
                del self._buffers[name]
                self._call(self._cuda.cudaFree, address)
            # A tensor of no elements has an address, too.
            address = int(self._call(self._cuda.cudaMalloc, max(size_bytes, 1)))
            self._buffers[name] = (address, size_bytes)
        return address

    def upload(self, name: str, array: np.ndarray) -> int:
        """Start to copy a contiguous array into a buffer, whose address is returned."""
        address = self.address(name, array.nbytes)
        self._copy(address, array.ctypes.data, array.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        return address

    def download(self, name: str, array: np.ndarray) -> None:
        """Copy a buffer into a contiguous array of its size, and wait for everything on the stream."""
        address = self.address(name, array.nbytes)
        self._copy(array.ctypes.data, address, array.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self._call(self._cuda.cudaStreamSynchronize, self.stream)

    def event(self) -> Any:
        """A mark that can be put on the stream."""
        return self._call(self._cuda.cudaEventCreate)

    def record(self, event: Any) -> None:
        """Put a mark on the stream, behind everything that is on it."""
        self._call(self._cuda.cudaEventRecord, event, self.stream)

    def elapsed_ns(self, first: Any, second: Any) -> int:
        """Time of the GPU between two marks that it has passed, ns; CUDA resolves about 500 ns."""
        elapsed_ms: float = self._call(self._cuda.cudaEventElapsedTime, first, second)
        return round(elapsed_ms * NANOSECONDS_PER_MILLISECOND)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """What puts on the stream, in one call, what ``work`` puts there now; nothing runs meanwhile."""
        self._call(self._cuda.cudaStreamSynchronize, self.stream)
        self._call(
            self._cuda.cudaStreamBeginCapture,
            self.stream,
            self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        work()
        graph = self._call(self._cuda.cudaStreamEndCapture, self.stream)
        launchable = self._call(self._cuda.cudaGraphInstantiate, graph, 0)
        return lambda: self._call(self._cuda.cudaGraphLaunch, launchable, self.stream)

    def _copy(self, target: int, source: int, size_bytes: int, kind: Any) -> None:
        self._call(self._cuda.cudaMemcpyAsync, target, source, size_bytes, kind, self.stream)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a CUDA function returns beside its status."""
        status, *values = function(*arguments)
        if status != self._cuda.cudaError_t.cudaSuccess:
            text = self._cuda.cudaGetErrorString(status)[1].decode()
            raise PlatformError(f"an NVIDIA GPU must be usable to run TensorRT, but CUDA says: {text}.")
        return values[0] if values else None


def _bindings() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingRuntimeError(
            f"NVIDIA's CUDA bindings must be installed to run TensorRT, but {error}; "
            f"run: pip install 'lightning-kd[tensorrt]'"
        ) from error


def _free(cuda: Any, buffers: dict[str, tuple[int, int]], stream: int) -> None:
    for address, _ in buffers.values():
        cuda.cudaFree(address)
    cuda.cudaStreamDestroy(stream)
