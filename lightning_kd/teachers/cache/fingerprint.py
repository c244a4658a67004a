"""What a cache belongs to, as values that can be compared: weights, transforms and versions."""

import dataclasses
import enum
import functools
import hashlib
import json
import platform
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DECISIVE = ("numpy", "pillow", "timm", "torch", "torchvision")
_PLAIN = (str, int, float, bool, type(None))
_TRANSFORMS = ("transform", "transforms", "target_transform")


def weights_sha256(module: nn.Module) -> str:
    """Hash of a network's class, and of the names, types, shapes and values of its weights and buffers.

    Args:
        module: The network.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> before = weights_sha256(net)
        >>> _ = net.weight.data.add_(1e-3)
        >>> before == weights_sha256(net)
        False
    """
    digest = hashlib.sha256(_name(type(module)).encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what decides a pixel of an augmented image or a digit of a teacher's output, by distribution."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in DECISIVE:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found


def transform_of(dataset: Any) -> Any:
    """Describe a data set's class and transforms, and those of the data set that it wraps.

    Args:
        dataset: A data set; its attributes ``transform``, ``transforms``, ``target_transform`` and ``dataset`` are
            read, as torchvision and `torch.utils.data` name them.

    Returns:
        Plain values, see `describe`.
    """
    found = {name: describe(getattr(dataset, name)) for name in _TRANSFORMS if getattr(dataset, name, None) is not None}
    inner = getattr(dataset, "dataset", None)
    if inner is not None:
        found["dataset"] = transform_of(inner)
    return {"class": _name(type(dataset)), **found}


def describe(value: Any) -> Any:
    """Turn an object into plain values that are equal, in any process, if the object does the same.

    Objects become their class and their public attributes; functions their name and a hash of their code; arrays and
    tensors a hash of their values.

    Args:
        value: A transform, or anything that one holds.

    Returns:
        What JSON can hold.

    Example:
        >>> from torchvision.transforms import v2
        >>> describe(v2.CenterCrop(8))
        {'class': 'torchvision.transforms.v2._geometry.CenterCrop', 'size': [8, 8]}
    """
    return _describe(value, frozenset())


def _describe(value: Any, above: frozenset[int]) -> Any:
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, _PLAIN):
        return value
    if id(value) in above:
        return "above"
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value, above | {id(value)})
    attributes = {name: part for name, part in _attributes(value) if not name.startswith("_") and name != "training"}
    return {"class": _name(type(value)), **_describe_mapping(attributes, above | {id(value)})}


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        yield from ((part.name, getattr(value, part.name)) for part in dataclasses.fields(value))
    yield from getattr(value, "__dict__", {}).items()
    if isinstance(value, nn.Module):
        yield from value.named_children()
        yield from value.named_parameters(recurse=False)
        yield from value.named_buffers(recurse=False)


def _describe_mapping(value: Mapping[Any, Any], above: frozenset[int]) -> Any:
    return {str(key): _describe(value[key], above) for key in sorted(value, key=str)}


def _describe_sequence(value: Sequence[Any], above: frozenset[int]) -> Any:
    return [_describe(part, above) for part in value]


def _describe_set(value: Any, above: frozenset[int]) -> Any:
    return sorted((_describe(part, above) for part in value), key=str)


def _describe_array(value: Any, _: frozenset[int]) -> Any:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return {"array": hashlib.sha256(array.tobytes()).hexdigest(), "shape": list(array.shape)}


def _describe_partial(value: Any, above: frozenset[int]) -> Any:
    return {"function": _describe(value.func, above), "with": _describe([value.args, value.keywords], above)}


def _describe_method(value: Any, above: frozenset[int]) -> Any:
    return {"method": value.__func__.__qualname__, "of": _describe(value.__self__, above)}


def _describe_function(value: Any, above: frozenset[int]) -> Any:
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    captured = _describe([value.__defaults__, value.__kwdefaults__, held], above)
    return {"function": _name(value), "code": _code_hash(value.__code__), "holds": captured}


def _code_hash(code: types.CodeType) -> str:
    parts = [_code_hash(part) if isinstance(part, types.CodeType) else repr(part) for part in code.co_consts]
    return hashlib.sha256(repr((code.co_code, code.co_names, parts)).encode()).hexdigest()[:16]


def _describe_name(value: Any, _: frozenset[int]) -> Any:
    return _name(value)


def _describe_text(value: Any, _: frozenset[int]) -> Any:
    return str(value)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


_WRITERS: Sequence[tuple[Any, Callable[[Any, frozenset[int]], Any]]] = (
    ((list, tuple), _describe_sequence),
    (Mapping, _describe_mapping),
    ((set, frozenset), _describe_set),
    ((Tensor, np.ndarray, np.generic), _describe_array),
    (functools.partial, _describe_partial),
    (types.MethodType, _describe_method),
    (types.FunctionType, _describe_function),
    ((type, types.BuiltinFunctionType), _describe_name),
    ((torch.dtype, torch.device, PurePath, np.dtype), _describe_text),
)


def sha256_of(description: Any) -> str:
    """Hash of what `describe` gave."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def first_difference(old: Any, new: Any, place: str = "") -> str | None:
    """Where two descriptions first differ, and how.

    Args:
        old: What was.
        new: What is.
        place: Path of both, for the message.

    Returns:
        A sentence without its full stop, or ``None`` if they are equal.

    Example:
        >>> first_difference({"a": [1, 2]}, {"a": [1, 3]})
        'a.1 was 2 and is 3'
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        pairs = [(str(name), old.get(name), new.get(name)) for name in names]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(index), *both) for index, both in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else f"{place} was {_brief(old)} and is {_brief(new)}"
    differences = (first_difference(a, b, f"{place}.{name}" if place else name) for name, a, b in pairs)
    return next((text for text in differences if text is not None), None)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
