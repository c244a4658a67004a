"""What is checked once, on the first step: that every term really distils."""

from collections.abc import Collection
from typing import Any, Literal

from torch import Tensor

from lightning_kd.errors import TermError
from lightning_kd.taps import Observation

Allowance = Literal["zero", "frozen"]


def prove(terms: dict[str, Tensor], student: Observation, teacher: Observation, allow: Collection[Allowance]) -> None:
    """Check once, with one wait for the device, that every term really distils.

    Args:
        terms: Unweighted terms of one call.
        student: That call.
        teacher: The teacher's call.
        allow: What is accepted, see `Distiller`.

    Raises:
        TermError: If a term is zero, not finite or without gradient.
    """
    for name, term in terms.items():
        if not bool(term.isfinite()):
            raise TermError(f"the term {name!r} is {term.item()} on the first step; {_not_finite(student, teacher)}.")
        if "zero" not in allow and bool(term == 0):
            raise TermError(
                f"the term {name!r} is exactly 0 on the first step: nothing would be distilled. Is the teacher the "
                "student itself, or the batch too small to compare samples? If it is meant, pass allow=('zero',)."
            )
        if "frozen" not in allow and not term.requires_grad:
            raise TermError(
                f"the term {name!r} has no gradient: is the student frozen? If it is meant, allow=('frozen',)."
            )
    for tap, feature in student.features.items():
        if "frozen" not in allow and not feature.requires_grad:
            raise TermError(
                f"the student tap {tap.path!r} carries no gradient, so nothing there would learn: its layers are "
                "frozen, or run under activation checkpointing with use_reentrant=True (pass use_reentrant=False). "
                "If they are unfrozen later, pass allow=('frozen',)."
            )


def _not_finite(student: Observation, teacher: Observation) -> str:
    guilty = [
        f"the {name}'s {what}"
        for name, call in (("teacher", teacher), ("student", student))
        for what, value in [("input", call.inputs.tensors()), ("output", call.output), *_at_taps(call)]
        if _holds_non_finite(value)
    ]
    return f"not finite are {', '.join(guilty)}" if guilty else "both models' outputs are finite"


def _at_taps(call: Observation) -> list[tuple[str, Tensor]]:
    return [(f"tap {tap.path!r}", feature) for tap, feature in call.features.items()]


def _holds_non_finite(value: Any) -> bool:
    tensors = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(t, Tensor) and t.is_floating_point() and not bool(t.isfinite().all()) for t in tensors)
