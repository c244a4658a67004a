"""ExecuTorch programs, on the CPU."""

import weakref
from collections.abc import Mapping

import numpy as np
import torch

from exporters.artifact import Artifact
from exporters.errors import ArtifactError, PlatformError
from exporters.quiet import errors_only, root_logger_kept
from exporters.session import InferencePrecision, failed_run

with root_logger_kept(), errors_only("torch.utils._pytree"):
    from executorch.extension.pybindings.portable_lib import (
        _threadpool_get_thread_count as pool_size,
    )
    from executorch.extension.pybindings.portable_lib import (
        _unsafe_reset_threadpool as resize_pool,
    )
    from executorch.runtime import Method, Program, Runtime
    from executorch.version import __version__ as executorch_version

_DELEGATES = {"coreml": "CoreMLBackend", "xnnpack": "XnnpackBackend"}


class ExecuTorchSession:
    """A ``.pte`` file loaded by the ExecuTorch runtime of this process.

    All sessions of a process share one pool of threads. A call with another number of threads than the last makes the
    pool anew and loads the file again, so open sessions that take turns with the same number.

    Args:
        artifact: The exported ``.pte`` file.
        threads: Threads that one call may use.
        precision: Has no effect: a file computes in the types that are written in it, and nothing lower.

    Raises:
        ArtifactError: If the runtime cannot load the file.
        PlatformError: If the file needs a delegate that this runtime does not have.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:
        del precision
        delegate = _DELEGATES.get(str(artifact.options.get("backend")))
        runtime = Runtime.get()
        if delegate is not None and not runtime.backend_registry.is_available(delegate):
            raise PlatformError(
                f"{artifact.path.name} needs a runtime with {delegate}, but this one has "
                f"{runtime.backend_registry.registered_backend_names}; load it on the device that it was made for."
            )
        self._path = artifact.path
        self._signature = artifact.signature
        self._threads = threads
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self._program: Program | None = None
        _OPEN.add(self)
        self._loaded()
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "executorch",
            "runtime_version": executorch_version,
            "device": "CPU",
            "threads": pool_size(),
            "delegate": delegate or "none",
            "active_precision": artifact.precision,
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        method = self._loaded()
        arrays = [np.require(inputs[spec.name], requirements=("C", "W")) for spec in self.inputs]
        try:
            outputs = method.execute([torch.from_numpy(array) for array in arrays])
        except RuntimeError as error:
            raise failed_run("ExecuTorch", inputs, error) from error
        return {spec.name: output.numpy() for spec, output in zip(self.outputs, outputs, strict=True)}

    def unload(self) -> None:
        """Let go of the file; the next call loads it again."""
        self._program = None

    def _loaded(self) -> Method:
        if pool_size() != self._threads:
            # Loaded methods hold the pool that is about to go.
            for session in _OPEN:
                session.unload()
            resize_pool(self._threads)
        try:
            if self._program is None:
                # A method reads from its program's memory without keeping it alive.
                self._program = Runtime.get().load_program(self._path)
            return self._program.load_method("forward")
        except RuntimeError as error:
            raise ArtifactError(f"`path` must be a file that ExecuTorch loads, got {self._path}: {error}") from error


_OPEN: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()
