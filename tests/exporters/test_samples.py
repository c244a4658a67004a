import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.samples import verification_batches
from exporters.signature import DimensionRange, Signature, TensorSpec


def signature(shape, dtype="float32", **dimensions) -> Signature:
    return Signature(
        inputs=(TensorSpec("x", shape, dtype),),
        outputs=(),
        dimensions={name: DimensionRange(*ends) for name, ends in dimensions.items()},
    )


def test_static_batches_are_new_and_different_from_one_another():
    example = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    batches = verification_batches({"x": example}, signature((2, 50)))
    assert len(batches) == 3
    values = [example, *(batch["x"] for batch in batches)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(values) for b in values[:i])
    assert {(value.shape, value.dtype.name) for value in values} == {((2, 50), "float32")}


def test_the_same_seed_draws_the_same_batches():
    example = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    first, second = (verification_batches(example, signature((2, 3)), seed=3) for _ in range(2))
    np.testing.assert_equal(first, second)


@given(low=st.integers(1, 40), extra=st.integers(1, 40))
def test_a_dynamic_size_is_drawn_at_both_ends_and_at_an_odd_size_within(low, extra):
    batches = verification_batches(
        {"x": np.zeros((2, 1), np.float32)}, signature(("batch", 1), batch=(low, low + extra))
    )
    sizes = [len(batch["x"]) for batch in batches]
    assert sizes[0] == low
    assert sizes[2] == low + extra
    assert low <= sizes[1] <= low + extra
    assert sizes[1] % 2 == 1 or extra == 1


def test_floats_are_samples_of_the_example_with_a_little_noise_within_its_range():
    example = np.stack([np.linspace(-1, 1, 5000), np.linspace(2, -2, 5000)]).astype(np.float32)
    values = verification_batches({"x": example}, signature((2, 5000)))[0]["x"]
    # One of the samples each, in either order.
    own = min((values - example, values - example[::-1]), key=lambda noise: noise.std())
    assert own.std() == pytest.approx(0.1 * example.std(), rel=0.05)
    assert values.min() >= -2
    assert values.max() <= 2


def test_a_larger_batch_repeats_every_sample_of_the_example_and_a_longer_axis_its_elements():
    example = np.array([[0.0, 1.0], [10.0, 11.0]], np.float32)
    shape = ("batch", "length")
    batches = verification_batches({"x": example}, signature(shape, batch=(1, 6), length=(2, 5)))
    largest = next(batch["x"] for batch in batches if batch["x"].shape == (6, 2))
    longest = next(batch["x"] for batch in batches if batch["x"].shape == (1, 5))
    noise = 4 * 0.1 * example.std()
    assert sorted((largest[:, 0] > 5).tolist()) == [False] * 3 + [True] * 3
    start = 10 * float(longest[0, 0] > 5)
    np.testing.assert_allclose(longest[0], start + np.array([0, 1, 0, 1, 0]), atol=noise)


def test_a_constant_example_is_varied():
    values = verification_batches({"x": np.zeros((1, 2000), np.float32)}, signature((1, 2000)))[0]["x"]
    assert values.std() == pytest.approx(1, abs=0.1)


@given(low=st.integers(-5, 5), extra=st.integers(0, 5))
def test_integers_stay_within_the_example(low, extra):
    example = np.array([[low, low + extra]])
    values = verification_batches({"x": example}, signature((1, 2), "int64"))[0]["x"]
    assert values.dtype == example.dtype
    assert low <= values.min() <= values.max() <= low + extra


def test_booleans_are_as_often_true_as_in_the_example():
    example = np.arange(4000).reshape(1, 4000) % 4 == 0
    values = verification_batches({"x": example}, signature((1, 4000), "bool"))[0]["x"]
    assert values.dtype == np.bool_
    assert values.mean() == pytest.approx(0.25, abs=0.05)
