import numpy as np
import pytest

from exporters.errors import InputError
from exporters.profiling.inputs import check_batch_size, random_inputs
from exporters.signature import DimensionRange, TensorSpec

IMAGE = TensorSpec("image", ("batch", 3, 8), "float32")
STATIC = TensorSpec("image", (4, 3), "float32")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint8", "bool"])
def test_arrays_have_the_dtype_and_the_batch(dtype):
    specs = [TensorSpec("x", ("batch", 5), dtype), TensorSpec("scale", (), dtype)]
    arrays = random_inputs(specs, batch_size=3, seed=0)
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "x": ((3, 5), dtype),
        "scale": ((), dtype),
    }
    assert arrays["x"].flags.c_contiguous


def test_numbers_are_standard_normal_and_indices_fit_any_vocabulary():
    specs = [TensorSpec("x", (1000, 100), "float32"), TensorSpec("tokens", (1000,), "int64")]
    arrays = random_inputs(specs, batch_size=1, seed=0)
    # 100,000 draws: standard errors 0.003 of the mean and 0.002 of the deviation.
    assert arrays["x"].mean() == pytest.approx(0, abs=0.02)
    assert arrays["x"].std() == pytest.approx(1, abs=0.02)
    assert set(arrays["tokens"]) == {0, 1}


def test_arrays_follow_the_seed():
    one, same, other = (random_inputs([IMAGE], batch_size=2, seed=seed)["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_dynamic_dimensions_besides_the_batch_need_inputs_from_the_user():
    with pytest.raises(InputError, match=r"`inputs` must be given .* input `x` of shape \('batch', 'length'\)"):
        random_inputs([TensorSpec("x", ("batch", "length"), "float32")], batch_size=1, seed=0)


def test_declared_sizes_and_values_are_those_measured_at():
    spec = TensorSpec("x", ("batch", "length"), "float32", value_range=(2.0, 3.0))
    array = random_inputs([spec], batch_size=4, seed=0, dimensions={"length": DimensionRange(10, 900, optimum=500)})[
        "x"
    ]
    assert array.shape == (4, 500)
    assert array.min() >= 2
    assert array.max() <= 3


def test_other_element_types_need_inputs_from_the_user():
    with pytest.raises(InputError, match=r"elements of type complex64, got none for input `x`"):
        random_inputs([TensorSpec("x", (2,), "complex64")], batch_size=1, seed=0)


def test_a_static_network_takes_its_own_batch_size_only():
    check_batch_size([STATIC], None, batch_size=4)
    with pytest.raises(
        InputError, match=r"`batch_size` must be 4, the static batch size of input `image`, got 1; pass"
    ):
        check_batch_size([STATIC], None, batch_size=1)


def test_dimensions_that_are_not_the_batch_do_not_count():
    check_batch_size([TensorSpec("mask", (7,), "bool"), IMAGE], None, batch_size=2)
    check_batch_size([TensorSpec("scale", (), "float32")], None, batch_size=2)


@pytest.mark.parametrize(("spec", "array"), [(IMAGE, np.zeros((3, 3, 8))), (IMAGE, np.zeros(()))])
def test_inputs_of_another_batch_size_are_refused(spec, array):
    with pytest.raises(InputError, match=r"`batch_size` must be the batch size of `inputs`, got 2 and an array of sha"):
        check_batch_size([spec], {"image": array}, batch_size=2)
