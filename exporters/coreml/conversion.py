"""From a captured network to a model of coremltools."""

import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from exporters.capture import capture
from exporters.coreml.decomposition import supported
from exporters.coreml.options import ColorLayout, DeploymentTarget
from exporters.errors import CaptureError, ConversionError
from exporters.mil.toolkit import coremltools
from exporters.network import TORCH_ERRORS, Network
from exporters.quiet import errors_only, no_progress_bars
from exporters.signature import BATCH, Signature, TensorSpec

_MOST_SHAPES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a conversion has to know.

    Args:
        target: Oldest system that loads the package.
        half: Which operations compute in float16; ``None`` for none.
        enumerated: Whether every accepted size is listed instead of a range.
        images: Layout of the inputs that are images, by name.
    """

    target: DeploymentTarget
    half: Callable[[Any], bool] | None
    enumerated: bool
    images: dict[str, ColorLayout]


@contextmanager
def converted(network: Network, settings: Settings) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Convert a network; the model lives in a temporary folder until the end of the block.

    The network's one capture is converted. Where a size other than the batch is dynamic and that fails, or sizes are
    enumerated, which coremltools does not accept for a capture, the network is traced by `torch.jit.trace` instead.

    Args:
        network: The network, with inputs and outputs as Core ML has them.
        settings: What the model has to be.

    Yields:
        The model, and notes for its user.

    Raises:
        CaptureError: If the network cannot be captured.
        ConversionError: If coremltools refuses it.
    """
    with tempfile.TemporaryDirectory() as folder, no_progress_bars(), errors_only("coremltools"):
        if settings.enumerated:
            why = "enumerated shapes need it"
        else:
            try:
                program = _in_known_operators(capture(network))
                model = _convert(program, network.signature, settings, folder)
            except (CaptureError, ConversionError) as error:
                if set(network.signature.dimensions) <= {BATCH}:
                    raise
                why = str(error).partition("\n")[0]
            else:
                yield model, ()
                return
        yield (
            _convert(_traced(network), network.signature, settings, folder),
            (f"Converted through torch.jit.trace: {why}",),
        )


def _in_known_operators(program: ExportedProgram) -> ExportedProgram:
    try:
        return supported(program)
    except TORCH_ERRORS as error:
        raise ConversionError(
            f"`model` must be convertible to Core ML, but PyTorch cannot write it in the operators of coremltools: "
            f"{type(error).__name__}: {error}"
        ) from error


def _traced(network: Network) -> Any:
    try:
        with torch.no_grad(), errors_only():
            return torch.jit.trace(network.module, network.example, check_trace=False)  # type: ignore[no-untyped-call]
    except TORCH_ERRORS as error:
        raise CaptureError(
            f"`model` must be traceable by torch.jit.trace, but {type(error).__name__} was raised: {error}"
        ) from error


def _convert(program: Any, signature: Signature, settings: Settings, folder: str) -> Any:
    precision = (
        coremltools.precision.FLOAT32
        if settings.half is None
        else coremltools.transform.FP16ComputePrecision(op_selector=settings.half)
    )
    try:
        return coremltools.convert(
            program,
            inputs=[_input_type(spec, signature, settings) for spec in signature.inputs],
            outputs=[coremltools.TensorType(name=spec.name, dtype=_type(spec)) for spec in signature.outputs],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target[settings.target],
            compute_precision=precision,
            pass_pipeline=_passes(),
            skip_model_load=True,
            package_dir=str(Path(folder, f"{len(list(Path(folder).iterdir()))}.mlpackage")),
        )
    except (*TORCH_ERRORS, NotImplementedError) as error:
        # Frees coremltools' temporary folder now, not at some later time.
        traceback.clear_frames(error.__traceback__)
        raise ConversionError(
            f"`model` must be convertible to Core ML, but coremltools raised {type(error).__name__}: {error}"
            f"{' Try fixed sizes.' if signature.dimensions else ''}"
        ) from error


def _passes() -> Any:
    """The converter's passes without the one that makes a product and a sum a batch norm.

    That one leaves the batch norm its epsilon of 1e-5, which shrinks the product by 5e-6.
    """
    pipeline = coremltools.PassPipeline.DEFAULT
    pipeline.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    return pipeline


def _type(spec: TensorSpec) -> Any:
    return np.dtype(spec.dtype).type


def _input_type(spec: TensorSpec, signature: Signature, settings: Settings) -> Any:
    dimensions = signature.dimensions
    if spec.name in settings.images:
        return coremltools.ImageType(name=spec.name, shape=spec.shape, color_layout=settings.images[spec.name])
    if settings.enumerated and any(isinstance(size, str) for size in spec.shape):
        shape: Any = coremltools.EnumeratedShapes(shapes=_shapes(spec, signature))
    else:
        shape = [
            coremltools.RangeDim(dimensions[size].smallest, dimensions[size].largest, default=dimensions[size].typical)
            if isinstance(size, str)
            else size
            for size in spec.shape
        ]
    return coremltools.TensorType(name=spec.name, shape=shape, dtype=_type(spec))


def _shapes(spec: TensorSpec, signature: Signature) -> Sequence[tuple[int, ...]]:
    names = [size for size in spec.shape if isinstance(size, str)]
    ranges = [signature.dimensions[name] for name in names]
    steps = [range(sizes.smallest, sizes.largest + 1, sizes.multiple) for sizes in ranges]
    count = np.prod([len(each) for each in steps])
    if count > _MOST_SHAPES:
        raise ConversionError(
            f"`sizes` can enumerate at most {_MOST_SHAPES} shapes, got {count} for input `{spec.name}`; "
            f"declare a larger `multiple` for {', '.join(f'`{name}`' for name in names)}."
        )
    return [spec.at(dict(zip(names, sizes, strict=True))) for sizes in product(*steps)]
