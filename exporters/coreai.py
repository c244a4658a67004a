"""Export to Core AI's asset, verified in Core AI's own interpreter."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from coreai.authoring import AIProgram
from coreai.authoring.asset import AIModelAsset
from coreai.runtime import AIModelAssetMetadata

from exporters.artifact import Artifact
from exporters.capture import capture
from exporters.coreai_audit import audit_program
from exporters.coreai_conversion import to_core_ai
from exporters.errors import ConversionError
from exporters.exporter import Conversion, Request
from exporters.integers import with_32_bit_integers
from exporters.network import Network, as_type
from exporters.parity import Precision, Tolerance
from exporters.quantization.after_training import quantize
from exporters.readback import FoundTensor, check_signature
from exporters.sessions.coreai import ENTRY_POINT, CoreAISession
from exporters.signature import DimensionRange
from exporters.verification import verify_session

_TYPES: Mapping[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_DTYPES = ("float32", "int32", "bool", "uint8")
_UNBOUNDED = 2**63 - 1
_FIRST_MOMENT = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreAIExporter:
    """Writes an ``.aimodel`` folder, which Core AI loads on iOS 27, macOS 27 and later.

    The written folder is run in the interpreter that comes with Core AI's package, on any system. Sizes that were
    declared dynamic are unbounded in the file. In fp16 and bf16 the whole graph has that type between float32 inputs
    and outputs; in int8 it has explicit quantisation and integer weights.

    Args:
        debug_information: Whether the file tells from which line of Python each operator comes, for Apple's profiler.
    """

    debug_information: bool = False

    @property
    def format(self) -> str:
        """Name of the format."""
        return "coreai"

    @property
    def suffix(self) -> str:
        """Suffix of the asset's folder."""
        return ".aimodel"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that Core AI has."""
        return ("fp32", "fp16", "bf16", "int8")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        packages = {name: version(name) for name in ("coreai-core", "coreai-torch")}
        return {"torch": torch.__version__, **packages}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        report = None
        if request.precision == "int8":
            network, report = quantize(network, request)
        elif request.precision in _TYPES:
            network = as_type(network, _TYPES[request.precision])
        narrow = with_32_bit_integers(network, runtime="Core AI", dtypes=_DTYPES)
        program = to_core_ai(capture(narrow), narrow.signature, debug_information=self.debug_information)
        _save(program, path, request.metadata)
        return Conversion(quantization=report)

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check names, types and numbers of the written asset; see `exporters.exporter.Exporter.verify`."""
        narrow = with_32_bit_integers(network, runtime="Core AI", dtypes=_DTYPES)
        artifact = replace(artifact, signature=narrow.signature)
        try:
            asset = AIModelAsset.load(artifact.path)
            summary = asset.summary(include_statistics=False)
            tensors = summary.function_inputs(ENTRY_POINT), summary.function_outputs(ENTRY_POINT)
        except (RuntimeError, KeyError) as error:
            raise ConversionError(
                f"{artifact.path.name} must be readable by Core AI, but it is not: {error}"
            ) from error
        check_signature(artifact.signature, *map(_found, tensors))
        artifact = replace(artifact, audit=audit_program(asset.program, artifact.precision))
        return verify_session(artifact, narrow, CoreAISession, tolerance=tolerance)


def _save(program: AIProgram, path: Path, metadata: Mapping[str, str]) -> None:
    described = AIModelAssetMetadata()
    for key, text in metadata.items():
        described.set_custom(key, text)
    program.save_asset(path, metadata=described).update_metadata(_without_date)
    # Core AI writes the keys in an order that changes from run to run.
    file = path / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")), indent=2, sort_keys=True) + "\n", "utf-8")


def _without_date(metadata: AIModelAssetMetadata) -> None:
    metadata.creation_date = _FIRST_MOMENT


def _found(tensors: Sequence[tuple[str, str]]) -> list[FoundTensor]:
    """Tensors from Core AI's descriptions of them, such as ``NDArray (Float32, ? x 3 x 8 x 8)`` with a times sign."""
    found = []
    for name, text in tensors:
        dtype, *sizes = re.findall(r"\w+|\?", text.removeprefix("NDArray"))
        shape = tuple(DimensionRange(0, _UNBOUNDED) if size == "?" else int(size) for size in sizes)
        found.append(FoundTensor(name, dtype.lower(), shape))
    return found
