"""Profile the layers of an exported network in its runtime."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.artifact import Artifact
from exporters.errors import MissingRuntimeError, PlatformError
from exporters.profiling.inputs import check_batch_size, random_inputs
from exporters.profiling.layers.recording import Recording, Request
from exporters.profiling.layers.result import LayerProfile
from exporters.profiling.runner.machine import read_machine
from exporters.profiling.runner.options import check_count
from exporters.profiling.subject import Subject
from exporters.signature import TensorSpec
from exporters.threads import check_threads

WARM_UP_RUNS = 10

RECORDERS: Mapping[str, str] = {
    "executorch": "exporters.profiling.layers.executorch",
    "onnx": "exporters.profiling.layers.onnxruntime",
    "openvino": "exporters.profiling.layers.openvino",
    "tensorrt": "exporters.profiling.layers.tensorrt",
}
"""Module whose ``record`` does it, by format."""


def profile_layers(
    target: Artifact | Path | str,
    *,
    threads: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] | None = None,
    runs: int = 100,
) -> LayerProfile:
    """Measure where the time of a run goes, with the runtime's own counters, in runs made for that.

    Exporters write module paths into the names of operations where the format has names: ONNX, OpenVINO, TensorRT.

    Args:
        target: An artifact, or the path of its file or manifest.
        threads: Threads that one run may use; ``None`` for every processor at hand.
        batch_size: Samples per run.
        seed: Seed of the random inputs.
        inputs: Arrays to run on, by input name; random ones if ``None``.
        runs: Runs to take the mean of, after ten that do not count.

    Returns:
        Time, share and module of every operation.

    Raises:
        ValueError: If a number is outside its range.
        InputError: If the network does not take ``batch_size`` or ``inputs`` (also a `ValueError`).
        ArtifactError: If the artifact is missing or was changed (also a `ValueError`).
        PlatformError: If the runtime of this format counts no layers here (also a `RuntimeError`).
        MissingRuntimeError: If a package that it needs is not installed (also an `ImportError`).

    Example:
        >>> import tempfile, exporters, torch
        >>> from exporters.profiling.layers import profile_layers
        >>> network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Softmax(dim=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = exporters.export(network, torch.randn(1, 64), to="openvino", path=f"{folder}/n.xml")
        ...     found = profile_layers(artifact, threads=1)
        >>> [layer.module for layer in found.layers if "FullyConnected" in layer.operator]
        ['0']
    """
    check_count("batch_size", batch_size, minimum=1)
    check_count("seed", seed, minimum=0)
    check_count("runs", runs, minimum=1)
    artifact = Artifact.read(target.path if isinstance(target, Artifact) else target)
    check_batch_size(artifact.inputs, inputs, batch_size=batch_size)
    if inputs is None:
        dimensions = artifact.signature.dimensions
        arrays = random_inputs(artifact.inputs, batch_size=batch_size, seed=seed, dimensions=dimensions)
    else:
        arrays = dict(inputs)
    artifact.signature.check(arrays)
    machine = read_machine()
    recording = _record(Request(artifact, check_threads(threads), arrays, WARM_UP_RUNS, runs))
    subject = Subject(
        name=artifact.path.name,
        artifact_sha256=artifact.sha256,
        inputs=tuple(TensorSpec(key, array.shape, array.dtype.name) for key, array in arrays.items()),
        batch_size=batch_size,
        seed=seed if inputs is None else None,
        properties=dict(recording.properties),
        load_ms=None,
    )
    layers = tuple(recording.layers)
    return LayerProfile(subject=subject, machine=machine, runs=runs, run_ms=recording.run_ms, layers=layers)


def _record(request: Request) -> Recording:
    format = request.artifact.format
    if format not in RECORDERS:
        raise PlatformError(
            f"`target` must be of a format whose runtime counts the time of layers ({', '.join(sorted(RECORDERS))}), "
            f"got {format}; Xcode's performance report shows that of Core ML and Core AI on a Mac."
        )
    try:
        module = importlib.import_module(RECORDERS[format])
    except ImportError as error:
        raise MissingRuntimeError(
            f"`{format}` must be installed, but {error}; run: pip install 'lightning-kd[{format}]'"
        ) from error
    recording: Recording = module.record(request)
    return recording
