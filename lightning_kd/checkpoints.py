"""Weights from a file into a network, strictly, without running code from the file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_kd.errors import SetupError

SHOWN = 3


def load_weights(model: nn.Module, path: Path | str, *, prefix: str | None = None) -> None:
    """Fill a network with the weights of a checkpoint: every one of them, and no other.

    Args:
        model: The network.
        path: A Lightning checkpoint (``.ckpt``), a ``state_dict`` saved by ``torch.save``, or ``.safetensors``.
        prefix: What precedes the network's names in the file, such as ``"model."`` where a LightningModule holds the
            network as ``self.model``; entries without it are left out. ``None`` finds it.

    Raises:
        SetupError: If the file cannot be read, holds more than tensors and plain values, or does not fit the network;
            if more than one prefix fits.

    Example:
        >>> import tempfile
        >>> student = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weights = {"model.weight": torch.ones(1, 2), "model.bias": torch.zeros(1)}
        ...     torch.save({"state_dict": weights}, folder + "/student.ckpt")
        ...     load_weights(student, folder + "/student.ckpt")
        >>> student.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    state = _read(path)
    wanted = model.state_dict()
    prefix = _find_prefix(state, wanted, path) if prefix is None else prefix
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    try:
        model.load_state_dict(stripped, strict=True)
    except RuntimeError as error:
        missing, unexpected = (
            sorted(a - b) for a, b in ((wanted.keys(), stripped.keys()), (stripped.keys(), wanted.keys()))
        )
        details = f"{_some('missing', missing)}{_some('unexpected', unexpected)}" or f" {error}"
        raise SetupError(
            f"`checkpoint` must hold exactly the weights of {type(model).__name__} under the prefix {prefix!r}, got "
            f"{path.name}:{details}"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise SetupError(f"`checkpoint` must be a readable file of weights, got {path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise SetupError(
            f"`checkpoint` must hold tensors and plain values only, got {path.name} with other objects, which are not "
            f"loaded because they run code; save `model.state_dict()` on its own."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SetupError(f"`checkpoint` must hold a state_dict, got {path.name} with {type(content).__name__}.")
    return dict(state)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _find_prefix(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> str:
    """The one prefix under which every wanted name is found; ``""`` where none is, for the message that follows."""
    first = min(wanted, default="")
    prefixes = [key.removesuffix(first) for key in found if f".{key}".endswith(f".{first}")]
    named = [prefix for prefix in prefixes if all(prefix + key in found for key in wanted)]
    fitting = [
        prefix for prefix in named if all(found[prefix + key].shape == tensor.shape for key, tensor in wanted.items())
    ]
    if len(fitting) > 1:
        choices = ", ".join(map(repr, fitting))
        raise SetupError(f"`prefix` must be given, because {path.name} holds the network more than once: {choices}.")
    return next(iter(fitting or named), "")


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" {what} {', '.join(map(repr, names[:SHOWN]))}{more};"
