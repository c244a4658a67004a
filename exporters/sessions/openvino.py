"""OpenVINO models, on the CPU."""

from collections.abc import Mapping

import numpy as np

from exporters.artifact import Artifact
from exporters.errors import ArtifactError, ExportError
from exporters.quiet import no_telemetry
from exporters.session import InferencePrecision

with no_telemetry():
    import openvino

_PRECISION_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


class OpenVINOSession:
    """A network compiled by OpenVINO for one request at a time.

    Args:
        artifact: The exported ``.xml`` file, with its weights beside it.
        threads: Threads that one call may use.
        precision: ``"fp32"`` computes in float32. ``"default"`` leaves the choice to OpenVINO, which is bfloat16 on
            processors that have it: faster, with a relative error near 1e-2.

    Raises:
        ArtifactError: If OpenVINO cannot load the file.
        ExportError: If OpenVINO did not take the precision that was asked for.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:
        config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
        if precision == "fp32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            self._compiled = openvino.Core().compile_model(artifact.path, "CPU", config)
        except RuntimeError as error:
            raise ArtifactError(
                f"`path` must be a file that OpenVINO compiles, got {artifact.path}: {error}"
            ) from error
        self._request = self._compiled.create_infer_request()
        self._signature = artifact.signature
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        active = _PRECISION_NAMES.get(hint, hint)
        if precision == "fp32" and active != "fp32":
            raise ExportError(
                f"`precision` must be in effect, but OpenVINO computes in {active} although asked for fp32."
            )
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "openvino",
            "runtime_version": openvino.__version__,
            "device": "CPU",
            "threads": int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "active_precision": active,
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        self._request.infer(dict(inputs), share_inputs=True)
        # Copies: the request writes its next result into the same memory.
        return {spec.name: self._request.get_tensor(spec.name).data.copy() for spec in self.outputs}
