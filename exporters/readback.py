"""What a written file says about itself, held against what was declared: converters narrow ranges silently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.errors import ConversionError
from exporters.signature import DimensionRange, Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class FoundTensor:
    """One input or output as the file has it; a dynamic dimension is its range."""

    name: str
    dtype: str
    shape: tuple[int | DimensionRange, ...]


def check_signature(declared: Signature, inputs: Sequence[FoundTensor], outputs: Sequence[FoundTensor]) -> None:
    """Raise unless a file takes and returns what was declared.

    Static dimensions of inputs must be static in the file and dynamic ones accept at least their range. Outputs may be
    dynamic in the file where the declaration is static: what they really are shows when the file is run.

    Args:
        declared: What was asked for.
        inputs: What the file takes, in any order.
        outputs: What it returns.

    Raises:
        ConversionError: If a name, dtype, size or range differs.
    """
    for kind, specs, found in (("input", declared.inputs, inputs), ("output", declared.outputs, outputs)):
        by_name = {tensor.name: tensor for tensor in found}
        names = [spec.name for spec in specs]
        if sorted(names) != sorted(tensor.name for tensor in found):
            raise ConversionError(f"the {kind}s of the file must be named {names}, got {[t.name for t in found]}.")
        for spec in specs:
            if not _fits(spec, by_name[spec.name], declared.dimensions, exact=kind == "input"):
                raise ConversionError(
                    f"{kind} `{spec.name}` of the file must be {spec.dtype} of shape {spec.shape} with "
                    f"{dict(declared.dimensions)}, got {by_name[spec.name].dtype} of shape {by_name[spec.name].shape}."
                )


def _fits(spec: TensorSpec, found: FoundTensor, dimensions: Mapping[str, DimensionRange], *, exact: bool) -> bool:
    if found.dtype != spec.dtype or len(found.shape) != len(spec.shape):
        return False
    for expected, actual in zip(spec.shape, found.shape, strict=True):
        if isinstance(expected, int):
            fits = actual == expected if exact or isinstance(actual, int) else True
        elif isinstance(actual, int):
            fits = False
        elif expected in dimensions:
            declared = dimensions[expected]
            fits = actual.minimum <= declared.smallest and actual.maximum >= declared.largest
        else:
            fits = True
        if not fits:
            return False
    return True
