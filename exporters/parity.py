"""Whether two sessions compute the same: figures per output over several batches, and explicit tolerances."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from exporters.errors import ParityError
from exporters.session import Session

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest errors at which two outputs count as the same; a bound of ``None`` is not checked.

    Args:
        max_abs_of_range: Bound on the largest absolute error, as a fraction of the reference's range.
        relative_l2: Bound on the L2 norm of the error, as a fraction of the reference's L2 norm.
        cosine: Smallest cosine of the angle between output and reference.

    Raises:
        ValueError: If no bound is given, or one is out of range.

    Example:
        >>> print(Tolerance(relative_l2=1e-4))
        relative L2 at most 0.0001
        >>> Tolerance()
        Traceback (most recent call last):
        ValueError: a tolerance must have at least one bound, got none.
    """

    max_abs_of_range: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        bounds = (self.max_abs_of_range, self.relative_l2, self.cosine)
        if all(bound is None for bound in bounds):
            raise ValueError("a tolerance must have at least one bound, got none.")
        if not all(bound is None or 0 <= bound < math.inf for bound in bounds):
            raise ValueError(f"bounds of a tolerance must be finite and at least 0, got {self}.")

    def __str__(self) -> str:
        """The bounds in words."""
        texts = (
            ("maximum error at most {:.3g} of the range", self.max_abs_of_range),
            ("relative L2 at most {:.3g}", self.relative_l2),
            ("cosine at least {:.4g}", self.cosine),
        )
        return ", ".join(text.format(bound) for text, bound in texts if bound is not None)


# fp32: runtimes reorder sums; correct exports of convolutional and transformer networks stay near 1e-6, so 1e-5 leaves
# one order of magnitude. fp16: one rounding is 2^-11 = 4.9e-4 and correct exports stay near 1e-3. bf16: one rounding is
# 2^-8 = 3.9e-3 and correct exports stay near 1e-2. int8: one rounding is 2^-8 of a tensor's range, which says little
# about the output; the angle does, and the task's metric says the rest.
TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(max_abs_of_range=1e-4, relative_l2=1e-5),
    "fp16": Tolerance(max_abs_of_range=1e-2, relative_l2=5e-3),
    "bf16": Tolerance(relative_l2=2e-2),
    "int8": Tolerance(cosine=0.99),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """Error of one output against the reference, over all samples compared.

    Args:
        name: Name of the output.
        max_abs: Largest absolute error, in the output's unit.
        max_abs_of_range: ``max_abs`` divided by the reference's range (largest minus smallest value).
        relative_l2: L2 norm of the error divided by the L2 norm of the reference.
        cosine: Cosine of the angle between output and reference.
        nonfinite: Number of elements that are finite in one and not in the other, or infinite with another sign.
        argmax_agreement: Fraction of positions whose largest class is the same; classes lie on axis 1 of a map
            (N, C, H, W) and on the last axis otherwise.
    """

    name: str
    max_abs: float
    max_abs_of_range: float
    relative_l2: float
    cosine: float
    nonfinite: int
    argmax_agreement: float

    @property
    def sqnr_db(self) -> float:
        """Signal to error ratio in dB: -20 log10 of ``relative_l2``; infinite where the outputs are equal."""
        return -20 * math.log10(self.relative_l2) if self.relative_l2 > 0 else math.inf

    def within(self, tolerance: Tolerance) -> bool:
        """Whether every figure is within ``tolerance``."""
        return (
            self.nonfinite == 0
            and (tolerance.max_abs_of_range is None or self.max_abs_of_range <= tolerance.max_abs_of_range)
            and (tolerance.relative_l2 is None or self.relative_l2 <= tolerance.relative_l2)
            and (tolerance.cosine is None or self.cosine >= tolerance.cosine)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """What was compared, against which tolerance, with which result.

    Args:
        outputs: Figures per output.
        tolerance: Bounds that the figures were held to.
        batch_sizes: Number of samples of every batch compared, in order.
    """

    outputs: tuple[OutputParity, ...]
    tolerance: Tolerance
    batch_sizes: tuple[int, ...]

    @property
    def failures(self) -> tuple[OutputParity, ...]:
        """Outputs outside the tolerance."""
        return tuple(output for output in self.outputs if not output.within(self.tolerance))


def compare(name: str, outputs: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> OutputParity:
    r"""Figures of one output over several batches.

    With :math:`a` all values of the output and :math:`r` those of the reference, in float64,

    .. math::
        \text{max\_abs} = \max_i |a_i - r_i|, \qquad
        \text{max\_abs\_of\_range} = \frac{\max_i |a_i - r_i|}{\max_i r_i - \min_i r_i}, \qquad
        \text{relative\_l2} = \frac{\lVert a - r \rVert_2}{\lVert r \rVert_2}.

    A zero error is 0 whatever its denominator; another error over a zero denominator is infinite. Elements that are not
    finite in either are counted and left out of the other figures.

    Args:
        name: Name of the output.
        outputs: Arrays to be judged, one per batch.
        references: Arrays of the same shapes that are held to be right.

    Returns:
        The figures, dimensionless except ``max_abs``.

    Example:
        >>> import numpy as np
        >>> from exporters.parity import compare
        >>> parity = compare("output", [np.array([[3.0, 4.1]])], [np.array([[3.0, 4.0]])])
        >>> round(parity.max_abs, 3), round(parity.max_abs_of_range, 3), round(parity.relative_l2, 3)
        (0.1, 0.1, 0.02)
    """
    actual, reference = _flatten(outputs), _flatten(references)
    finite = np.isfinite(actual) & np.isfinite(reference)
    same = finite | (actual == reference) | (np.isnan(actual) & np.isnan(reference))
    actual, reference = actual[finite], reference[finite]
    error = actual - reference
    max_abs = float(np.abs(error).max(initial=0.0))
    norms = float(np.linalg.norm(actual)), float(np.linalg.norm(reference))
    return OutputParity(
        name=name,
        max_abs=max_abs,
        max_abs_of_range=_ratio(max_abs, float(np.ptp(reference)) if reference.size else 0.0),
        relative_l2=_ratio(float(np.linalg.norm(error)), norms[1]),
        cosine=float(actual @ reference) / (norms[0] * norms[1]) if min(norms) > 0 else float(norms[0] == norms[1]),
        nonfinite=int((~same).sum()),
        argmax_agreement=_argmax_agreement(outputs, references),
    )


def check_parity(
    session: Session, reference: Session, batches: Sequence[Mapping[str, np.ndarray]], *, tolerance: Tolerance
) -> ParityReport:
    """Run both sessions on every batch and raise unless they compute the same.

    Args:
        session: The session to be judged.
        reference: The session that is held to be right.
        batches: Inputs by name; at least one.
        tolerance: Bounds on the errors.

    Returns:
        The figures, all within ``tolerance``.

    Raises:
        ParityError: If names, dtypes or shapes of outputs differ, or a figure is outside ``tolerance``; the message has
            the figures of every output that failed.
    """
    outputs = [session.run(batch) for batch in batches]
    references = [reference.run(batch) for batch in batches]
    for output, expected in zip(outputs, references, strict=True):
        _check_structure(output, expected)
    first = next(iter(batches[0].values()))
    report = ParityReport(
        outputs=tuple(
            compare(spec.name, [out[spec.name] for out in outputs], [ref[spec.name] for ref in references])
            for spec in reference.outputs
        ),
        tolerance=tolerance,
        batch_sizes=tuple(len(next(iter(batch.values()))) if first.ndim else 1 for batch in batches),
    )
    if report.failures:
        raise ParityError(_failure_text(report), report)
    return report


def _flatten(arrays: Sequence[np.ndarray]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.asarray(array, dtype=np.float64).ravel() for array in arrays])


def _ratio(error: float, scale: float) -> float:
    if error == 0:
        return 0.0
    return error / scale if scale > 0 else math.inf


def _argmax_agreement(outputs: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> float:
    agreements = [
        (output.argmax(axis) == reference.argmax(axis)).ravel()
        for output, reference in zip(outputs, references, strict=True)
        if output.size
        for axis in (1 if output.ndim == 4 else -1,)
    ]
    return float(np.concatenate(agreements).mean()) if agreements else 1.0


def _check_structure(outputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> None:
    if outputs.keys() != references.keys():
        raise ParityError(f"outputs must be named {sorted(references)}, got {sorted(outputs)}.")
    for name, reference in references.items():
        output = outputs[name]
        if output.shape != reference.shape or output.dtype != reference.dtype:
            raise ParityError(
                f"output `{name}` must be {reference.dtype} of shape {reference.shape}, "
                f"got {output.dtype} of shape {output.shape}."
            )


def _failure_text(report: ParityReport) -> str:
    lines = [
        f"output `{failure.name}`: maximum error {failure.max_abs:.3g} ({failure.max_abs_of_range:.3g} of the range), "
        f"relative L2 {failure.relative_l2:.3g}, cosine {failure.cosine:.6f}, {failure.nonfinite} non-finite, "
        f"argmax agreement {failure.argmax_agreement:.3f}"
        for failure in report.failures
    ]
    return (
        f"the exported network must equal PyTorch ({report.tolerance}), but {len(lines)} of {len(report.outputs)} "
        f"outputs differ:\n  " + "\n  ".join(lines)
    )
