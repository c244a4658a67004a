"""The steps of every export, in their order."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from exporters.artifact import Artifact, manifest_path, record_files
from exporters.audit import check_audit
from exporters.bisection import explain, open_session
from exporters.capture import is_quantized
from exporters.errors import ConversionError, InputError, ParityError, PathError, QuantizationError
from exporters.example import ExampleInputs
from exporters.exporter import Exporter, Request
from exporters.metadata.description import describe, with_preprocessing_in_graph
from exporters.metadata.schema import ModelMetadata, metadata_from
from exporters.network import Network, prepare, with_samples
from exporters.parity import TOLERANCES, Precision, Tolerance
from exporters.preprocessing import Preprocessing
from exporters.preprocessing.modules import with_preprocessing
from exporters.quantization.calibration import Calibration
from exporters.quantization.options import QuantizationOptions
from exporters.sessions.pytorch import PyTorchSession
from exporters.signature import DimensionRange
from exporters.spec import ExportSpec
from exporters.staging import staged
from exporters.task import Evaluation, Metric
from exporters.verification import rounding_tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `exporters.export` was asked for beside the network; it says what the fields mean."""

    precision: Precision
    tolerance: Tolerance | None = None
    calibration: Any = None
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    evaluation: Any = None
    metric: Metric = "top1"
    max_drop: float | None = None
    metadata: Mapping[str, str] | ModelMetadata = field(default_factory=dict)
    preprocessing: Preprocessing | None = None

    @property
    def bounds(self) -> Tolerance:
        """The tolerance that was asked for, or else that of the precision."""
        return self.tolerance or TOLERANCES[self.precision]


def export_module(
    model: nn.Module,
    example_inputs: ExampleInputs | ExportSpec,
    exporter: Exporter,
    path: Path,
    order: Order,
    *,
    batch: DimensionRange | None,
) -> Artifact:
    """Convert, check and publish one module; `exporters.export` says what the arguments mean."""
    check_target(exporter, path, order.precision)
    if order.preprocessing is not None:
        model = with_preprocessing(model, order.preprocessing)
    return export_network(prepare(model, example_inputs, batch=batch), exporter, path, order)


def check_target(exporter: Exporter, path: Path, precision: Precision) -> None:
    """Raise unless the exporter has the precision and writes files of this suffix into a folder that exists."""
    if precision not in exporter.precisions:
        raise ConversionError(
            f"`precision` must be one of {', '.join(map(repr, exporter.precisions))} for {exporter.format}, "
            f"got {precision!r}."
        )
    if path.suffix != exporter.suffix:
        raise PathError(
            f"`path` must end in {exporter.suffix!r} for {exporter.format}, got {path.name!r}; "
            f"write {path.with_suffix(exporter.suffix).name!r}."
        )


def export_network(network: Network, exporter: Exporter, path: Path, order: Order) -> Artifact:
    """Convert, check and publish one network.

    Args:
        network: The network; several exporters share its capture.
        exporter: Writes and checks the file.
        path: Where the file goes.
        order: What was asked for.

    Returns:
        The artifact.
    """
    check_target(exporter, path, order.precision)
    manifest = manifest_path(path)
    with staged(path.parent, last=manifest.name) as folder:
        request, network = build_request(order, network)
        evaluation = read_evaluation(order, network)
        request = _with_evaluation(request, evaluation)
        request = replace(request, metadata=_described(order, request, network, exporter).texts())
        target = folder / path.name
        conversion = exporter.convert(network, target, request)
        names = tuple(sorted((file.name for file in folder.iterdir()), key=lambda name: (name != path.name, name)))
        artifact = Artifact(
            path=target,
            files=record_files(folder, names),
            format=exporter.format,
            precision=order.precision,
            signature=network.signature,
            options=asdict(exporter),
            versions=exporter.versions,
            verified_on="nothing yet",
            parity=None,
            quantization=conversion.quantization,
            details=conversion.details,
            notes=conversion.notes,
            metadata=request.metadata,
        )
        artifact = _verify(exporter, artifact, network, request, order)
        if evaluation is not None:
            artifact = replace(artifact, task=evaluation.report(open_session(artifact), PyTorchSession(network)))
        if artifact.audit is not None:
            check_audit(artifact.audit, order.precision, file=path.name)
        (folder / manifest.name).write_text(artifact.to_json(), encoding="utf-8")
    return replace(artifact, path=path)


def _verify(exporter: Exporter, artifact: Artifact, network: Network, request: Request, order: Order) -> Artifact:
    tolerance = order.bounds
    try:
        return exporter.verify(artifact, network, tolerance=tolerance)
    except ParityError as error:
        wider = None
        if error.report is not None and order.tolerance is None:
            wider = rounding_tolerance(network, error.report, order.precision)
        if wider is None:
            raise explain(error, exporter, artifact, network, request, tolerance=tolerance) from error
    tolerance, own_error = wider
    note = (
        f"PyTorch's own {order.precision} outputs are {own_error:.1g} from float64 (relative L2) on the inputs "
        f"compared, so the file was held to {tolerance}."
    )
    artifact = exporter.verify(artifact, network, tolerance=tolerance)
    return replace(artifact, notes=(*artifact.notes, note))


def read_evaluation(order: Order, network: Network) -> Evaluation | None:
    """The samples and the metric that an order names, if it does."""
    if order.evaluation is None:
        if order.max_drop is not None:
            raise InputError(f"`evaluation` must be given beside `max_drop`, got None beside {order.max_drop:g}.")
        return None
    return Evaluation.from_data(order.evaluation, network.signature, metric=order.metric, max_drop=order.max_drop)


def _with_evaluation(request: Request, evaluation: Evaluation | None) -> Request:
    if evaluation is None:
        return request
    options = request.quantization
    if options.max_drop is None:
        options = replace(options, max_drop=evaluation.max_drop)
    return replace(request, evaluate=evaluation.of, quantization=options)


def build_request(order: Order, network: Network) -> tuple[Request, Network]:
    """The request for the exporter; real inputs that it may not calibrate on become samples to verify on."""
    request = Request(precision=order.precision, quantization=order.quantization, tolerance=order.tolerance)
    if order.precision != "int8":
        if order.calibration is not None:
            raise InputError(
                f"`calibration` must be left out unless precision='int8', got it with {order.precision!r}."
            )
        if is_quantized(network):
            raise QuantizationError(
                f"`precision` must be 'int8' for a network that rounds to int8 by itself, got {order.precision!r}; "
                f"strip_qat(model) takes its quantisers off."
            )
        return request, network
    if order.calibration is None:
        if is_quantized(network):
            return request, network
        raise InputError(
            "`calibration` must be given for precision='int8', got None: pass the training data, or a loader or "
            "tensors of some hundred real inputs. Only a network from quantisation-aware training does without."
        )
    options = order.quantization
    calibration = Calibration.from_data(
        order.calibration, network.signature, samples=options.samples, seed=options.seed
    )
    return replace(request, calibration=calibration), with_samples(network, calibration.held_out)


def _described(order: Order, request: Request, network: Network, exporter: Exporter) -> ModelMetadata:
    metadata = metadata_from(order.metadata)
    if order.preprocessing is not None:
        metadata = with_preprocessing_in_graph(metadata, order.preprocessing)
    return describe(
        metadata,
        network.signature,
        precision=order.precision,
        tolerance=order.bounds,
        calibration=None if request.calibration is None else request.calibration.record,
        versions=exporter.versions,
    )
