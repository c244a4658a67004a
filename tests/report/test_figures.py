"""Plots as SVG: well-formed, in the page's colours, the same every time."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from exporters.profiling import Estimate
from lightning_kd.report.figures import (
    INK,
    PALETTE,
    Candidate,
    accuracy_against_latency,
    as_svg,
    latency_distribution,
)

CANDIDATES = [
    Candidate(network=network, runtime=runtime, latency_ms=Estimate(ms, ms * 0.9, ms * 1.2), accuracy=accuracy)
    for network, accuracy in (("teacher", 0.98), ("student", 0.95))
    for runtime, ms in (("ONNX Runtime", 0.2), ("OpenVINO", 0.1))
]


def _drawings():
    latencies = {"a": np.linspace(1, 2, 1000).tolist(), "b": [0.5]}
    return {"scatter": accuracy_against_latency(CANDIDATES), "ecdf": latency_distribution(latencies)}


@pytest.mark.parametrize("name", ["scatter", "ecdf"])
def test_text_and_axes_have_the_pages_colour(name):
    svg = _drawings()[name]
    assert "currentColor" in svg
    assert INK not in svg
    assert "#000000" not in svg.replace("#000000; stroke-width: 0", "")


@pytest.mark.parametrize("name", ["scatter", "ecdf"])
def test_a_drawing_is_one_element_without_a_size_of_its_own(name):
    parser = HTMLParser()
    elements = []
    parser.handle_starttag = lambda tag, attributes: elements.append((tag, dict(attributes)))
    parser.feed(_drawings()[name])
    tag, attributes = elements[0]
    assert tag == "svg"
    assert "viewbox" in attributes
    assert not {"width", "height"} & attributes.keys()
    assert attributes["role"] == "img"
    assert attributes["aria-label"]


def test_the_same_figure_gives_the_same_text():
    assert _drawings() == _drawings()


def test_ids_of_two_drawings_do_not_collide():
    first, second = (set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in _drawings().values())
    assert first
    assert not first & second


def test_every_network_and_runtime_is_named_once():
    svg = accuracy_against_latency(CANDIDATES)
    for name in ("teacher", "student", "ONNX Runtime", "OpenVINO"):
        assert svg.count(f">{name}<") == 1
    assert PALETTE[0] in svg
    assert PALETTE[1] in svg


def test_a_title_is_escaped():
    assert 'aria-label="a &lt; b"' in as_svg(lambda: Figure(figsize=(1, 1)), "a < b")
