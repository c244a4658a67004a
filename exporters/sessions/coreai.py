"""Core AI assets, in the interpreter that comes with Core AI's package, or in Apple's runtime on macOS 27."""

import asyncio
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from coreai.authoring.asset import AIModelAsset
from coreai.runtime import InferenceFunction, NDArray, SpecializationOptions

from exporters.artifact import Artifact
from exporters.errors import ArtifactError
from exporters.session import InferencePrecision, failed_run
from exporters.threads import available_threads

ENTRY_POINT = "main"


class CoreAISession:
    """A network in Core AI.

    Off macOS the asset is lowered into a temporary folder, which is gone once it is loaded, and interpreted: right, not
    fast. Core AI computes every operator in the type written in the file.

    Args:
        artifact: The exported folder.
        threads: Makes no difference here: Core AI takes the processors that it finds, as ``properties`` say.
        precision: Makes no difference here; both mean the types of the file.

    Raises:
        ArtifactError: If Core AI cannot load the folder.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:  # noqa: ARG002
        # Core AI answers asynchronously. A thread of our own has an event loop also where the caller's thread runs one.
        self._loop = _Loop()
        weakref.finalize(self, self._loop.close)
        try:
            self._function = self._loop.run(_load(artifact.path))
        except (RuntimeError, KeyError) as error:
            raise ArtifactError(f"`path` must be a folder that Core AI loads, got {artifact.path}: {error}") from error
        self._signature = artifact.signature
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        interpreted = not SpecializationOptions.is_supported()
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "coreai",
            "runtime_version": version("coreai-core"),
            "device": "CPU (interpreter)" if interpreted else "Core AI of the operating system",
            "threads": available_threads(),
            "active_precision": artifact.precision,
        } | ({"stands_in_for": "Core AI"} if interpreted else {})

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        try:
            outputs = self._loop.run(_call(self._function, inputs))
        except RuntimeError as error:
            raise failed_run("Core AI", inputs, error) from error
        return {spec.name: outputs[spec.name] for spec in self.outputs}


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coreai")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine."""
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()

    def close(self) -> None:
        """End the thread and the loop."""
        self._thread.shutdown()
        self._loop.close()


async def _load(path: Path) -> InferenceFunction:
    async with AIModelAsset.load(path).executable() as model:
        return model.load_function(ENTRY_POINT)


async def _call(function: InferenceFunction, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = await function({name: NDArray(np.ascontiguousarray(array)) for name, array in inputs.items()})
    # Copies in C order: the arrays of the runtime may be strided views of its own memory.
    return {name: np.array(array.numpy(), order="C") for name, array in outputs.items()}
