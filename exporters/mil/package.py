"""A saved package, read back as it lies on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.errors import ArtifactError
from exporters.mil.toolkit import coremltools, load_program, types
from exporters.quiet import errors_only
from exporters.readback import FoundTensor
from exporters.signature import DimensionRange

_ARRAY_TYPES = {65568: "float32", 131104: "int32", 65552: "float16", 65600: "float64"}
_UNBOUNDED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Package:
    """A package on disk.

    Args:
        specification: What the package says about itself.
        main: The function ``main`` of its program.
    """

    specification: Any
    main: Any

    @property
    def inputs(self) -> list[FoundTensor]:
        """What the package takes; an image is the float32 tensor that it becomes."""
        return [_found_input(feature) for feature in self.specification.description.input]

    @property
    def outputs(self) -> list[FoundTensor]:
        """What the program returns."""
        return [_found_output(variable) for variable in self.main.outputs]

    @property
    def images(self) -> frozenset[str]:
        """Names of the inputs that are images."""
        inputs = self.specification.description.input
        return frozenset(feature.name for feature in inputs if feature.type.WhichOneof("Type") == "imageType")

    @property
    def sizes(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The shapes that an input accepts, for every input that enumerates them."""
        found = {
            feature.name: tuple(tuple(shape.shape) for shape in _array(feature).enumeratedShapes.shapes)
            for feature in self.specification.description.input
            if feature.name not in self.images
        }
        return {name: shapes for name, shapes in found.items() if shapes}


@errors_only("coremltools")
def read_package(path: Path) -> Package:
    """Read a saved ``.mlpackage``.

    Args:
        path: The package folder.

    Returns:
        The package.

    Raises:
        ArtifactError: If coremltools cannot read it.
    """
    try:
        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        specification = model.get_spec()
        main = load_program(specification, specification.specificationVersion, model.weights_dir).functions["main"]
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        raise ArtifactError(f"`path` must be a package that coremltools reads, got {path}: {error}") from error
    return Package(specification, main)


def _array(feature: Any) -> Any:
    return feature.type.multiArrayType


def _found_input(feature: Any) -> FoundTensor:
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        channels = 1 if image.ColorSpace.Name(image.colorSpace).startswith("GRAYSCALE") else 3
        return FoundTensor(feature.name, "float32", (1, channels, image.height, image.width))
    return FoundTensor(feature.name, _ARRAY_TYPES[_array(feature).dataType], tuple(_found_sizes(_array(feature))))


def _found_sizes(array: Any) -> Iterator[int | DimensionRange]:
    if array.enumeratedShapes.shapes:
        for sizes in zip(*(shape.shape for shape in array.enumeratedShapes.shapes), strict=True):
            yield sizes[0] if len(set(sizes)) == 1 else DimensionRange(min(sizes), max(sizes))
    elif not array.shapeRange.sizeRanges:
        yield from array.shape
    else:
        for size in array.shapeRange.sizeRanges:
            low, high = size.lowerBound, size.upperBound
            yield low if low == high else DimensionRange(low, high if high >= 0 else _UNBOUNDED)


def _found_output(variable: Any) -> FoundTensor:
    return FoundTensor(
        variable.name,
        np.dtype(types.nptype_from_builtin(variable.dtype)).name,
        tuple(size if isinstance(size, int) else DimensionRange(0, _UNBOUNDED) for size in variable.shape),
    )
