"""The calls that users write: `export`, `load` and `pytorch_session`."""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from exporters.artifact import Artifact
from exporters.metadata.schema import ModelMetadata, metadata_from
from exporters.parity import TOLERANCES, Precision, Tolerance
from exporters.preprocessing import Preprocessing
from exporters.quantization.options import QuantizationOptions
from exporters.runtimes import EXPORTERS, SESSIONS, import_runtime
from exporters.session import InferencePrecision, Session
from exporters.signature import DimensionRange
from exporters.spec import ExportSpec
from exporters.task import Metric
from exporters.threads import check_threads

if TYPE_CHECKING:
    from torch import nn

    from exporters.example import ExampleInputs
    from exporters.exporter import Exporter

Format = Literal["coreai", "coreml", "executorch", "onnx", "openvino", "tensorrt"]
DEFAULT_BATCH = DimensionRange(1, 32)


def export(
    model: "nn.Module",
    example_inputs: "ExampleInputs | ExportSpec",
    *,
    to: "Format | Exporter",
    path: Path | str,
    precision: Precision = "fp32",
    dynamic_batch: bool | tuple[int, int] = False,
    calibration: Any = None,
    quantization: QuantizationOptions | None = None,
    tolerance: Tolerance | None = None,
    evaluation: Any = None,
    metric: Metric = "top1",
    max_drop: float | None = None,
    preprocessing: Preprocessing | None = None,
    metadata: Mapping[str, str] | ModelMetadata | None = None,
) -> Artifact:
    """Export a network, check it against PyTorch and describe it in a manifest.

    The export works on a copy in evaluation mode, float32, on the CPU; ``model`` is left as it is. A LightningModule is
    exported as what its ``forward`` does. The file is run on inputs other than the example and compared with PyTorch
    before it appears at ``path``; an error or an interrupt leaves nothing new there and keeps what was there before.

    Args:
        model: The network.
        example_inputs: One tensor, a tuple of tensors for positional inputs, or a dict of tensors for keyword inputs.
            They fix the shapes, and their mean, spread and range are those of the inputs used for the check, so give
            real ones. Or an `ExportSpec`, which declares ranges for any dimension.
        to: Format by name, with default options, or an exporter with options of its own.
        path: File to write, in an existing folder, with the format's suffix, such as ``.onnx`` or ``.mlpackage``. An
            earlier export at the same place is replaced.
        precision: ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``: type of the weights, and of the arithmetic where
            the format says so. Not every format has every precision.
        dynamic_batch: Sizes that dimension 0 of every input accepts, both ends included; ``True`` stands for
            ``(1, 32)``, ``False`` for the example's size only. An `ExportSpec` declares its own.
        calibration: Real inputs for ``precision="int8"``, from which ranges are taken and on which recipes are
            compared: a loader, data set, LightningDataModule (its training data), tensors or arrays.
        quantization: How to quantise; ``None`` tries the recipes that suit the network and takes the best.
        tolerance: Largest errors against PyTorch; ``None`` takes those of the precision.
        evaluation: Samples with targets, on which the task's metric is computed in PyTorch and with the file: a loader,
            data set or LightningDataModule (its validation data). int8 recipes are chosen by it.
        metric: ``"top1"``, or a function of all outputs (an array, or arrays by name) and all targets, of which higher
            is better.
        max_drop: Largest drop of the metric, in its unit, that is accepted; ``None`` for any.
        preprocessing: What to put in front of the network, in the graph; ``example_inputs`` and ``calibration`` are
            then what comes before it, such as uint8 images or waveforms, and paths of modules begin with ``network.``.
        metadata: What to embed in the file and the manifest: a `ModelMetadata`, or text by name.

    Returns:
        The artifact; its ``parity`` holds the figures.

    Raises:
        CaptureError: If the network cannot be captured, or the inputs do not fit it.
        ConversionError: If the converter refuses the network, the format does not have the precision, or the file
            turns out not to be in it.
        InputError: If ``calibration`` is missing or does not fit the network.
        MissingRuntimeError: If the format's packages are not installed.
        ParityError: If the file does not compute what PyTorch computes.
        PathError: If ``path`` cannot be written or has another format's suffix.
        TaskError: If the metric drops by more than ``max_drop``.
        ValueError: If ``to``, ``precision``, ``dynamic_batch`` or ``metadata`` is not one of the above.

    Example:
        >>> import tempfile, exporters, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = exporters.export(
        ...         torch.nn.Linear(3, 2), torch.randn(1, 3), to="onnx", path=f"{folder}/n.onnx", dynamic_batch=True
        ...     )
        >>> artifact.outputs
        (TensorSpec(name='output', shape=('batch', 2), dtype='float32'),)
        >>> artifact.parity.batch_sizes
        (1, 17, 32, 17)
    """
    if precision not in TOLERANCES:
        raise ValueError(f"`precision` must be one of {', '.join(map(repr, TOLERANCES))}, got {precision!r}.")
    if metric != "top1" and not callable(metric):
        raise ValueError(f"`metric` must be 'top1' or a function, got {metric!r}.")
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise ValueError(f"`max_drop` must be None or a finite number of at least 0, got {max_drop!r}.")
    metadata = metadata_from(metadata)
    exporter = find_exporter(to)
    batch = batch_range(dynamic_batch)
    pipeline = importlib.import_module("exporters.pipeline")
    return cast(
        Artifact,
        pipeline.export_module(
            model,
            example_inputs,
            exporter,
            Path(path),
            pipeline.Order(
                precision=precision,
                tolerance=tolerance,
                calibration=calibration,
                quantization=quantization or QuantizationOptions(),
                evaluation=evaluation,
                metric=metric,
                max_drop=max_drop,
                metadata=metadata,
                preprocessing=preprocessing,
            ),
            batch=batch,
        ),
    )


def load(
    artifact: Artifact | Path | str, *, threads: int | None = None, precision: InferencePrecision = "fp32"
) -> Session:
    """Open an exported network in the runtime of its format; needs NumPy and that runtime, not PyTorch.

    Args:
        artifact: What `export` returned, or the path of the file or its manifest.
        threads: Threads that one call may use; ``None`` for every processor that the process may run on.
        precision: ``"fp32"`` computes no lower than the file's own types. ``"default"`` lets the runtime choose, which
            is bfloat16 for OpenVINO on processors that have it.

    Returns:
        The session; its ``properties`` say what is in effect.

    Raises:
        ArtifactError: If the manifest or a file is missing or was changed.
        MissingRuntimeError: If the runtime is not installed.
        PlatformError: If the runtime does not run on this operating system.
        ValueError: If ``threads`` or ``precision`` is out of range.

    Example:
        >>> import tempfile, exporters, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = exporters.export(torch.nn.ReLU(), torch.randn(1, 2), to="openvino", path=f"{folder}/relu.xml")
        ...     session = exporters.load(f"{folder}/relu.xml", threads=1)
        >>> session.run({"input": torch.tensor([[-1.0, 2.0]]).numpy()})
        {'output': array([[0., 2.]], dtype=float32)}
    """
    threads = check_threads(threads)
    if precision not in get_args(InferencePrecision):
        raise ValueError(f"`precision` must be 'fp32' or 'default', got {precision!r}.")
    artifact = Artifact.read(artifact.path if isinstance(artifact, Artifact) else artifact)
    return cast(Session, import_runtime(SESSIONS, artifact.format)(artifact, threads=threads, precision=precision))


def pytorch_session(
    model: "nn.Module",
    example_inputs: "ExampleInputs | ExportSpec",
    *,
    dynamic_batch: bool | tuple[int, int] = False,
    threads: int | None = None,
    compiled: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    cuda_graph: bool = False,
) -> Session:
    """Open a network in PyTorch itself, with the names and the checks that its exports have.

    Args:
        model: The network; the session runs a copy in evaluation mode and float32.
        example_inputs: As in `export`.
        dynamic_batch: As in `export`.
        threads: Threads that one call may use; ``None`` keeps PyTorch's setting. Must be ``None`` on a GPU.
        compiled: Whether `torch.compile` compiles it, as one graph, for the example's shapes now and for other shapes
            when they first come; needs a C++ compiler.
        device: ``"cuda"`` for the first NVIDIA GPU; its profiles also have the times between two CUDA events and of the
            launching call.
        cuda_graph: Whether the launches on the GPU are recorded once per set of shapes and replayed.

    Returns:
        The session.

    Raises:
        CaptureError: If the inputs do not fit the network, or it is to be compiled and is more than one graph.
        PlatformError: If there is no such device, or no compiler to compile with.
        ValueError: If ``threads``, ``dynamic_batch`` or ``device`` is out of range, or ``threads`` or ``cuda_graph``
            does not fit the device.

    Example:
        >>> import exporters, torch
        >>> session = exporters.pytorch_session(torch.nn.Softmax(dim=1), torch.zeros(1, 2))
        >>> session.run({"input": torch.zeros(1, 2).numpy()})
        {'output': array([[0.5, 0.5]], dtype=float32)}
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"`device` must be 'cpu' or 'cuda', got {device!r}.")
    if cuda_graph and device == "cpu":
        raise ValueError("`cuda_graph` must be False on the CPU, got True; give device='cuda'.")
    if threads is not None and device == "cuda":
        raise ValueError(f"`threads` must be None on a GPU, got {threads}.")
    network = importlib.import_module("exporters.network").prepare(
        model, example_inputs, batch=batch_range(dynamic_batch)
    )
    if device == "cuda":
        session = importlib.import_module("exporters.sessions.pytorch_cuda").CudaPyTorchSession
        return cast(Session, session(network, compiled=compiled, cuda_graph=cuda_graph))
    session = importlib.import_module("exporters.sessions.pytorch").PyTorchSession
    return cast(Session, session(network, threads=threads, compiled=compiled))


def find_exporter(to: "str | Exporter") -> "Exporter":
    """The exporter of a format with its default options, or the one given."""
    if not isinstance(to, str):
        return to
    if to not in EXPORTERS:
        raise ValueError(f"`to` must be one of {', '.join(map(repr, EXPORTERS))} or an exporter, got {to!r}.")
    return cast("Exporter", import_runtime(EXPORTERS, to)())


def batch_range(dynamic_batch: bool | tuple[int, int]) -> DimensionRange | None:
    """The range that ``dynamic_batch`` stands for; ``None`` for a fixed batch."""
    if isinstance(dynamic_batch, bool):
        return DEFAULT_BATCH if dynamic_batch else None
    try:
        minimum, maximum = dynamic_batch
    except (TypeError, ValueError):
        minimum, maximum = 0, 0
    if not all(type(end) is int for end in (minimum, maximum)) or not 1 <= minimum < maximum:
        raise ValueError(
            f"`dynamic_batch` must be True, False or two rising whole numbers above 0, got {dynamic_batch!r}."
        )
    return DimensionRange(minimum, maximum)
