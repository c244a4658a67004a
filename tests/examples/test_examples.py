"""Every example runs as its reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHARED = {"digits.py"}
# Each example's arguments, and what only a complete run prints.
RUNS = [
    ("bare_loop.py", (), "accuracy:"),
    ("bare_loop.py", ("--fabric",), "accuracy:"),
    ("cached_teacher.py", (), "teacher running:"),
    ("cross_architecture.py", (), "feature:"),
    ("data_pruning.py", (), "moderate"),
    ("distil_classifier.py", (), "student distilled:"),
    ("distil_hubert.py", (), "parameters teach"),
    ("distil_ctc.py", (), "student distilled:"),
    ("distil_whisper.py", (), "tokens per pass"),
    ("export_and_profile.py", (), "noise"),
    ("ensemble_teacher.py", (), "student of its own average:"),
    ("keyword_spotting.py", (), "heard:"),
    ("manual_optimization.py", (), "kd/total"),
    ("prune_hubert.py", (), "loaded as saved: True"),
    ("mutual_learning.py", (), "mlp beside the other:"),
    ("sparse_distillation.py", (), "multiply-accumulates:"),
    ("sweep.py", (), "best values:"),
    ("published_methods.py", ("dkd", "review_kd"), "student by review_kd:"),
    ("quantization_aware.py", (), "no calibration"),
]


def run(command, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=180
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "last_words"), RUNS)
def test_runs_to_its_end_and_leaves_no_file(name, arguments, last_words, tmp_path):
    finished = run([sys.executable, EXAMPLES / name, "--fast", *arguments], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert last_words in finished.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_yaml_distils_and_exports_through_the_command_line(tmp_path):
    command = [Path(sys.executable).with_name("lightning-kd"), "fit", "--config", EXAMPLES / "kd.yaml"]
    finished = run([*command, "--trainer.max_epochs", "1"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == [
        "student.bin",
        "student.onnx",
        "student.onnx.manifest.json",
        "student.xml",
        "student.xml.manifest.json",
    ]


def test_every_example_is_run_here():
    assert {name for name, _, _ in RUNS} | SHARED == {path.name for path in EXAMPLES.glob("*.py")}
