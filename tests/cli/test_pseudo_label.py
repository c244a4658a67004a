"""`pseudo-label`: resumes, shares the work, loses nothing when killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lightning_kd.speech.pseudo_labels import read_pseudo_labels

ROOT = Path(__file__).parents[2]
# Files without what the library says of random weights, caches and deprecated options.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def data(tmp_path):
    """Manifest of six clips with references."""
    folder = tmp_path / "audio"
    folder.mkdir()
    generator = np.random.default_rng(0)
    lines = []
    for index in range(6):
        soundfile.write(folder / f"{index}.wav", 0.1 * generator.standard_normal(8000 + 1000 * index), 16000)
        lines.append(json.dumps({"id": f"clip{index}", "audio": f"{index}.wav", "text": f"number {index}"}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder / "data.jsonl"


@pytest.fixture
def arguments(whisper_checkpoint, data, tmp_path):
    """Arguments of the command for a folder of that name."""

    def make(out="out", **options):
        given = {"teacher": whisper_checkpoint, "data": data, "out": tmp_path / out, "max-new-tokens": 8}
        given |= {"language": "en", "task": "transcribe", "batch-size": 2} | options
        return ["pseudo-label", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), "--json"]

    return make


def test_writes_every_utterance_with_scores_and_references(run, arguments, tmp_path):
    status, out, err = run(*arguments())
    assert status == 0, err
    document = json.loads(out)
    assert (document["utterances"], document["done_before"], document["done_now"]) == (6, 0, 6)
    assert document["audio_s"] == pytest.approx((6 * 8000 + 15 * 1000) / 16000, abs=1e-3)
    labels = {label.id: label for label in read_pseudo_labels(str(tmp_path / "out"))}
    assert sorted(labels) == [f"clip{index}" for index in range(6)]
    assert labels["clip3"].reference == "number 3"
    assert labels["clip3"].seconds == pytest.approx(11000 / 16000)
    assert set(labels["clip3"].scores) == {"nll", "confidence", "likelihood", "entropy"}


def test_goes_on_where_it_was_and_as_often_as_it_likes(run, arguments, data, tmp_path):
    everything = data.read_text()
    data.write_text("\n".join(everything.splitlines()[:3]))
    assert run(*arguments())[0] == 0
    before = {label.id: label for label in read_pseudo_labels(str(tmp_path / "out"))}
    data.write_text(everything)
    assert json.loads(run(*arguments())[1])["done_before"] == 3
    assert json.loads(run(*arguments())[1])["done_now"] == 0
    after = {label.id: label for label in read_pseudo_labels(str(tmp_path / "out"))}
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


def test_processes_share_the_work_and_find_the_same_as_one(run, arguments, monkeypatch, tmp_path):
    assert run(*arguments("alone"))[0] == 0
    for rank in (1, 0):
        assert json.loads(run(*arguments("shared", rank=rank, ranks=2))[1])["done_now"] == 3
    found = [
        sorted(read_pseudo_labels(str(tmp_path / name)), key=lambda label: label.id) for name in ("alone", "shared")
    ]
    assert [(label.id, label.tokens) for label in found[0]] == [(label.id, label.tokens) for label in found[1]]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert json.loads(run(*arguments("launched"))[1])["utterances"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_loses_no_batch_that_was_finished(arguments, tmp_path, how):
    command = [sys.executable, "-c", "import sys; from lightning_kd.cli import main; sys.exit(main())"]
    command += arguments(batch_size=1)
    process = subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out = tmp_path / "out"
    deadline = time.monotonic() + 120
    while not list(out.glob("part-*.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=60)
    finished = {label.id: label for label in read_pseudo_labels(str(out))}
    assert finished
    done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["done_before"] == len(finished)
    after = {label.id: label for label in read_pseudo_labels(str(out))}
    assert len(after) == 6
    assert {name: after[name] for name in finished} == finished


def test_wrong_arguments_end_in_one_line(run, arguments, tmp_path):
    assert run(*arguments())[0] == 0
    status, out, err = run(*arguments(max_new_tokens=9))
    assert (status, out) == (1, "")
    assert "made with max_new_tokens=8, got 9" in err
    status, _, err = run(*arguments("other", data=tmp_path / "none"))
    assert status == 1
    assert "`data` must be a folder of audio files or a .jsonl manifest" in err
    status, _, err = run(*arguments("other", teacher=tmp_path / "none"))
    assert status == 1
    assert "must be a checkpoint of transformers" in err
    status, _, err = run(*arguments("other", rank=2, ranks=2))
    assert status == 2
    assert "--rank must be below --ranks 2, got 2" in err
    assert err.count("\n") == 1


def test_bad_audio_stops_with_its_name_and_keeps_what_was_done(run, arguments, data, tmp_path):
    soundfile.write(data.parent / "4.wav", np.zeros(8000), 8000)
    status, _, err = run(*arguments())
    assert status == 1
    assert "4.wav" in err
    assert "got 8000" in err
    assert len(read_pseudo_labels(str(tmp_path / "out"))) == 4
