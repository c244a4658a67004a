"""Which of several quantisations is the best: the one whose outputs are closest, or whose task metric is highest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporters.errors import ConversionError, ExportError
from exporters.parity import OutputParity, compare
from exporters.quantization.calibration import Sample
from exporters.quantization.report import Trial
from exporters.session import Session

Evaluate = Callable[[Session], float]
"""The task's metric of a session; higher is better."""


class Candidate(Protocol):
    """One way to quantise a network, not yet done."""

    @property
    def recipe(self) -> str:
        """Its name in the report."""

    def open(self) -> Session:
        """Quantise, and return a session that runs the result.

        Raises:
            ConversionError: If the recipe cannot be applied to this network.
        """


@dataclass(frozen=True, slots=True)
class Recipe:
    """A candidate made of a name and a function."""

    recipe: str
    open: Callable[[], Session]


def choose(
    candidates: Sequence[Candidate],
    reference: Session,
    batches: Sequence[Sample],
    *,
    evaluate: Evaluate | None = None,
    time_limit_s: float = 600.0,
) -> tuple[int, tuple[Trial, ...]]:
    """Try every candidate and pick one.

    Args:
        candidates: What to try, in order of preference; at least one.
        reference: The network in floating point.
        batches: Real inputs that no candidate was calibrated on.
        evaluate: The task's metric. With it the highest metric wins, and among equals the highest cosine.
        time_limit_s: Time after which no further candidate is tried, s; the first is always tried.

    Returns:
        Index of the best candidate, and what came of every one that was tried.

    Raises:
        ConversionError: If every candidate failed; the message says why.
    """
    references = [reference.run(batch) for batch in batches]
    trials: list[Trial] = []
    start = time.monotonic()
    for candidate in candidates:
        if trials and time.monotonic() - start > time_limit_s:
            trials.append(Trial(recipe=candidate.recipe, failure=f"not tried: {time_limit_s:g} s were over"))
            continue
        try:
            session = candidate.open()
            outputs = [session.run(batch) for batch in batches]
            figures = [
                compare(spec.name, [out[spec.name] for out in outputs], [ref[spec.name] for ref in references])
                for spec in reference.outputs
            ]
            trials.append(_trial(candidate.recipe, figures, evaluate(session) if evaluate else None))
        except ExportError as error:
            trials.append(Trial(recipe=candidate.recipe, failure=str(error)))
    usable = [index for index, trial in enumerate(trials) if trial.failure is None]
    if not usable:
        reasons = "; ".join(f"{trial.recipe}: {trial.failure}" for trial in trials)
        raise ConversionError(f"`model` must be quantisable, but every recipe failed: {reasons}")
    return max(usable, key=lambda index: _rank(trials[index])), tuple(trials)


def _trial(recipe: str, figures: Sequence[OutputParity], metric: float | None) -> Trial:
    if any(figure.nonfinite for figure in figures):
        return Trial(recipe=recipe, failure="the outputs are not finite")
    worst = min(figures, key=lambda figure: figure.sqnr_db)
    cosine = min(figure.cosine for figure in figures)
    return Trial(recipe=recipe, cosine=cosine, sqnr_db=worst.sqnr_db if worst.relative_l2 > 0 else None, metric=metric)


def _rank(trial: Trial) -> tuple[float, float]:
    return (0.0 if trial.metric is None else trial.metric, -1.0 if trial.cosine is None else trial.cosine)
