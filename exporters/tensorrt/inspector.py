"""The types in which an engine really computes, from the JSON of TensorRT's engine inspector."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from exporters.tensorrt.options import BuildError

_COMPUTING = re.compile(r"conv(?!ert)|gemm|mat(rix_?)?mul|mha|attention|myelin|foreignnode", re.IGNORECASE)
_TYPES = (
    ("bfloat16", re.compile(r"\bBF16\b|BFloat16", re.IGNORECASE), 2),
    ("float8", re.compile(r"\bFP8", re.IGNORECASE), 1),
    ("float16", re.compile(r"\bFP16\b|\bHalf\b|\bFloat16\b", re.IGNORECASE), 2),
    ("int8", re.compile(r"\bInt8\b", re.IGNORECASE), 1),
    ("float32", re.compile(r"\bFP32\b|\bFloat\b|\bFloat32\b|\bTF32\b", re.IGNORECASE), 4),
)
_WANTED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}


def audit_layers(information: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Types in which an engine computes, from the inspector's JSON.

    TensorRT 10 gives a tensor one text, ``Format/Datatype``; TensorRT 11 has ``Format`` and ``DataType``.

    Args:
        information: The inspector's JSON, made with detailed profiling verbosity.
        precision: What was asked for: ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``.

    Returns:
        ``operators``: convolutions, matrix products and the like by type; ``weight_bytes`` by type, where layers list
        their weights; ``left_in_float``: names of those that are not in ``precision``.

    Example:
        >>> layer = {"Name": "stem", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Half"}]}
        >>> audit_layers({"Layers": [layer]}, "fp16")
        {'weight_bytes': {}, 'operators': {'float16': 1}, 'left_in_float': []}
    """
    weights: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for layer in _computing(information):
        held = layer.get("Weights") or {}
        held_kind, size_bytes = _type_of(str(held.get("Type", "")))
        if held_kind != "unknown":
            weights[held_kind] = weights.get(held_kind, 0) + size_bytes * int(held.get("Count", 0))
        found = [_type_of(_text(tensor))[0] for tensor in layer.get("Inputs", ())]
        known = [kind for kind in (*found, held_kind) if kind != "unknown"]
        kinds[str(layer["Name"])] = known[0] if known else "unknown"
    counts = {kind: list(kinds.values()).count(kind) for kind in dict.fromkeys(kinds.values())}
    left = [name for name, kind in kinds.items() if kind != _WANTED[precision]]
    return {"weight_bytes": weights, "operators": counts, "left_in_float": left}


def check_precision(audit: Mapping[str, Any], precision: str) -> None:
    """Raise unless an engine computes in the precision that was asked for: everything, or for int8 something.

    Raises:
        BuildError: If it does not.
    """
    counts = audit["operators"]
    wanted = _WANTED[precision]
    others = {kind: count for kind, count in counts.items() if kind != wanted}
    if not counts.get(wanted) or (precision != "int8" and others):
        found = ", ".join(f"{count} in {kind}" for kind, count in counts.items()) or "none"
        raise BuildError(
            f"the engine must compute in {precision}, but its convolutions and matrix products are: {found}."
        )


def _computing(information: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for layer in information.get("Layers", ()):
        if isinstance(layer, str):
            raise BuildError(
                "the engine must be built with detailed profiling verbosity, but its layers have no types."
            )
        if any(_COMPUTING.search(str(layer.get(key, ""))) for key in ("LayerType", "ParameterType")):
            yield layer


def _text(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("DataType") or tensor.get("Format/Datatype") or tensor.get("Format") or "")


def _type_of(text: str) -> tuple[str, int]:
    return next(((name, size_bytes) for name, pattern, size_bytes in _TYPES if pattern.search(text)), ("unknown", 0))
