"""The search for an int8 version of a network: recipes first, then layers back into floating point, by sensitivity."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from exporters.artifact import Artifact
from exporters.capture import capture
from exporters.errors import ConversionError, InputError
from exporters.exporter import Request
from exporters.layers import COMPUTING, layer_name
from exporters.network import Network
from exporters.parity import TOLERANCES
from exporters.quantization.calibration import Calibration
from exporters.quantization.layer_errors import layer_sensitivities
from exporters.quantization.report import QuantizationReport, Trial
from exporters.quantization.selection import Recipe, choose
from exporters.session import Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.signature import Signature

Model = TypeVar("Model")
# A fifth closer than the bound on the file: other inputs are compared then, and some trials are run in PyTorch.
_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(Generic[Model]):
    """What the search has to know of a runtime.

    Args:
        recipes: Names of the recipes that suit the network, best guess first.
        quantize: Quantises the network by a recipe, with these layers in floating point.
        open_session: Runs a quantised model.
        left_in_float: Names of the layers that a quantised model computes in floating point.
        fallbacks: For recipes that round between the layers, too, the one that does not: layers are put back in that.
    """

    recipes: Sequence[str]
    quantize: Callable[[str, frozenset[str]], Model]
    open_session: Callable[[Model], Session]
    left_in_float: Callable[[Model], tuple[str, ...]]
    fallbacks: Mapping[str, str] = field(default_factory=dict)


def search(network: Network, request: Request, runtime: Runtime[Model]) -> tuple[Model, QuantizationReport]:
    """Quantise a network by the recipe that comes closest, and put back what that loses too much by.

    Every recipe is tried on samples held out of calibration. Where the best of them falls short of a cosine a fifth
    closer than the tolerance asks for, 0.992 by default, or loses more than ``max_drop`` of the task's metric, its most
    sensitive layers go back to floating point: a sixteenth of all, then twice as many and so on up to three quarters,
    until it does not, or the time is over.

    Args:
        network: The network.
        request: Real inputs, options and the task's metric.
        runtime: How its runtime quantises.

    Returns:
        The best model, and what was tried.

    Raises:
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met in time.
        InputError: If the options do not fit the network or each other.
    """
    if request.calibration is None:
        raise InputError("`calibration` must be given to quantise a network that was trained without it, got None.")
    options = request.quantization
    recipes = [options.recipe] if options.recipe != "auto" else list(runtime.recipes)
    known = dict.fromkeys([*runtime.recipes, *runtime.fallbacks.values()])
    if not set(recipes) <= set(known):
        raise InputError(f"`recipe` must be 'auto' or one of {list(known)}, got {options.recipe!r}.")
    if options.max_drop is not None and request.evaluate is None:
        raise InputError("`max_drop` needs the task's metric, got no evaluation; give `evaluation` and `metric`.")
    run = _Search(network, request, request.calibration, runtime)
    run.attempt({name: (name, _layers_in(network, options.keep_float)) for name in recipes})
    if not run.good:
        run.put_back()
    return run.finish()


@dataclass(slots=True)
class _Search(Generic[Model]):
    network: Network
    request: Request
    calibration: Calibration
    runtime: Runtime[Model]
    start: float = field(default_factory=time.monotonic)
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    chosen: tuple[str, frozenset[str]] = ("", frozenset())
    model: Model | None = None
    reference: Session = field(init=False)
    target: float | None = None

    def __post_init__(self) -> None:
        self.reference = PyTorchSession(self.network)
        if self.request.evaluate is not None and self.request.quantization.max_drop is not None:
            self.target = self.request.evaluate(self.reference) - self.request.quantization.max_drop

    @property
    def seconds_left(self) -> float:
        return self.request.quantization.time_limit_s - (time.monotonic() - self.start)

    @property
    def good(self) -> bool:
        if self.best is None:
            return False
        bound = (self.request.tolerance or TOLERANCES["int8"]).cosine
        if bound is not None and (self.best.cosine or 0.0) < 1 - _SHARE * (1 - bound):
            return False
        return self.target is None or (self.best.metric is not None and self.best.metric >= self.target)

    def attempt(self, ways: dict[str, tuple[str, frozenset[str]]]) -> None:
        """Try recipes with layers in floating point, by the name of the trial; keep the best of all so far."""
        models: dict[str, Model] = {}

        def opener(name: str) -> Callable[[], Session]:
            def open_session() -> Session:
                models[name] = self.runtime.quantize(*ways[name])
                return self.runtime.open_session(models[name])

            return open_session

        index, trials = choose(
            [Recipe(name, opener(name)) for name in ways],
            self.reference,
            self.calibration.held_out,
            evaluate=self.request.evaluate,
            time_limit_s=max(self.seconds_left, 0.0),
        )
        self.trials += trials
        winner = trials[index]
        if self.best is None or _rank(winner) > _rank(self.best):
            self.best, self.chosen, self.model = winner, ways[winner.recipe], models[winner.recipe]

    def put_back(self) -> None:
        """Put the most sensitive layers of the best recipe back into floating point until it is good."""
        recipe, kept = self.chosen
        order = [entry.layer for entry in layer_sensitivities(self.network, self.calibration)]
        order = [layer for layer in order if layer not in kept]
        if recipe in self.runtime.fallbacks:
            recipe = self.runtime.fallbacks[recipe]
            self.attempt({recipe: (recipe, kept)})
        # With more of its layers in float a network is hardly in int8.
        most = len(order) * 3 // 4
        count = max(1, len(order) // 16)
        while count <= most and not self.good and self.seconds_left > 0:
            name = f"{recipe}, {count} most sensitive layers in float"
            self.attempt({name: (recipe, kept | frozenset(order[:count]))})
            count = most if count < most < 2 * count else 2 * count

    def finish(self) -> tuple[Model, QuantizationReport]:
        if self.best is None or self.model is None:
            raise ConversionError("`model` must be quantisable, but no recipe was tried.")
        if self.target is not None and not self.good:
            raise ConversionError(
                f"the quantised network must reach a metric of {self.target:.6g} (`max_drop` below PyTorch's), but "
                f"the best of {len(self.trials)} trials, {self.best.recipe!r}, reached {self.best.metric:.6g} with a "
                f"cosine of {self.best.cosine:.6g}; allow a larger `max_drop` or, if it ended early, `time_limit_s`."
            )
        report = QuantizationReport(
            recipe=self.best.recipe,
            trials=tuple(self.trials),
            calibration=self.calibration.record,
            left_in_float=self.runtime.left_in_float(self.model),
        )
        return self.model, report


def draft(path: Path, format: str, signature: Signature) -> Artifact:
    """An unfinished file as the sessions take it, to be tried and thrown away."""
    return Artifact(
        path=path,
        files=(),
        format=format,
        precision="int8",
        signature=signature,
        options={},
        versions={},
        verified_on="nothing yet",
        parity=None,
    )


def _rank(trial: Trial) -> tuple[float, float]:
    return (trial.metric or 0.0, trial.cosine or 0.0)


def _layers_in(network: Network, paths: Sequence[str]) -> frozenset[str]:
    """The computing layers at or below module paths."""
    layers = {layer_name(node) for node in capture(network).graph.nodes if node.target in COMPUTING}
    if not layers:
        raise ConversionError("`model` must have a convolution, linear layer or matrix product to quantise, got none.")
    found = {path: {layer for layer in layers if layer == path or layer.startswith(f"{path}.")} for path in paths}
    for path, inside in found.items():
        if not inside:
            raise InputError(f"`keep_float` must name layers of the network, got {path!r}; it has {sorted(layers)}.")
    return frozenset[str]().union(*found.values())
