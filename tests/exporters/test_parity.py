import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.errors import ParityError
from exporters.parity import TOLERANCES, Tolerance, check_parity, compare
from exporters.signature import TensorSpec

seeds = st.integers(0, 2**32 - 1)
STRICT = Tolerance(max_abs_of_range=1e-4, relative_l2=1e-5)


class Function:
    """A session around a Python function of one input ``x``."""

    inputs = (TensorSpec("x", (2,), "float32"),)
    properties: Mapping[str, str | int | float] = {}

    def __init__(self, function, names=("output",)):
        self.function = function
        self.outputs = tuple(TensorSpec(name, (2,), "float32") for name in names)

    def run(self, inputs):
        return {spec.name: self.function(inputs["x"]) for spec in self.outputs}


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_figures_follow_their_definitions():
    # error (0, 0, 3, 4): norm 5. Reference (0, 0, 6, 8): norm 10, range 8.
    parity = compare("y", [np.array([0.0, 0.0]), np.array([9.0, 12.0])], [np.array([0.0, 0.0]), np.array([6.0, 8.0])])
    assert parity.max_abs == 4.0
    assert parity.max_abs_of_range == 0.5
    assert parity.relative_l2 == 0.5
    assert parity.cosine == pytest.approx(1.0, abs=1e-12)  # (9, 12) is 1.5 times (6, 8)
    assert parity.sqnr_db == pytest.approx(20 * math.log10(2), abs=1e-12)
    assert parity.nonfinite == 0


@given(seed=seeds)
def test_is_perfect_when_both_are_equal(seed):
    values = draw(seed, 3, 5)
    parity = compare("y", [values], [values])
    assert (parity.max_abs, parity.relative_l2, parity.argmax_agreement, parity.sqnr_db) == (0, 0, 1, math.inf)
    assert parity.within(Tolerance(max_abs_of_range=0, relative_l2=0))


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_relative_figures_do_not_depend_on_the_unit(seed, scale):
    reference, noise = draw(seed, 4, 6), draw(seed + 1, 4, 6) * 1e-3
    one = compare("y", [reference + noise], [reference])
    other = compare("y", [scale * (reference + noise)], [scale * reference])
    assert other.relative_l2 == pytest.approx(one.relative_l2, rel=1e-9)
    assert other.max_abs_of_range == pytest.approx(one.max_abs_of_range, rel=1e-9)
    assert other.cosine == pytest.approx(one.cosine, rel=1e-9)


@given(seed=seeds)
def test_batches_count_as_one_long_batch(seed):
    reference, output = draw(seed, 6, 4), draw(seed + 1, 6, 4)
    whole = compare("y", [output], [reference])
    parts = compare("y", [output[:1], output[1:]], [reference[:1], reference[1:]])
    assert parts.relative_l2 == pytest.approx(whole.relative_l2, rel=1e-12)
    assert (parts.max_abs, parts.argmax_agreement) == (whole.max_abs, whole.argmax_agreement)


def test_argmax_runs_over_the_classes_of_logits_and_of_maps():
    reference = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert compare("y", [np.array([[0.0, 1.0], [0.0, 1.0]])], [reference]).argmax_agreement == 0.5
    maps = reference.T.reshape(1, 2, 1, 2)  # two classes at two positions
    assert compare("y", [maps], [maps[:, ::-1]]).argmax_agreement == 0.0


@pytest.mark.parametrize(
    ("output", "reference", "count"),
    [(np.nan, 1.0, 1), (1.0, np.nan, 1), (np.inf, -np.inf, 1), (np.inf, np.inf, 0), (np.nan, np.nan, 0)],
)
def test_counts_elements_that_are_finite_on_one_side_only(output, reference, count):
    parity = compare("y", [np.array([2.0, output])], [np.array([2.0, reference])])
    assert parity.nonfinite == count
    assert parity.within(STRICT) is (count == 0)


def test_an_error_on_a_reference_of_zeros_is_infinite():
    parity = compare("y", [np.array([1e-9])], [np.array([0.0])])
    assert parity.relative_l2 == math.inf
    assert parity.max_abs_of_range == math.inf
    assert not parity.within(STRICT)


def test_report_holds_the_figures_of_all_batches():
    report = check_parity(
        Function(np.copy), Function(np.copy), [{"x": np.ones(2)}, {"x": np.ones(5)}], tolerance=STRICT
    )
    assert report.batch_sizes == (2, 5)
    assert report.failures == ()


def test_failure_names_every_output_that_differs_with_its_figures():
    good, bad = Function(np.copy, ("a", "b")), Function(lambda x: 1.5 * x, ("a", "b"))
    with pytest.raises(ParityError, match=r"2 of 2 outputs differ:\n  output `a`.*relative L2 0.5.*\n  output `b`"):
        check_parity(bad, good, [{"x": np.array([3.0, 4.0])}], tolerance=STRICT)


@pytest.mark.parametrize(
    ("function", "names", "message"),
    [
        (np.copy, ("other",), r"must be named \['output'\], got \['other'\]"),
        (lambda x: x[:, None], ("output",), r"shape \(2,\), got float64 of shape \(2, 1\)"),
        (lambda x: x.astype(np.float32), ("output",), "must be float64 .*, got float32"),
    ],
)
def test_names_shapes_and_dtypes_must_be_equal(function, names, message):
    with pytest.raises(ParityError, match=message):
        check_parity(Function(function, names), Function(np.copy), [{"x": np.zeros(2)}], tolerance=STRICT)


def test_every_precision_has_a_tolerance_and_fp32_is_the_strictest():
    assert set(TOLERANCES) == {"fp32", "fp16", "bf16", "int8"}
    assert TOLERANCES["fp32"].relative_l2 == 1e-5
    assert TOLERANCES["fp16"].relative_l2 == 5e-3
    assert TOLERANCES["bf16"].relative_l2 == 2e-2
    assert TOLERANCES["int8"].cosine == 0.99
    assert TOLERANCES["fp32"].max_abs_of_range == 1e-4
