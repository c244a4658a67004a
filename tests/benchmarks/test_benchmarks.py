"""The benchmarks run from the command line and print what programs read from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow


def run(script, *arguments, **environment):
    """Last line that the script prints, read as JSON."""
    finished = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--quick", "--json", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture
def images(tmp_path):
    """Folder with random images in the form of the data set's file."""
    generator = np.random.default_rng(0)
    (tmp_path / "fashion_mnist").mkdir()
    np.savez(
        tmp_path / "fashion_mnist" / "fashion_mnist_70k.npz",
        train_x=generator.integers(256, size=(200, 28, 28), dtype=np.uint8),
        train_y=(np.arange(200) % 10).astype(np.uint8),
        test_x=generator.integers(256, size=(50, 28, 28), dtype=np.uint8),
        test_y=(np.arange(50) % 10).astype(np.uint8),
    )
    return tmp_path


def test_step_cost_prints_a_ratio_per_objective_and_what_the_parts_cost():
    result = run("step_cost.py", "--pairs", "vit", "--rounds", "2", "--batch", "4", "--pixels", "32")

    assert {"ratios", "medians", "spread", "machine", "versions"} <= result.keys()
    assert {"logit", "feature", "patch_embedding", "cka", "all"} <= result["ratios"].keys()
    assert all(low <= result["ratios"][name] <= high for name, (low, high) in result["spread"]["vit"].items())
    assert {"student", "teacher", "part/hooks", "part/logging"} <= result["medians"]["vit"].keys()


def test_step_cost_measures_time_and_memory_of_methods_and_says_what_cannot_be_applied():
    sizes = ("--rounds", "2", "--batch", "4", "--pixels", "32")

    result = run("step_cost.py", "--pairs", "vit", "--methods", "taid", "minilm", "tinybert", *sizes)

    pair = result["pairs"]["vit"]
    assert list(pair["methods"]) == ["taid", "minilm", "tinybert"]
    assert "attention heads" in pair["methods"].pop("tinybert")["obstacle"]
    for row in pair["methods"].values():
        assert row["interval"][0] <= row["ratio"] <= row["interval"][1]
        assert row["memory"]["saved"] > pair["student_memory"]["saved"]
        assert row["memory"]["parameters"] == pair["student_memory"]["parameters"]


def test_teacher_cost_prints_what_a_teacher_costs_and_what_reading_a_cache_does():
    sizes = ("--rounds", "4", "--batch", "4", "--pixels", "32", "--records", "2000")

    result = run("teacher_cost.py", "--pairs", "resnet", *sizes)

    assert result["ratios"].keys() == {"cached_to_student", "online_to_sum", "partial_to_full"}
    assert result["bytes_per_sample"] == 4 + 4 * 10
    assert result["records_per_second"] > 0
    assert [row["records"] for row in result["memory"]] == [10_000, 2000, 8000]
    depths = result["partial"]["resnet"]
    shares = [row["share_of_operations"] for row in depths.values()]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


def test_fashion_mnist_writes_a_row_per_method_with_the_accuracies_of_each_seed(images, tmp_path):
    output = tmp_path / "results" / "rows.json"
    methods = ["alone", "dkd", "deit"]
    options = ("--images", "100", "--seeds", "0", "1", "--output", str(output), "--methods", *methods)

    result = run("fashion_mnist.py", *options, LIGHTNING_KD_DATA=str(images))

    assert json.loads(output.read_text()) == result
    assert {"machine", "versions", "sizes", "optimiser", "source", "workers", "wall_s"} <= result.keys()
    assert list(result["pairs"]) == ["cnn_to_vit", "vit_to_cnn"]
    for pair in result["pairs"].values():
        assert [row["method"] for row in pair["rows"]] == methods
        assert pair["teacher"]["accuracy"] >= 0
        trained = [row for row in pair["rows"] if "obstacle" not in row]
        for row in trained:
            assert row["seeds"] == [0, 1]
            assert len(row["accuracy_last"]) == len(row["accuracy_best"]) == 2
            assert all(best >= last for best, last in zip(row["accuracy_best"], row["accuracy_last"], strict=True))
            gain = np.mean(row["accuracy_last"]) - np.mean(trained[0]["accuracy_last"])
            assert row["gain"] == pytest.approx(gain, abs=1e-3)
    assert result["pairs"]["cnn_to_vit"]["rows"][1]["weights"] == {"task": 1.0, "dkd": [0.05, 0.1]}
    assert "transformer as student" in result["pairs"]["vit_to_cnn"]["rows"][2]["obstacle"]


def test_teacher_kinds_prints_accuracy_and_time_of_every_kind(images):
    result = run("teacher_kinds.py", LIGHTNING_KD_DATA=str(images))

    assert {"machine", "versions", "sizes", "source", "once_s"} <= result.keys()
    assert {"scoring", "writing_logits", "writing_top_k"} <= result["once_s"].keys()
    rows = {row["kind"]: row for row in result["rows"]}
    assert rows["cached"]["accuracy"] == rows["online"]["accuracy"]
    assert rows["random 1/4, cached"]["accuracy"] == rows["random 1/4, online"]["accuracy"]
    assert rows["alone"]["gain"] == rows["random 1/4, alone"]["gain"] == 0
    assert rows["alone"]["steps"] == 3  # 200 images in batches of 64
    assert rows["random 1/4, cached"]["weight"] == pytest.approx(1 - 0.25 / 2)
    assert rows["alone"]["wall_ratio"] == 1
    assert all(low <= row["wall_ratio"] <= high for row in rows.values() for low, high in [row["wall_range"]])


def test_export_speed_prints_four_ratios_per_model_and_runtime():
    result = run("export_speed.py", "--models", "lcnet_035", "--runtimes", "onnx")

    names = ("ours_to_plain", "int8_to_fp32", "int8_to_default", "int8_to_eager")
    assert list(result["ratios"]) == [f"lcnet_035/onnx/{name}" for name in names]
    assert all(row["interval"][0] <= row["value"] <= row["interval"][1] for row in result["rows"])
    assert {"machine", "versions"} <= result.keys()


def test_int8_students_writes_the_drop_of_every_variant_from_the_float_student(images, tmp_path):
    output = tmp_path / "rows.json"
    options = ("--pairs", "vit_to_cnn", "--runtimes", "onnx", "--workers", "1", "--output", str(output))

    result = run("int8_students.py", *options, LIGHTNING_KD_DATA=str(images))

    assert json.loads(output.read_text()) == result
    rows = {(row["variant"], row["runtime"]): row for row in result["pairs"]["vit_to_cnn"]["rows"]}
    assert {variant for variant, _ in rows} == {
        "float",
        "float, trained on",
        *(f"int{bits}, {how}" for bits in (8, 3) for how in ("after training", "QAT", "QAT and KD")),
    }
    assert {variant for variant, runtime in rows if runtime == "onnx"} == {
        "int8, after training",
        "int8, QAT",
        "int8, QAT and KD",
    }
    (exact,) = rows["float", "pytorch"]["accuracies"]
    for row in rows.values():
        assert row["drops"] == [pytest.approx(exact - row["accuracies"][0], abs=0.01)]


def test_latency_page_measures_every_runtime_and_keeps_no_file():
    result = run("latency_page.py", "--runtimes", "pytorch", "openvino")

    assert {"machine", "versions"} <= result.keys()
    assert [(row["runtime"], row["precision"], row["batch_size"]) for row in result["rows"]] == [
        ("pytorch", "fp32", 1),
        ("openvino", "fp32", 1),
    ]
    measured = result["rows"][1]
    assert measured["latency"]["device"] == "local"
    assert {start["cached"] for start in measured["latency"]["cold"]} == {False, True}
    assert 0 <= measured["accuracy"] <= 1


def test_spoken_digits_prints_a_row_per_student_with_what_it_knows_before_it_sees_labels(tmp_path):
    generator, clips = np.random.default_rng(0), 24
    lengths = generator.integers(1500, 2500, size=clips)
    (tmp_path / "fsdd").mkdir()
    np.savez(
        tmp_path / "fsdd" / "fsdd.npz",
        samples=generator.integers(-3000, 3000, size=lengths.sum(), dtype=np.int16),
        offsets=np.concatenate([[0], lengths.cumsum()]),
        label=np.arange(clips) % 10,
        speaker=np.arange(clips) % 3,
        speaker_names=np.array(["theo", "nicolas", "jackson"]),
    )

    result = run("spoken_digits.py", LIGHTNING_KD_DATA=str(tmp_path))

    assert [row["method"] for row in result["rows"]] == ["alone", "inherited", "distilled"]
    assert result["clips"] == {"train": 16, "test": 8}
    for row in result["rows"]:
        assert all(0 <= accuracy <= 100 for accuracy in row["accuracy_last"] + row["frozen"])
    assert result["parameters"]["student"] < result["parameters"]["teacher"]


def test_an4_ctc_has_error_rates_of_every_method_that_it_is_asked_for():
    file = Path(__file__).parents[1] / "data" / "an4.npz"
    methods = ["alone", "symmetric 1", "symmetric 1, no labels", "best transcript, no labels"]

    result = run("an4_ctc.py", "--file", str(file), "--methods", *methods)

    assert {"machine", "versions", "sizes", "optimiser", "source"} <= result.keys()
    assert [row["method"] for row in result["rows"]] == methods
    assert [row["share"] for row in result["rows"]] == [0.0, 0.9, 1.0, 1.0]
    assert result["utterances"] == {"train": 3, "test": 2}
    for row in (result["teacher"], *result["rows"]):
        assert row["word_error_rate"] >= 0
        assert row["character_error_rate"] >= 0
        assert 0 <= row["blank"] <= 1


@pytest.fixture
def clips(tmp_path):
    """Folder with the committed clips five times over, in the form of the data set's files."""
    with np.load(BENCHMARKS.parent / "tests" / "data" / "speech_commands.npz") as arrays:
        columns = dict(arrays)
    sizes = np.diff(columns["offsets"])
    columns |= {name: np.tile(columns[name], 5) for name in ("flac", "label", "is_test")}
    columns["offsets"] = np.concatenate([[0], np.cumsum(np.tile(sizes, 5))])
    (tmp_path / "speech_commands_v2_test").mkdir()
    np.savez(tmp_path / "speech_commands_v2_test" / "sc_v2_test_a.npz", **columns)
    return tmp_path


def test_speech_commands_writes_accuracies_and_the_latency_of_what_is_deployed(clips, tmp_path):
    output = tmp_path / "rows.json"

    result = run("speech_commands.py", "--runtimes", "onnx", "--output", str(output), LIGHTNING_KD_DATA=str(clips))

    assert json.loads(output.read_text()) == result
    assert result["clips"] == [70, 30]
    assert [row["method"] for row in result["rows"]] == ["alone", "keyword_spotting"]
    assert {row["parameters"] for row in result["rows"]} == {9232}
    for row in result["rows"]:
        assert len(row["accuracy_last"]) == len(row["false_accepts_per_hour"]) == len(row["seeds"]) == 1
    assert {row["runtime"] for row in result["exports"]} == {"onnx"}
    for row in result["exports"]:
        assert row["p50_interval_ms"][0] <= row["p50_ms"] <= row["p50_interval_ms"][1]
        assert row["real_time_factor"] == pytest.approx(row["p50_ms"] / 1000)
        assert row["relative_l2"] < 1e-4
