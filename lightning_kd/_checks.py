"""Checks of arguments shared by the package; every message names the argument, the value and the fix."""

import difflib
import math
from collections.abc import Collection, Iterable

from torch import Tensor

from lightning_kd.errors import ShapeError


def check_positive(name: str, value: object) -> None:
    """Raise `ValueError` unless ``value`` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}.")


def check_not_negative(name: str, value: object) -> None:
    """Raise `ValueError` unless ``value`` is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def check_fraction(name: str, value: object) -> None:
    """Raise `ValueError` unless ``value`` is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a number from 0 to 1, got {value!r}.")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")


def check_same_shape(student: Tensor, teacher: Tensor, what: str) -> None:
    """Raise `ShapeError` unless both tensors have the same shape; ``what`` names them."""
    if student.shape != teacher.shape:
        raise ShapeError(
            f"{what} of student and teacher must have the same shape, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )


def nearest(name: str, candidates: Iterable[str], count: int = 5) -> list[str]:
    """Names in ``candidates`` that look most like ``name``, best first."""
    return difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.0)
