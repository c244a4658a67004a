"""The Core ML delegate, which needs coremltools beside ExecuTorch."""

from collections.abc import Sequence
from typing import Any

from exporters.parity import Precision
from exporters.quiet import errors_only, root_logger_kept

with root_logger_kept(), errors_only("coremltools", "torch.utils._pytree"):
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner


def partitioners(precision: Precision) -> Sequence[Any]:
    """What gives Core ML all that it can compute, on iOS 18 and macOS 15 or newer."""
    types = {"fp32": coremltools.precision.FLOAT32, "fp16": coremltools.precision.FLOAT16}
    specifications = CoreMLBackend.generate_compile_specs(
        compute_precision=types[precision], minimum_deployment_target=coremltools.target.iOS18
    )
    return [CoreMLPartitioner(compile_specs=specifications)]
