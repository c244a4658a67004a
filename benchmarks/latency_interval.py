"""Whether an interval holds what it claims and a verdict what it says, in 40 repetitions of each.

- ``covered``: the 95 % interval of a profile's p50 holds the median over the runs of all 40 profiles, each of seven
  fresh processes (``device="local"``). ``covered_by_one``: the same for 40 profiles of one instance that stays loaded,
  whose intervals claim less: they hold what one sitting sees.
- ``false_differences``: a file compared with itself is called faster or slower.
- ``detected``: a copy made 10 % slower, by waiting a tenth of each run's time at its end, is called slower.

    .venv/bin/python benchmarks/latency_interval.py                      # results/latency_interval.json
    .venv/bin/python benchmarks/latency_interval.py --quick --json       # three repetitions
    .venv/bin/python benchmarks/latency_interval.py --profiles           # intervals anew, verdicts as they were
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions

import exporters
from exporters.profiling import JobOptions, ProfileOptions, compare, profile
from exporters.session import Session

FILE = RESULTS / "latency_interval.json"
REPETITIONS = 40
MODEL = "resnet18"
PIXELS = 96
SLOWER = 0.10
HOW = ProfileOptions(min_runs=300, min_seconds=1.0, max_seconds=20.0, min_warm_up_seconds=0.2)


class Slower:
    """A session whose runs take a tenth longer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs, self.properties = session.inputs, session.outputs, session.properties

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run, then wait."""
        start = time.perf_counter_ns()
        outputs = self._session.run(inputs)
        end = start + (time.perf_counter_ns() - start) * (1 + SLOWER)
        while time.perf_counter_ns() < end:
            pass
        return outputs


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--profiles", action="store_true", help="measure no verdicts, read them from the result file")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SEED"), help="one repetition, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        file, seed = Path(arguments.one[0]), int(arguments.one[1])
        sys.stdout.write(json.dumps({what: WHAT[what](file, seed) for what in measured(arguments)}) + "\n")
        return
    repetitions = 3 if arguments.quick else REPETITIONS
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        image = torch.randn(1, 3, PIXELS, PIXELS)
        path = Path(folder, "student.onnx")
        exporters.export(timm.create_model(MODEL).eval(), image, to="onnx", path=path)
        # One of each in turn, so that a slow hour of the machine is in all of them.
        session = exporters.load(path, threads=1)
        found = [
            in_process(path, seed, arguments) | {"same_instance": one_profile(session, seed)}
            for seed in range(repetitions)
        ]
    report(found, arguments)


def measured(arguments: Namespace) -> Sequence[str]:
    """What is measured now, by name."""
    return ("profile",) if arguments.profiles else tuple(WHAT)


def in_process(file: Path, seed: int, arguments: Namespace) -> dict[str, Any]:
    """One repetition in a fresh process."""
    command = [sys.executable, __file__, "--one", str(file), str(seed)]
    command += ["--profiles"] if arguments.profiles else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_profile(target: Session | Path, seed: int, **how: Any) -> dict[str, Any]:
    """Interval of p50, ms, and the raw latencies, ns."""
    measured = profile(target, seed=seed, options=HOW, **how)
    estimate = measured.p50_ms
    if estimate is None:
        raise SystemExit("too few runs for a median")
    return {
        "low": estimate.low,
        "high": estimate.high,
        "steady": measured.steady,
        "disturbed": measured.disturbed,
        "latencies_ns": measured.latencies_ns,
    }


def with_itself(file: Path, seed: int) -> dict[str, Any]:
    """Verdict on a file against itself."""
    return _summary(compare(file, file, threads=1, seed=seed, options=HOW).summary())


def with_a_slower_copy(file: Path, seed: int) -> dict[str, Any]:
    """Verdict on a slower copy against a file."""
    first, second = (exporters.load(file, threads=1) for _ in range(2))
    return _summary(compare(first, Slower(second), seed=seed, options=HOW).summary())


def _summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in ("ratio", "noise", "noise_floor", "verdict", "steady")}


WHAT: Mapping[str, Callable[[Path, int], dict[str, Any]]] = {
    "profile": lambda file, seed: one_profile(file, seed, threads=1, device="local", job=JobOptions(cold_starts=0)),
    "with_itself": with_itself,
    "with_a_slower_copy": with_a_slower_copy,
}


def coverage(profiles: list[dict[str, Any]]) -> tuple[int, float]:
    """How many intervals hold the median of all runs, and that median, ms; the runs are taken out."""
    pooled_ms = median(latency for each in profiles for latency in each.pop("latencies_ns")) / 1e6
    return sum(each["low"] <= pooled_ms <= each["high"] for each in profiles), pooled_ms


def report(found: list[dict[str, Any]], arguments: Namespace) -> None:
    if arguments.profiles:
        earlier = json.loads(FILE.read_text(encoding="utf-8"))["found"]
        found = [before | now for before, now in zip(earlier, found, strict=True)]
    covered, pooled_ms = coverage([each["profile"] for each in found])
    covered_by_one, pooled_of_one_ms = coverage([each["same_instance"] for each in found])
    counts = {
        "covered": covered,
        "covered_by_one": covered_by_one,
        "false_differences": sum(each["with_itself"]["verdict"] != "indistinguishable" for each in found),
        "detected": sum(each["with_a_slower_copy"]["verdict"] == "slower" for each in found),
    }
    content = {
        **counts,
        "repetitions": len(found),
        "pooled_p50_ms": pooled_ms,
        "pooled_p50_of_one_ms": pooled_of_one_ms,
        "found": found,
        "machine": machine(),
        "versions": versions() | {"onnxruntime": version("onnxruntime")},
    }
    rows = [(name.replace("_", " "), f"{count} of {len(found)}") for name, count in counts.items()]
    print_table("Intervals and verdicts", ("what", "how often"), rows)
    deliver(content, arguments, default=None if arguments.quick else FILE)


if __name__ == "__main__":
    main()
