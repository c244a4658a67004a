"""Export to ExecuTorch, verified in its runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from executorch.runtime import Runtime
from executorch.version import __version__ as executorch_version

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.capture import capture
from exporters.errors import ConversionError
from exporters.executorch.backends import BACKENDS, Backend, core_ml
from exporters.executorch.delegation import delegation, delegation_notes
from exporters.executorch.lowering import lower
from exporters.executorch.program import Program, read_program
from exporters.exporter import Conversion, Request
from exporters.network import Network, as_type
from exporters.parity import Precision, Tolerance
from exporters.quantization.pt2e import quantize
from exporters.readback import check_signature
from exporters.sessions.executorch import ExecuTorchSession
from exporters.verification import verify_session


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuTorchExporter:
    """Writes a ``.pte`` file.

    Args:
        backend: What computes: ``"xnnpack"`` for CPUs; ``"portable"`` for ExecuTorch's own kernels, slow but without
            limits on dynamic sizes; ``"coreml"`` for Apple's systems, whose program is evaluated op by op elsewhere.
    """

    backend: Backend = "xnnpack"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.backend not in get_args(Backend):
            raise ValueError(
                f"`backend` must be one of {', '.join(map(repr, get_args(Backend)))}, got {self.backend!r}."
            )

    @property
    def format(self) -> str:
        """Name of the format."""
        return "executorch"

    @property
    def suffix(self) -> str:
        """Suffix of the file that ExecuTorch loads."""
        return ".pte"

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        return {"torch": str(torch.__version__), "executorch": str(executorch_version)}

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Types in which the delegate computes."""
        return BACKENDS[self.backend].precisions

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        report = None
        if request.precision == "int8":
            network, report = quantize(network, request)
        elif request.precision == "fp16" and not BACKENDS[self.backend].rounds:
            network = as_type(network, torch.float16)
        content = lower(capture(network), backend=self.backend, precision=request.precision, metadata=request.metadata)
        path.write_bytes(content)
        program = read_program(path)
        _check_kernels(program)
        return Conversion(
            notes=(*_precision_notes(program, request.precision), *delegation_notes(program)),
            quantization=report,
            details={"delegation": delegation(program)},
        )

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check sizes, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        program = read_program(artifact.path)
        signature = artifact.signature
        check_signature(
            signature, program.found(signature.inputs, outputs=False), program.found(signature.outputs, outputs=True)
        )
        if not BACKENDS[self.backend].runs_here:
            return _verify_core_ml(artifact, network, program, tolerance)
        left = artifact.quantization.left_in_float if artifact.quantization else ()
        audit = PrecisionAudit(weight_bytes=program.weight_bytes, operators=program.computing, left_in_float=left)
        return verify_session(replace(artifact, audit=audit), network, ExecuTorchSession, tolerance=tolerance)


def _verify_core_ml(artifact: Artifact, network: Network, program: Program, tolerance: Tolerance) -> Artifact:
    if len(program.delegates) != 1 or program.outside:
        return replace(artifact, verified_on="structure and types; not executed")
    opener = core_ml("PartitionSession")
    audit = opener(artifact, threads=1, precision="fp32").audit
    return verify_session(replace(artifact, audit=audit), network, opener, tolerance=tolerance)


def _precision_notes(program: Program, precision: Precision) -> tuple[str, ...]:
    wide = program.weight_bytes.get("float32", 0)
    if precision != "fp16" or not wide:
        return ()
    return (f"XNNPACK keeps the weights of convolutions in float32 ({wide} bytes) and computes in float16 from them.",)


def _check_kernels(program: Program) -> None:
    kernels = Runtime.get().operator_registry.operator_names
    missing = sorted(name for name in program.outside if name not in kernels)
    if missing:
        raise ConversionError(
            f"`model` must use operators that ExecuTorch's runtime has kernels for, got {', '.join(missing)}; "
            f"replace them in its forward."
        )
