"""How a runtime is opened: only what the artifact's runtime has may differ from the default."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

Hint = Literal["latency", "throughput"]
RUNTIME_PRECISIONS = ("fp32", "default")
OF_FORMAT = {
    "spinning": ("onnx",),
    "hint": ("openvino",),
    "streams": ("openvino",),
    "precision": ("openvino",),
    "cuda_graph": ("tensorrt",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """Settings of the runtime.

    Args:
        precision: ``"fp32"`` computes no lower than the types of the file; ``"default"`` lets OpenVINO choose.
        spinning: Whether worker threads of ONNX Runtime wait for work without sleeping: faster alone, at the price of
            the processor's whole attention.
        hint: What OpenVINO tunes for.
        streams: Requests that OpenVINO works on at once; ``None`` for 1 with the latency hint and OpenVINO's choice
            with the throughput hint.
        cuda_graph: Whether TensorRT's launches are recorded once and replayed.

    Raises:
        ValueError: If a value is not one of these.
        TypeError: If a value is of another type.

    Example:
        >>> from exporters.profiling.runner.settings import RuntimeSettings
        >>> RuntimeSettings(streams=2).check_format("onnx")
        Traceback (most recent call last):
        ValueError: `streams` is a setting of openvino, and `target` is of format onnx; leave it at None.
    """

    precision: Literal["fp32", "default"] = "fp32"
    spinning: bool = False
    hint: Hint = "latency"
    streams: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if self.precision not in RUNTIME_PRECISIONS:
            raise ValueError(f"`precision` must be one of {RUNTIME_PRECISIONS}, got {self.precision!r}.")
        if self.hint not in get_args(Hint):
            raise ValueError(f"`hint` must be one of {get_args(Hint)}, got {self.hint!r}.")
        if self.streams is not None and (type(self.streams) is not int or self.streams < 1):
            raise ValueError(f"`streams` must be None or a whole number of at least 1, got {self.streams!r}.")
        for name in ("spinning", "cuda_graph"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` must be True or False, got {getattr(self, name)!r}.")

    def check_format(self, format: str) -> None:
        """Raise `ValueError` if a setting was changed that the runtime of ``format`` does not have."""
        for field in fields(self):
            if getattr(self, field.name) != field.default and format not in OF_FORMAT[field.name]:
                raise ValueError(
                    f"`{field.name}` is a setting of {' and '.join(OF_FORMAT[field.name])}, and `target` is of format "
                    f"{format}; leave it at {field.default}."
                )
