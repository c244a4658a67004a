"""Core ML, on macOS."""

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..failures import JobError
from ..job import Job
from . import Network, need, nothing_to_prepare

HAS_CACHE = False
TAKES_THREADS = False
prepare = nothing_to_prepare


def import_runtime() -> None:
    """Import coremltools, which calls Core ML."""
    if sys.platform != "darwin":
        raise JobError("missing_runtime", f"Core ML must be there to run the package, and {sys.platform} has none.")
    need("coremltools", install="coremltools")


def open_network(
    path: Path,
    job: Job,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: int,  # noqa: ARG001 - Core ML decides by itself
    cache: Path | None,  # noqa: ARG001 - Core ML keeps its own
) -> Network:
    """Load a package; pixels of image inputs become images once, before the clock starts."""
    coremltools: Any = need("coremltools", install="coremltools")
    units = str(job.artifact_options["compute_units"])
    try:
        model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[units])
    except RuntimeError as error:
        raise JobError("failed", f"Core ML must load {path.name}, but {error}") from error
    images = {found.name for found in model.get_spec().description.input if found.type.HasField("imageType")}
    feeds = {name: _as_image(array) if name in images else array for name, array in inputs.items()}

    def run() -> list[np.ndarray]:
        found = model.predict(feeds)
        return [np.asarray(found[name]) for name in job.outputs]

    properties: dict[str, str | int | float] = {
        "runtime": "coreml",
        "runtime_version": f"macOS {platform.mac_ver()[0]}",
        "device": units,
        "threads": 0,
        "active_precision": job.precision,
    }
    return Network(run, properties)


def _as_image(pixels: np.ndarray) -> Any:
    channels = np.rint(pixels[0]).clip(0, 255).astype(np.uint8)
    image = need("PIL.Image", install="pillow")
    return image.fromarray(channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1))
