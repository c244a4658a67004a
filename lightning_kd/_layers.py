"""The layers of a network that are worth comparing, and a reader that reduces what they return on the spot."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from lightning_kd.errors import TapError, TermError
from lightning_kd.taps import module_paths, pick_tensor, resolve_module

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def repeated_units(model: nn.Module) -> list[str]:
    """Paths of a network's blocks and stages; of one without two of them, of the leaves that compute something."""
    modules = module_paths(model)
    units = [path for path, module in modules.items() if path and _is_unit(module, modules[path.rpartition(".")[0]])]
    return units if len(units) > 1 else [path for path, module in modules.items() if _is_computing_leaf(module)]


def find_layers(model: nn.Module, patterns: Sequence[str], name: str) -> list[str]:
    """Paths that match any of ``patterns``; a pattern that matches none raises with the nearest paths."""
    paths = list(module_paths(model))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            resolve_module(model, pattern, name)
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns)]


class LayerReader:
    """Reduces the output of each layer the moment it appears, so that no feature outlives its layer.

    Args:
        model: The network.
        patterns: Layers by path or pattern; ``None`` takes the `repeated_units` that turn out to be readable.
        reduce: What is kept of a feature of shape ``(samples, features)``.
        name: What the network is called in messages.

    Raises:
        TapError: If a pattern names no module.
    """

    def __init__(
        self, model: nn.Module, patterns: Sequence[str] | None, reduce: Callable[[Tensor], Tensor], name: str
    ) -> None:
        modules = module_paths(model)
        paths = repeated_units(model) if patterns is None else find_layers(model, patterns, name)
        self.layers = tuple(paths)
        self.name = name
        self._model = type(model).__name__
        self._named = patterns is not None
        self._reduce = reduce
        self._ordered = False
        self._samples: int | None = None
        self._found: dict[str, list[Tensor | str]] = {}
        self._with_positions: set[str] = set()
        self._seen: list[tuple[weakref.ref[Tensor], int, str]] = []
        self._hooks = ExitStack()
        for path in paths:
            self._hooks.callback(modules[path].register_forward_hook(partial(self._read, path)).remove)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    @contextmanager
    def reading(self, samples: int) -> Iterator[None]:
        """Read the layers while the network runs once, in this block, on that many samples."""
        self._samples, self._found, self._seen = samples, {}, []
        try:
            yield
        finally:
            self._samples = None

    def reduced(self) -> list[Tensor]:
        """What was kept of each of ``layers`` in the last run; the first run puts them in order and drops duplicates.

        Raises:
            TapError: If a layer could not be read.
            TermError: If one is not finite.
        """
        if not self._ordered:
            self._put_in_order()
        return [self._result(path) for path in self.layers]

    @property
    def positions(self) -> tuple[bool, ...]:
        """Whether each of ``layers`` returns more than one vector per sample: a map, or tokens."""
        return tuple(path in self._with_positions for path in self.layers)

    def _put_in_order(self) -> None:
        ran = [path for path in self._found if self._named or self._why_not(path) is None]
        self.layers = tuple(ran) + tuple(path for path in self.layers if self._named and path not in ran)
        self._ordered = True
        if not self.layers:
            raise TapError(
                f"the {self.name} ({self._model}) has no layer that runs once and returns a row per sample: name the "
                f"layers to compare, {self.name}_layers=[...]."
            )

    def _why_not(self, path: str) -> str | None:
        results = self._found.get(path, [])
        if len(results) != 1:
            return f"its module ran {len(results)} times"
        return results[0] if isinstance(results[0], str) else None

    def _result(self, path: str) -> Tensor:
        reason = self._why_not(path)
        if reason is not None:
            raise TapError(f"the {self.name} layer {path!r} cannot be compared: {reason}.")
        result = self._found[path][0]
        if not isinstance(result, Tensor) or not result.isfinite().all():
            raise TermError(f"the features of the {self.name} layer {path!r} are not finite (NaN or infinity).")
        return result

    def _read(self, path: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if self._samples is not None:
            self._found.setdefault(path, []).append(self._keep(path, output, self._samples))

    def _keep(self, path: str, output: Any, samples: int) -> Tensor | str:
        """What is kept of ``output``, or why it cannot be compared."""
        try:
            feature = pick_tensor(output, None, "its output")
        except TapError as error:
            return str(error)
        if feature.ndim < 2 or len(feature) != samples or not feature.is_floating_point():
            return f"it returned {feature.dtype} of shape {tuple(feature.shape)} for {samples} samples"
        version = feature._version  # noqa: SLF001 - in-place layers return the tensor they were given
        for reference, seen_version, seen_path in self._seen:
            if not self._named and reference() is feature and seen_version == version:
                return f"it returned the very tensor of {seen_path!r}"
        self._seen.append((weakref.ref(feature), version, path))
        if sum(size > 1 for size in feature.shape[1:]) > 1:
            self._with_positions.add(path)
        return self._reduce(feature.flatten(1))


def _is_unit(module: nn.Module, parent: nn.Module) -> bool:
    if next(module.children(), None) is None or isinstance(module, _CONTAINERS):
        return False
    weights = sum(parameter.ndim > 1 for parameter in module.parameters())
    alike = sum(type(child) is type(module) for child in parent.children())
    # A convolution with its normalisation is no block, however often a block repeats it.
    return weights >= 1 if isinstance(parent, _CONTAINERS) else weights >= 2 and alike >= 2


def _is_computing_leaf(module: nn.Module) -> bool:
    if next(module.children(), None) is not None:
        return False
    return next(module.parameters(), None) is not None or "activation" in type(module).__module__
