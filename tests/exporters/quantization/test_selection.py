import numpy as np
import pytest

from exporters.errors import ConversionError
from exporters.quantization.selection import Recipe, choose
from exporters.signature import TensorSpec

BATCHES = [{"x": np.array([[3.0, 4.0]])}, {"x": np.array([[1.0, 0.0]])}]


class Plus:
    """A session that adds a vector to its input."""

    inputs = (TensorSpec("x", (1, 2), "float64"),)
    outputs = (TensorSpec("y", (1, 2), "float64"),)

    def __init__(self, *offset):
        self.offset = np.array([offset])

    def run(self, inputs):
        return {"y": inputs["x"] + self.offset}


def recipes(**offsets):
    return [Recipe(name, lambda offset=offset: Plus(*offset)) for name, offset in offsets.items()]


def test_the_closest_to_the_reference_wins():
    index, trials = choose(recipes(far=(0.0, 2.0), near=(0.0, 0.1), farther=(0.0, -3.0)), Plus(0.0, 0.0), BATCHES)
    assert index == 1
    # |(3, 4), (1, 0)|^2 = 26 and the error's is 2 * 0.01: 10 log10(26 / 0.02) = 31.14 dB.
    assert trials[1].sqnr_db == pytest.approx(31.1394, abs=1e-3)
    # <a, r> = 3*3 + 4.1*4 + 1 = 26.4, |a|^2 = 9 + 16.81 + 1 + 0.01 = 26.82.
    assert trials[1].cosine == pytest.approx(26.4 / (26 * 26.82) ** 0.5, abs=1e-9)


def test_the_metric_decides_before_the_cosine():
    index, trials = choose(
        recipes(near=(0.0, 0.1), useful=(0.0, 2.0)), Plus(0.0, 0.0), BATCHES, evaluate=lambda s: float(s.offset.max())
    )
    assert index == 1
    assert [trial.metric for trial in trials] == [0.1, 2.0]


def refuse():
    raise ConversionError("no such operator")


def test_a_recipe_that_fails_is_reported_and_not_taken():
    index, trials = choose(
        [Recipe("bad", refuse), *recipes(nan=(0.0, np.nan), good=(0.0, 2.0))], Plus(0.0, 0.0), BATCHES
    )
    assert index == 2
    assert [trial.failure for trial in trials] == ["no such operator", "the outputs are not finite", None]


def test_when_every_recipe_fails_the_reasons_are_given():
    with pytest.raises(ConversionError, match="every recipe failed: bad: no such operator; worse: no such operator"):
        choose([Recipe("bad", refuse), Recipe("worse", refuse)], Plus(0.0, 0.0), BATCHES)


def test_after_the_time_limit_nothing_more_is_tried():
    index, trials = choose(recipes(first=(0.0, 2.0), second=(0.0, 0.0)), Plus(0.0, 0.0), BATCHES, time_limit_s=1e-9)
    assert index == 0
    assert trials[1].failure == "not tried: 1e-09 s were over"


def test_an_exact_output_has_no_ratio_to_its_noise():
    _, (trial,) = choose(recipes(exact=(0.0, 0.0)), Plus(0.0, 0.0), BATCHES)
    assert trial.sqnr_db is None
    assert trial.cosine == pytest.approx(1)
