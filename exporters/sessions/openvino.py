"""OpenVINO models, on the CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters.artifact import Artifact
from exporters.errors import ArtifactError, ExportError, PlatformError
from exporters.quiet import no_telemetry
from exporters.session import InferencePrecision, failed_run

with no_telemetry():
    import openvino

_PRECISION_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


class OpenVINOSession:
    """A network compiled by OpenVINO for one request at a time.

    Args:
        artifact: The exported ``.xml`` file, with its weights beside it.
        threads: Threads that one call may use.
        precision: ``"fp32"`` computes in float32, a bf16 file in bfloat16, and in an int8 file what was left in
            floating point in float32. ``"default"`` leaves the choice to OpenVINO, which is bfloat16 on processors that
            have it: faster, with a relative error near 1e-2.

    Raises:
        ArtifactError: If OpenVINO cannot load the file.
        ExportError: If OpenVINO did not take the precision that was asked for.
        PlatformError: If the file is bf16 and the processor has no bfloat16.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:
        self._core = openvino.Core()
        self._config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
        asked = "bf16" if artifact.precision == "bf16" else "fp32" if precision == "fp32" else None
        if asked == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise PlatformError(
                f"`artifact` must suit the processor, got {artifact.path.name} in bf16, which this one computes in "
                f"float32 only; export it with precision='fp32' or 'int8'."
            )
        if asked is not None:
            self._config["INFERENCE_PRECISION_HINT"] = {"bf16": "bf16", "fp32": "f32"}[asked]
        try:
            self.compiled = self._core.compile_model(artifact.path, "CPU", self._config)
        except RuntimeError as error:
            raise ArtifactError(
                f"`path` must be a file that OpenVINO compiles, got {artifact.path}: {error}"
            ) from error
        self._request = self.compiled.create_infer_request()
        self._artifact = artifact
        self._tracer: tuple[list[str], Any] | None = None
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        active = _PRECISION_NAMES.get(hint, hint)
        if asked is not None and active != asked:
            raise ExportError(
                f"`precision` must be in effect, but OpenVINO computes in {active} although asked for {asked}."
            )
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "openvino",
            "runtime_version": openvino.__version__,
            "device": "CPU",
            "threads": int(self.compiled.get_property("INFERENCE_NUM_THREADS")),
            "streams": int(self.compiled.get_property("NUM_STREAMS")),
            "active_precision": "int8" if artifact.precision == "int8" else active,
            "float_precision": active,
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._artifact.signature.check(inputs)
        try:
            self._request.infer(dict(inputs), share_inputs=True)
        except RuntimeError as error:
            raise failed_run("OpenVINO", inputs, error) from error
        # Copies: the request writes its next result into the same memory.
        return {spec.name: self._request.get_tensor(spec.name).data.copy() for spec in self.outputs}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the intermediate values of one batch, from a copy of the model whose values are all outputs.

        Args:
            inputs: As for `run`.

        Returns:
            Arrays by the name of their node in the captured program.

        Raises:
            InputError: If names, dtypes or shapes do not fit.
        """
        self._artifact.signature.check(inputs)
        if self._tracer is None:
            self._tracer = self._with_all_outputs()
        names, request = self._tracer
        request.infer(dict(inputs), share_inputs=True)
        first = len(self.outputs)
        return {name: request.get_output_tensor(first + index).data.copy() for index, name in enumerate(names)}

    def counting_request(self) -> Any:
        """A request of a copy with the same settings that counts the time of every operation."""
        compiled = self._core.compile_model(self._artifact.path, "CPU", {**self._config, "PERF_COUNT": "YES"})
        return compiled.create_infer_request()

    def _with_all_outputs(self) -> tuple[list[str], Any]:
        model = self._core.read_model(self._artifact.path)
        # exporters.openvino_names.carry_names: two parts name a value.
        values = [node for node in model.get_ordered_ops() if node.get_friendly_name().count("/") == 1]
        results = {port.get_node().input_value(0).get_node().get_friendly_name() for port in model.outputs}
        values = [node for node in values if node.get_friendly_name() not in results]
        model.add_outputs([node.output(0) for node in values])
        compiled = self._core.compile_model(model, "CPU", self._config)
        return [node.get_friendly_name().rpartition("/")[2] for node in values], compiled.create_infer_request()
