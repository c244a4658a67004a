"""Export to TensorRT: a graph that says all its types, verified in two other runtimes, and the build of the engine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import onnxruntime
import onnxscript
import torch
from onnx import TensorProto

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.errors import ConversionError, MissingRuntimeError
from exporters.exporter import Conversion, Request
from exporters.network import Network, as_type
from exporters.onnx_casting import FIRST_HALF_SCALES, narrowed
from exporters.onnx_graph import found_tensors, save_model, to_onnx
from exporters.parity import Precision, Tolerance
from exporters.quantization.report import QuantizationReport
from exporters.quiet import no_telemetry
from exporters.readback import check_signature
from exporters.rounding import check_half
from exporters.runtimes import SESSIONS, import_runtime
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.sessions.openvino import OpenVINOSession
from exporters.tensorrt.build import build_engine
from exporters.tensorrt.lint import lint_graph
from exporters.tensorrt.options import GRAPH, BuildError, BuildOptions, UnavailableError
from exporters.tensorrt.quantize import quantize
from exporters.tensorrt.specification import LAUNCHER, write_specification
from exporters.tensorrt.typed import audit_types
from exporters.verification import verify_session

with no_telemetry():
    import openvino

BuildWhen = Literal["auto", "always", "never"]
# TensorRT 10.3, which JetPack 6 has, parses operators up to 20; convolutions have had bfloat16 since 22.
_OPSET, _OPSET_BF16 = 20, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTExporter:
    """Writes a folder that holds all that TensorRT needs, and the engine where there is a GPU.

    ``model.onnx`` says the type of every value, because a strongly typed engine computes in just these: float32,
    float16 or bfloat16 between float32 inputs and outputs, or symmetric Q/DQ pairs for int8. ``build.json`` has the
    shapes to tune for and the options, ``build.py`` builds the engine on the machine that will run it.

    Args:
        build: ``"auto"`` builds the engine if TensorRT and a GPU are here, and says so in the artifact if not;
            ``"always"`` raises if not; ``"never"`` leaves it to ``build.py``.
        opset: Version of the operator set; ``None`` for 20, which every TensorRT 10 and 11 parses, or 22 for bf16.
        unquantized: With int8, type of what is not quantised: ``"fp16"`` or ``"fp32"``.
        options: What TensorRT may do when it builds.

    Raises:
        ValueError: If an option is not one of the above.
    """

    build: BuildWhen = "auto"
    opset: int | None = None
    unquantized: Literal["fp16", "fp32"] = "fp16"
    options: BuildOptions = field(default_factory=BuildOptions)

    def __post_init__(self) -> None:
        """Check the options."""
        if self.build not in get_args(BuildWhen):
            raise ValueError(f"`build` must be one of {get_args(BuildWhen)}, got {self.build!r}.")
        if self.unquantized not in ("fp16", "fp32"):
            raise ValueError(f"`unquantized` must be 'fp16' or 'fp32', got {self.unquantized!r}.")
        if self.opset is not None and not 18 <= self.opset <= onnx.defs.onnx_opset_version():
            raise ValueError(
                f"`opset` must be None or from 18 to {onnx.defs.onnx_opset_version()}, got {self.opset!r}."
            )

    @property
    def format(self) -> str:
        """Name of the format."""
        return "tensorrt"

    @property
    def suffix(self) -> str:
        """Suffix of the folder."""
        return ".tensorrt"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """All precisions there are."""
        return ("fp32", "fp16", "bf16", "int8")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run; TensorRT's own is in the record of the engine."""
        packages = (torch, onnx, onnxscript, onnxruntime, openvino)
        return {package.__name__: str(package.__version__) for package in packages}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write the folder ``path``; see `exporters.exporter.Exporter.convert`."""
        self._check(network, request.precision)
        graph, report = self._graph(network, request)
        lint_graph(graph)
        path.mkdir()
        save_model(graph, path / GRAPH, metadata=request.metadata)
        specification = write_specification(path, network.signature, precision=request.precision, options=self.options)
        record, reason = self._build(path)
        note = f"No engine was built: {reason} Build it on its target: python {path.name}/{LAUNCHER}"
        return Conversion(
            notes=() if record else (note,),
            quantization=report,
            details={
                "engine": record,
                "profiles": specification["profiles"],
                "trtexec": specification["trtexec"],
                "timing_cache": self.options.timing_cache or "beside the engine",
            },
        )

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check names, ranges, types and numbers; see `exporters.exporter.Exporter.verify`.

        The graph is run in ONNX Runtime and in OpenVINO, and the engine, if there is one, in TensorRT. ONNX Runtime has
        no bfloat16 kernels for processors, so that OpenVINO alone runs those.
        """
        model = onnx.load(artifact.path / GRAPH)
        check_signature(artifact.signature, *map(found_tensors, (model.graph.input, model.graph.output)))
        if artifact.precision == "fp16":
            check_half(network, tolerance=tolerance)
        sessions: list[Any] = (
            [] if artifact.precision == "bf16" else [partial(OnnxRuntimeSession, fuse_quantized=False)]
        )
        graph = replace(artifact, path=artifact.path / GRAPH)
        checked = [
            verify_session(graph, network, session, tolerance=tolerance) for session in (*sessions, OpenVINOSession)
        ]
        audit = audit_types(model, artifact.precision)
        if artifact.details["engine"] is not None:
            session = import_runtime(SESSIONS, "tensorrt")
            checked.insert(0, verify_session(artifact, network, session, tolerance=tolerance))
            audit = PrecisionAudit.from_content(artifact.details["engine"]["audit"])
        figures = {each.verified_on: asdict(each.parity)["outputs"] for each in checked if each.parity is not None}
        return replace(
            artifact,
            parity=checked[0].parity,
            verified_on=" and ".join(each.verified_on for each in checked),
            audit=audit,
            details={**artifact.details, "parity": figures},
        )

    def _check(self, network: Network, precision: Precision) -> None:
        if self.opset is not None and precision == "bf16" and self.opset < _OPSET_BF16:
            raise ConversionError(f"`opset` must be at least {_OPSET_BF16} for bf16, got {self.opset}.")
        if self._half_scales(precision) and self.opset is not None and self.opset < FIRST_HALF_SCALES:
            raise ConversionError(
                f"`opset` must be at least {FIRST_HALF_SCALES} for int8 with unquantized='fp16', whose scales are "
                f"float16, got {self.opset}; raise it, or give unquantized='fp32'."
            )
        if self.options.dla_core is None:
            return
        if precision not in ("fp16", "int8"):
            raise ConversionError(f"`precision` must be 'fp16' or 'int8' on a DLA, got {precision!r}.")
        if network.signature.dimensions:
            raise ConversionError(
                f"every size must be fixed on a DLA, got {dict(network.signature.dimensions)}; give no dynamic sizes."
            )

    def _half_scales(self, precision: Precision) -> bool:
        return precision == "int8" and self.unquantized == "fp16"

    def _graph(self, network: Network, request: Request) -> tuple[onnx.ModelProto, QuantizationReport | None]:
        opset = self.opset or (_OPSET_BF16 if request.precision == "bf16" else _OPSET)
        if request.precision == "fp16":
            return to_onnx(as_type(network, torch.float16), opset=opset), None
        graph = to_onnx(network, opset=opset)
        if request.precision == "fp32":
            return graph, None
        if request.precision == "bf16":
            # PyTorch's exporter leaves float32 weights where it folds a batch norm of bfloat16 into a convolution.
            return narrowed(graph, TensorProto.BFLOAT16), None
        return quantize(graph, network, request, finish=narrowed if self.unquantized == "fp16" else None)

    def _build(self, path: Path) -> tuple[dict[str, Any] | None, str]:
        """The record of the engine, or why there is none."""
        if self.build == "never":
            return None, "build='never'."
        try:
            return build_engine(path), ""
        except UnavailableError as error:
            if self.build == "always":
                raise MissingRuntimeError(str(error)) from error
            return None, str(error)
        except BuildError as error:
            raise ConversionError(str(error)) from error
