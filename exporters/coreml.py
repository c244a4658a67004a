"""Export to a Core ML program, whose structure and weights are checked on any system."""

import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.export import ExportedProgram

from exporters.artifact import Artifact
from exporters.capture import capture
from exporters.coreml_weights import check_weights
from exporters.errors import ConversionError, ParityError
from exporters.exporter import Conversion, Request
from exporters.network import TORCH_ERRORS, Network
from exporters.parity import Precision, Tolerance
from exporters.quiet import errors_only, no_progress_bars
from exporters.readback import FoundTensor, check_signature
from exporters.rounding import check_half
from exporters.signature import DimensionRange, Signature, TensorSpec

with errors_only("coremltools", "torch.utils._pytree"):
    # On Linux coremltools logs that Apple's libraries are missing, and that newer versions of others are untested.
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.converters.mil.frontend.torch import is_torch_fx_node_supported

DeploymentTarget = Literal["iOS16", "iOS17", "iOS18", "iOS26"]
_DTYPES = {"float32": "float32", "int32": "int32", "int64": "int32"}
_ARRAY_TYPES = {65568: "float32", 131104: "int32", 65552: "float16", 65600: "float64"}
_UNBOUNDED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMLExporter:
    """Writes an ``.mlpackage`` folder that holds an ML program.

    Core ML runs on Apple's systems only. Here the written package is read back and its inputs, outputs, types, number
    of layers and weights are compared with the network's; it is not executed.

    Args:
        minimum_deployment_target: Oldest system that loads the package; newer ones have more operators.
    """

    minimum_deployment_target: DeploymentTarget = "iOS17"

    def __post_init__(self) -> None:
        """Check the options."""
        targets = get_args(DeploymentTarget)
        if self.minimum_deployment_target not in targets:
            raise ValueError(
                f"`minimum_deployment_target` must be one of {', '.join(map(repr, targets))}, "
                f"got {self.minimum_deployment_target!r}."
            )

    @property
    def format(self) -> str:
        """Name of the format."""
        return "coreml"

    @property
    def suffix(self) -> str:
        """Suffix of the package folder."""
        return ".mlpackage"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of the packages."""
        return ("fp32", "fp16")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert."""
        return {package.__name__: str(package.__version__) for package in (torch, coremltools)}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        program = _supported(capture(network))
        with tempfile.TemporaryDirectory() as draft, no_progress_bars(), errors_only("coremltools"):
            model = self._to_core_ml(program, core_ml_signature(network.signature), request.precision, draft)
            model.user_defined_metadata.update(request.metadata)
            model.save(str(path))
        return Conversion()

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:  # noqa: ARG002
        """Check structure and weights of the written package; see `exporters.exporter.Exporter.verify`."""
        signature = core_ml_signature(network.signature)
        model = coremltools.models.MLModel(str(artifact.path), skip_model_load=True)
        specification = model.get_spec()
        main = load_program(specification, specification.specificationVersion, model.weights_dir).functions["main"]
        check_signature(signature, _found_inputs(specification), _found_outputs(main))
        constants = _float_constants(main)
        _check_precision(constants, artifact.precision)
        program = _supported(capture(network))
        _check_layers(program, main)
        found, total = check_weights(program, list(constants.values()), precision=artifact.precision)
        notes = [
            f"{found} of {total} weights of the network were found in the package, equal up to rounding"
            + ("." if found == total else "; the converter may have merged the others into their neighbours.")
        ]
        if artifact.precision == "fp16":
            worst = max(output.relative_l2 for output in check_half(network).outputs)
            notes.append(f"Rounded to float16 in PyTorch, the outputs keep a relative L2 error of {worst:.2g}.")
        if signature.dimensions:
            notes.append("Flexible shapes usually keep Core ML off the Neural Engine.")
        return replace(
            artifact, signature=signature, verified_on="structure and weights; not executed", notes=tuple(notes)
        )

    def _to_core_ml(self, program: ExportedProgram, signature: Signature, precision: Precision, folder: str) -> Any:
        precisions = {"fp32": coremltools.precision.FLOAT32, "fp16": coremltools.precision.FLOAT16}
        outputs = [
            coremltools.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in signature.outputs
        ]
        try:
            return coremltools.convert(
                program,
                inputs=[_tensor_type(spec, signature) for spec in signature.inputs],
                outputs=outputs,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[self.minimum_deployment_target],
                compute_precision=precisions[precision],
                skip_model_load=True,
                package_dir=str(Path(folder, "draft.mlpackage")),
            )
        except (*TORCH_ERRORS, NotImplementedError) as error:
            traceback.clear_frames(
                error.__traceback__
            )  # frees coremltools' temporary folder now, not at some later time
            raise ConversionError(
                f"`model` must be convertible to Core ML, but coremltools raised {type(error).__name__}: {error}"
                f"{' Try dynamic_batch=False.' if signature.dimensions else ''}"
            ) from error


def core_ml_signature(signature: Signature) -> Signature:
    """The signature as Core ML has it: 64-bit integers become 32-bit.

    Raises:
        ConversionError: If Core ML has no such input or output type.
    """
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype not in _DTYPES:
            raise ConversionError(
                f"`{spec.name}` must be float32, int32 or int64 for Core ML, got {spec.dtype}; convert it in forward."
            )
    return replace(
        signature,
        inputs=tuple(replace(spec, dtype=_DTYPES[spec.dtype]) for spec in signature.inputs),
        outputs=tuple(replace(spec, dtype=_DTYPES[spec.dtype]) for spec in signature.outputs),
    )


@errors_only("coremltools")
def _supported(program: ExportedProgram) -> ExportedProgram:
    program = program.run_decompositions({})
    table = {**torch.export.default_decompositions(), torch.ops.aten.alias.default: lambda tensor: tensor}
    while missing := {
        node.target
        for node in program.graph.nodes
        if node.op == "call_function" and not is_torch_fx_node_supported(node) and node.target in table
    }:
        program = program.run_decompositions({target: table[target] for target in missing})
    return program


def _tensor_type(spec: TensorSpec, signature: Signature) -> Any:
    ranges = signature.dimensions
    shape = [
        coremltools.RangeDim(ranges[size].smallest, ranges[size].largest, default=ranges[size].smallest)
        if isinstance(size, str)
        else size
        for size in spec.shape
    ]
    return coremltools.TensorType(name=spec.name, shape=shape, dtype=np.dtype(spec.dtype).type)


def _found_inputs(specification: Any) -> list[FoundTensor]:
    return [
        FoundTensor(feature.name, _ARRAY_TYPES[feature.type.multiArrayType.dataType], _found_shape(feature))
        for feature in specification.description.input
    ]


def _found_shape(feature: Any) -> tuple[int | DimensionRange, ...]:
    array = feature.type.multiArrayType
    ranges = [(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges]
    if not ranges:
        return tuple(array.shape)
    return tuple(low if low == high else DimensionRange(low, high if high >= 0 else _UNBOUNDED) for low, high in ranges)


def _found_outputs(main: Any) -> list[FoundTensor]:
    return [
        FoundTensor(
            output.name,
            np.dtype(coremltools.converters.mil.mil.types.nptype_from_builtin(output.dtype)).name,
            tuple(size if isinstance(size, int) else DimensionRange(0, _UNBOUNDED) for size in output.shape),
        )
        for output in main.outputs
    ]


def _float_constants(main: Any) -> dict[str, np.ndarray]:
    values = {
        operation.name: np.asarray(operation.outputs[0].val)
        for operation in main.operations
        if operation.op_type == "const"
    }
    return {name: value for name, value in values.items() if value.dtype.kind == "f"}


def _check_precision(constants: Mapping[str, np.ndarray], precision: Precision) -> None:
    expected = {"fp32": np.float32, "fp16": np.float16}[precision]
    wrong = [name for name, value in constants.items() if value.ndim > 1 and value.dtype != expected]
    if wrong:
        raise ConversionError(f"every weight of the package must be {np.dtype(expected)}, but not so are {wrong}.")


def _check_layers(program: ExportedProgram, main: Any) -> None:
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    operations = [operation.op_type for operation in main.operations]
    for kind in ("conv", "linear"):
        expected = sum(target.startswith(f"aten.{kind}") for target in targets)
        actual = sum(operation in (kind, f"{kind}_transpose") for operation in operations)
        if actual < expected:
            raise ParityError(f"the package must have at least {expected} layers of kind `{kind}`, got {actual}.")
