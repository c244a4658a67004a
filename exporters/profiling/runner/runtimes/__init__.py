"""One small module per runtime: import it, load a file, run it.

Each has what `Runtime` lists.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from ..failures import JobError
from ..job import Job

MODULES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "executorch": "executorch",
    "tensorrt": "tensorrt",
    "coreml": "coreml",
    "coreai": "coreai",
}

Run = Callable[[], list[np.ndarray]]
"""One run on the inputs that it was made for; outputs in order, valid until its next run."""


class Network(NamedTuple):
    """A network that is loaded.

    Args:
        run: One run.
        properties: Settings in effect, read back from the runtime.
        another: Makes a further request that may run at the same time; ``None`` where there can be one only.
        parts: Times of the last run's parts on other clocks, ns, by name; ``None`` where there are none.
        cached: Whether it came from the runtime's cache.
        compile_ms: How long the runtime compiled it, ms; ``None`` if that cannot be told from reading the file.
    """

    run: Run
    properties: Mapping[str, str | int | float]
    another: Callable[[], Run] | None = None
    parts: Callable[[], Mapping[str, int]] | None = None
    cached: bool = False
    compile_ms: float | None = None


class Runtime(Protocol):
    """A module of this package.

    Args:
        HAS_CACHE: Whether the runtime can keep what it compiled.
        TAKES_THREADS: Whether the runtime can be told how many threads to use.
    """

    HAS_CACHE: bool
    TAKES_THREADS: bool

    def import_runtime(self) -> None:
        """Import the packages."""

    def prepare(self, path: Path) -> None:
        """Do what has to be done once for a file that has arrived, before anything is timed."""

    def open_network(
        self, path: Path, job: Job, inputs: Mapping[str, np.ndarray], *, threads: int, cache: Path | None
    ) -> Network:
        """Load a file.

        Args:
            path: The file.
            job: What else is known of it.
            inputs: Arrays to run on, by name in order.
            threads: Threads that one run may use.
            cache: Folder in which the runtime keeps the compiled network, filled before or now; ``None`` without.
        """


def find_runtime(format: str) -> Runtime:
    """The module for a format."""
    if format not in MODULES:
        raise JobError("failed", f"the format must be one of {', '.join(MODULES)}, got {format}.")
    return cast("Runtime", importlib.import_module(f"{__name__}.{MODULES[format]}"))


def nothing_to_prepare(path: Path) -> None:
    """What most runtimes have to do once for a file."""


def need(package: str, *, install: str) -> Any:
    """Import a package.

    Raises:
        JobError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise JobError(
            "missing_runtime", f"`{package}` must be installed on the device, but {error}; run: pip install {install}"
        ) from error
