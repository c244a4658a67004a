"""What a build may do, and the names of what it reads and writes."""

from dataclasses import dataclass

SPECIFICATION = "build.json"
GRAPH = "model.onnx"
ENGINE = "model.engine"
RECORD = "model.engine.json"
LAYERS = "model.layers.json"
_HARDWARE = ("this", "ampere_plus", "same_compute_capability")
_WEIGHTS = ("embedded", "refittable", "stripped")


class BuildError(RuntimeError):
    """An engine that cannot be built, or is not what was asked for."""


class UnavailableError(BuildError):
    """TensorRT or a GPU is not here."""


@dataclass(frozen=True)
class BuildOptions:
    """What TensorRT may do when it builds.

    Args:
        workspace_bytes: Most memory of the GPU that one layer may use while it runs, bytes; ``None`` for all of it.
        optimization_level: From 0, fast to build, to 5, fast to run.
        tf32: Whether float32 products may be rounded to TF32's 10 bits of mantissa, with relative errors near 1e-3.
        version_compatible: Whether later versions of TensorRT may load the engine; it can be slower.
        hardware: GPUs that may load it: ``"this"`` kind, ``"ampere_plus"`` for Ampere and later, or
            ``"same_compute_capability"``; all but the first can be slower.
        weights: ``"embedded"`` in the engine; ``"refittable"``, so that others of the same shapes can take their place;
            or ``"stripped"``, for an engine without weights, which are read from the graph when it is loaded.
        sparse_weights: Whether to use 2:4 sparse kernels; they help if the weights are 2:4 sparse.
        dla_core: Deep learning accelerator to run on; ``None`` for the GPU.
        gpu_fallback: Whether layers that a DLA lacks run on the GPU; otherwise they are an error.
        timing_cache: File that keeps measurements between builds; ``None`` for one beside the engine.

    Raises:
        ValueError: If a value is not one of the above.

    Example:
        >>> BuildOptions(hardware="ampere_plus").weights
        'embedded'
    """

    workspace_bytes: int | None = None
    optimization_level: int = 3
    tf32: bool = False
    version_compatible: bool = False
    hardware: str = "this"
    weights: str = "embedded"
    sparse_weights: bool = False
    dla_core: int | None = None
    gpu_fallback: bool = True
    timing_cache: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name, allowed in (("hardware", _HARDWARE), ("weights", _WEIGHTS), ("optimization_level", range(6))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {tuple(allowed)}, got {getattr(self, name)!r}.")
        if self.workspace_bytes is not None and (type(self.workspace_bytes) is not int or self.workspace_bytes < 1):
            raise ValueError(f"`workspace_bytes` must be None or above 0, got {self.workspace_bytes!r}.")
        if self.dla_core is not None and (type(self.dla_core) is not int or self.dla_core < 0):
            raise ValueError(f"`dla_core` must be None or a whole number of at least 0, got {self.dla_core!r}.")
