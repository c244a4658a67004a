"""One row of the coverage table: one network for one runtime.

The row is written to a file after every stage, so that a crash or a timeout in one stage does not lose the others.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import write_json
from _coverage_networks import CANDIDATES, Candidate
from torch import Tensor

import exporters
from exporters.artifact import Artifact
from exporters.quantization import QuantizationOptions
from exporters.runtimes import EXPORTERS, import_runtime

BATCHES = (1, 4)
CALIBRATION_SAMPLES = 40
HALF = ("coreml",)
# Palettes of 256 values, the other recipe of Core ML, take k-means minutes for the larger networks.
INT8_OPTIONS = {"coreml": {"quantization": QuantizationOptions(recipe="linear")}}


def run(model: str, runtime: str, file: Path) -> None:
    """Write the row of one network and runtime; the body of a process, whose messages go beside the file."""
    messages = os.open(file.with_suffix(".messages"), os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(messages, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    measure(CANDIDATES[model], runtime, file)


def measure(candidate: Candidate, runtime: str, file: Path) -> None:
    """Write a row: fp32 with a dynamic batch, else with a fixed one, then int8, and for Core ML fp16, its default."""
    row: dict[str, Any] = {
        "model": candidate.name,
        "family": candidate.family,
        "runtime": runtime,
        "converts": False,
        "parity": None,
        "dynamic_batch": False,
        "fp16": None,
        "int8": None,
        "size_bytes": None,
        "precision_active": {},
        "delegation": None,
        "why_not": {},
        "seconds": {},
        "stage": "network",
    }
    write_json(file, row)
    network, example = candidate.network(), candidate.samples(2, 0)
    suffix = import_runtime(EXPORTERS, runtime)().suffix
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        path = Path(folder, f"network{suffix}")

        def stage(name: str, example: Tensor, **options: Any) -> Artifact | None:
            row["stage"] = name
            write_json(file, row)
            start = time.perf_counter()
            artifact = _attempt(
                lambda: exporters.export(network, example, to=runtime, path=path, **options),
                name,
                row["why_not"],
                folder=folder,
            )
            row["seconds"][name] = round(time.perf_counter() - start, 1)
            return artifact

        floating = stage("dynamic_batch", example, dynamic_batch=BATCHES)
        row["dynamic_batch"] = floating is not None
        floating = floating or stage("static", example[:1])
        if floating is not None:
            row |= {"converts": True, "parity": figures(floating), "size_bytes": floating.size_bytes}
            row["delegation"] = floating.details.get("delegation")
            row["precision_active"]["fp32"] = active(floating)
            real = candidate.samples(CALIBRATION_SAMPLES, 2)
            quantised = stage("int8", example[:1], precision="int8", calibration=real, **INT8_OPTIONS.get(runtime, {}))
            if quantised is not None:
                row["int8"] = (figures(quantised) or {}) | quantisation(quantised)
                row["precision_active"]["int8"] = active(quantised)
            half = stage("fp16", example[:1], precision="fp16") if runtime in HALF else None
            if half is not None:
                row["fp16"] = figures(half)
                row["precision_active"]["fp16"] = active(half)
    write_json(file, row | {"stage": None})


def figures(artifact: Artifact) -> dict[str, float | None] | None:
    """The worst figure over all outputs; ``None`` where the file could not be run."""
    if artifact.parity is None:
        return None
    outputs = artifact.parity.outputs
    return {
        "relative_l2": max(output.relative_l2 for output in outputs),
        "max_abs_of_range": max(output.max_abs_of_range for output in outputs),
        "cosine": min(output.cosine for output in outputs),
        "argmax_agreement": min(output.argmax_agreement for output in outputs),
        "bound_relative_l2": artifact.parity.tolerance.relative_l2,
    }


def quantisation(artifact: Artifact) -> dict[str, Any]:
    """Which recipe made an int8 file, of how many, and what it left in floating point."""
    report = artifact.quantization
    return {
        "size_bytes": artifact.size_bytes,
        "recipe": report and report.recipe,
        "recipes_tried": report and len(report.trials),
        "left_in_float": report and list(report.left_in_float),
    }


def active(artifact: Artifact) -> dict[str, int] | None:
    """Computing operators by the type in which they compute, or else bytes of weights by type, read back."""
    return artifact.audit and dict(artifact.audit.operators or artifact.audit.weight_bytes)


def _attempt(export: Callable[[], Artifact], name: str, why_not: dict[str, str], *, folder: str) -> Artifact | None:
    """The artifact, or ``None`` and the reason, in which paths begin at ``folder``."""
    try:
        return export()
    except (exporters.ExportError, ValueError) as error:
        why_not[name] = " ".join(str(error).split()).replace(f"{folder}/", "")
        return None
