"""Whether the files are those that were sent, and the outputs those that the host computed."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .failures import JobError

CHUNK_BYTES = 1 << 20


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise `JobError` unless every file has its SHA-256; reading them also brings them into the page cache."""
    for name, expected in files.items():
        if _sha256(folder / name) != expected:
            raise JobError("tampered", f"{name} must be as it was sent, but its SHA-256 is another.")


def check_outputs(
    outputs: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray], tolerance: Mapping[str, float | None]
) -> None:
    """Raise `JobError` unless every output is within the tolerance of its reference.

    Args:
        outputs: What was computed here, by name.
        references: What the host computed from the same inputs, by name.
        tolerance: Bounds by the name of the figure; ``None`` for none. See `exporters.parity.Tolerance`.
    """
    for name, reference in references.items():
        output = outputs[name]
        if output.shape != reference.shape:
            raise JobError("outputs_differ", f"output `{name}` must be {reference.shape}, got {output.shape}.")
        found = figures(output, reference)
        beyond = [
            f"{figure} {found[figure]:.3g} against {bound:.3g}"
            for figure, bound in tolerance.items()
            if bound is not None and (found[figure] < bound if figure == "cosine" else found[figure] > bound)
        ]
        if beyond or found["nonfinite"]:
            detail = "; ".join(beyond) or f"{found['nonfinite']:.0f} elements are not finite in one of the two"
            raise JobError("outputs_differ", f"output `{name}` must equal the host's reference, but {detail}.")


def figures(output: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Errors of one output, named and defined as in `exporters.parity.compare`.

    Example:
        >>> import numpy as np
        >>> from exporters.profiling.runner.checking import figures
        >>> round(figures(np.array([3.0, 4.1]), np.array([3.0, 4.0]))["relative_l2"], 3)
        0.02
    """
    actual, expected = (np.asarray(array, dtype=np.float64).ravel() for array in (output, reference))
    finite = np.isfinite(actual) & np.isfinite(expected)
    same = finite | (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    actual, expected = actual[finite], expected[finite]
    largest = float(np.abs(actual - expected).max(initial=0.0))
    norms = float(np.linalg.norm(actual)), float(np.linalg.norm(expected))
    return {
        "max_abs_of_range": _fraction(largest, float(np.ptp(expected)) if expected.size else 0.0),
        "relative_l2": _fraction(float(np.linalg.norm(actual - expected)), norms[1]),
        "cosine": float(actual @ expected) / (norms[0] * norms[1]) if min(norms) > 0 else float(norms[0] == norms[1]),
        "nonfinite": float((~same).sum()),
    }


def _fraction(error: float, scale: float) -> float:
    if error == 0:
        return 0.0
    return error / scale if scale > 0 else math.inf


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return "no file"
    return digest.hexdigest()
