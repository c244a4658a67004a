"""Latencies as rows, CSV, plots and a page."""

import csv
import re
from dataclasses import replace

import pytest

from exporters.profiling import Disturbance, Estimate
from lightning_kd.errors import SetupError
from lightning_kd.report.figures import Candidate, pareto_front
from lightning_kd.report.latency import latency_report
from lightning_kd.report.latency_figures import batch_sweep, layer_waterfall, waterfall_bars
from lightning_kd.report.latency_rows import HEADINGS, latency_rows, write_csv
from lightning_kd.report.page import render


def test_a_row_has_every_figure_and_says_what_to_doubt(make_profile):
    busy = Disturbance(share=0.5, busy_cores=1.0, seconds=3.0)
    (quiet, noisy) = latency_rows(
        [make_profile("a.onnx", 2.0, batch_size=4), make_profile("b.onnx", 2.0, steady=False, disturbance=busy)]
    )
    assert quiet == (
        "a.onnx",
        "onnxruntime",
        "fp32",
        "1",
        "4",
        "2.000 (2.000 to 2.000)",
        "2.000 (2.000 to 2.000)",
        "too few runs",
        "2000",
        "none",
    )
    assert noisy[-1] == "no steady state, machine was busy"
    assert len(HEADINGS) == len(quiet)


def test_the_device_is_named_where_there_are_several(make_profile):
    profiles = [make_profile("a.onnx", 2.0), make_profile("a.onnx", 3.0, device="ssh://pi@garage")]
    assert [row[0] for row in latency_rows(profiles)] == ["a.onnx (this process)", "a.onnx (ssh://pi@garage)"]


def test_the_hash_tells_files_of_one_name_apart(make_profile):
    first, second = make_profile("a.onnx", 2.0), make_profile("a.onnx", 3.0)
    other = replace(second, subject=replace(second.subject, artifact_sha256="cd" * 32))
    assert [row[0] for row in latency_rows([first, other])] == ["a.onnx (abababab)", "a.onnx (cdcdcdcd)"]


def test_csv_has_numbers_with_both_ends_and_leaves_the_unknown_empty(make_profile, tmp_path):
    write_csv([make_profile("a, b.onnx", 2.0)], tmp_path / "latency.csv")
    with (tmp_path / "latency.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["p50_ms"], row["p90_ms_high"], row["p99_ms"]) == ("a, b.onnx", "2.0", "2.0", "")
    assert (row["samples_per_second"], row["runs"], row["peak_bytes"]) == ("500.0", "40", "")


def test_csv_that_cannot_be_written_is_refused(make_profile, tmp_path):
    with pytest.raises(SetupError, match=r"`path` must be a file that can be written, got .*nowhere.l\.csv"):
        write_csv([make_profile("a.onnx", 2.0)], tmp_path / "nowhere" / "l.csv")


def at(latency_ms, accuracy):
    return Candidate(
        network="n", runtime="r", latency_ms=Estimate(latency_ms, latency_ms, latency_ms), accuracy=accuracy
    )


def test_nothing_on_the_front_is_beaten_in_both():
    found = pareto_front([at(4, 0.9), at(1, 0.5), at(2, 0.8), at(3, 0.8), at(2, 0.7), at(5, 0.9)])
    assert [(candidate.latency_ms.value, candidate.accuracy) for candidate in found] == [(1, 0.5), (2, 0.8), (4, 0.9)]


def test_a_waterfall_adds_up_whatever_it_leaves_out(make_layers):
    layers = make_layers(("a", 1.0), ("", 2.0), (None, 4.0), ("b", 8.0), ("a", 16.0), ("c", 0.0))
    assert waterfall_bars(layers, most=24) == [
        ("a", 17.0),
        ("the network itself", 2.0),
        ("added by the runtime", 4.0),
        ("b", 8.0),
    ]
    assert waterfall_bars(layers, most=3) == [("a", 17.0), ("b", 8.0), ("2 others", 6.0)]


def test_operators_stand_for_modules_that_a_file_does_not_name(make_layers):
    assert waterfall_bars(make_layers((None, 1.0), (None, 2.0)), most=24) == [("Conv", 3.0)]


def test_bars_say_their_share(make_layers):
    svg = layer_waterfall(make_layers(("a", 1.0), ("b", 3.0)))
    assert re.findall(r">\s*(\d+%)<", svg) == ["25%", "75%"]


def test_a_sweep_names_every_network_and_size():
    sweep = {size: Estimate(size, size * 0.9, size * 1.1) for size in (1, 4, 16)}
    svg = batch_sweep({"first": sweep, "second": sweep})
    assert all(svg.count(f">{name}<") == 1 for name in ("first", "second"))
    assert all(svg.count(f">{size}<") >= 2 for size in (1, 4, 16))


def test_a_page_has_every_section_that_the_figures_allow(make_profile, make_layers):
    profiles = [make_profile(name, ms * size, batch_size=size) for name, ms in (("a", 1), ("b", 2)) for size in (1, 8)]
    report = latency_report(profiles, layers=[make_layers(("x", 1.0))], accuracies={"a": 0.9, "b": 0.8})
    headings = ["Figures", "Distribution", "Batch sizes", "Accuracy against latency", "Layers of net.onnx"]
    assert [section.heading for section in report.sections] == headings
    assert "as accurate as: a on onnxruntime fp32." in report.sections[3].text
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)|@import|<script|<link", render(report))


def test_sections_without_figures_are_left_out(make_profile):
    report = latency_report([make_profile("a", 1.0)])
    assert [section.heading for section in report.sections] == ["Figures", "Distribution"]


def test_names_are_escaped(make_profile):
    page = render(latency_report([make_profile("<b>a</b>", 1.0)]))
    assert "<b>a</b>" not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page
