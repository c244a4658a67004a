"""The Core ML delegate, which needs coremltools beside ExecuTorch."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from executorch.exir.schema import DelegateCall

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.errors import ConversionError
from exporters.executorch.program import decode, instructions
from exporters.mil.audit import audit_program
from exporters.mil.package import read_package
from exporters.parity import Precision
from exporters.quiet import errors_only, root_logger_kept
from exporters.session import InferencePrecision
from exporters.sessions.coreml import EvaluatorSession
from exporters.signature import Signature, TensorSpec

with root_logger_kept(), errors_only("coremltools", "torch.utils._pytree"):
    import coremltools
    from executorch.backends.apple.coreml import executorchcoreml
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner


def partitioners(precision: Precision) -> Sequence[Any]:
    """What gives Core ML all that it can compute, on iOS 18 and macOS 15 or newer."""
    types = {"fp32": coremltools.precision.FLOAT32, "fp16": coremltools.precision.FLOAT16}
    specifications = CoreMLBackend.generate_compile_specs(
        compute_precision=types[precision], minimum_deployment_target=coremltools.target.iOS18
    )
    return [CoreMLPartitioner(compile_specs=specifications)]


@dataclass(frozen=True, slots=True)
class _Saved:
    path: Path
    signature: Signature


class PartitionSession:
    """The only partition of a ``.pte`` file, its Core ML program run op by op in PyTorch.

    Args:
        artifact: The file; one partition computes the whole network.
        threads: Threads that one call may use.
        precision: Makes no difference; the types are those of the program.

    Raises:
        ConversionError: If the program has an operator that cannot be evaluated.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, self._names = _unpack(artifact, Path(folder))
            package = read_package(path)
            types = {tensor.name: tensor.dtype for tensor in package.inputs}
            saved = _Saved(path, _renamed(artifact.signature, self._names, types))
            self._inner = EvaluatorSession(saved, threads=threads, precision=precision)
        self._types = types
        self._signature = artifact.signature
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self.audit: PrecisionAudit = audit_program(package.main)
        self.properties = self._inner.properties

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        names = {name: self._names[name] for name in inputs}
        found = self._inner.run({names[name]: array.astype(self._types[names[name]]) for name, array in inputs.items()})
        return {spec.name: found[self._names[spec.name]] for spec in self.outputs}


def _unpack(artifact: Artifact, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the package inside a file to ``folder``; its path, and its names by the network's."""
    program, plan = decode(artifact.path)
    payload = program.backend_delegate_data[plan.delegates[0].processed.index].data
    if not executorchcoreml.unflatten_directory_contents(bytes(payload), str(folder)):
        raise ConversionError(
            f"{artifact.path.name} must hold a Core ML package, but its partition cannot be unpacked."
        )
    root = folder / "lowered_module"
    metadata = json.loads((root / "metadata.json").read_text(encoding="utf-8"))
    call = next(instructions(plan, DelegateCall))
    found = dict(zip(call.args, [*metadata["inputNames"], *metadata["outputNames"]], strict=True))
    specs = [*artifact.inputs, *artifact.outputs]
    return root / "model.mlpackage", {
        spec.name: found[index] for spec, index in zip(specs, [*plan.inputs, *plan.outputs], strict=True)
    }


def _renamed(signature: Signature, names: Mapping[str, str], types: Mapping[str, str]) -> Signature:
    def rename(spec: TensorSpec) -> TensorSpec:
        name = names[spec.name]
        return replace(spec, name=name, dtype=types.get(name, spec.dtype))

    return replace(
        signature, inputs=tuple(map(rename, signature.inputs)), outputs=tuple(map(rename, signature.outputs))
    )
