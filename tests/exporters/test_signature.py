import numpy as np
import pytest

from exporters.errors import InputError
from exporters.signature import DimensionRange, Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("image", ("batch", 3), "float32"), TensorSpec("mask", ("batch",), "int64")),
    outputs=(TensorSpec("output", ("batch", 2), "float32"),),
    dimensions={"batch": DimensionRange(2, 4)},
)


def arrays(images: int = 3, masks: int = 3) -> dict[str, np.ndarray]:
    return {"image": np.zeros((images, 3), np.float32), "mask": np.zeros(masks, np.int64)}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_accepts_every_size_in_the_range(size):
    SIGNATURE.check(arrays(size, size))


@pytest.mark.parametrize("size", [1, 5])
def test_refuses_a_size_outside_the_range(size):
    with pytest.raises(InputError, match=f"`batch` of input `image` must be 2 to 4, got {size}"):
        SIGNATURE.check(arrays(size, size))


def test_refuses_inputs_that_disagree_on_a_dynamic_size():
    with pytest.raises(InputError, match="same in every input, got 4 in `mask` and 3"):
        SIGNATURE.check(arrays(3, 4))


@pytest.mark.parametrize("inputs", [{}, {"image": arrays()["image"]}, arrays() | {"label": np.zeros(3)}])
def test_refuses_missing_and_unknown_names(inputs):
    with pytest.raises(InputError, match="exactly the names `image`, `mask`"):
        SIGNATURE.check(inputs)


def test_refuses_another_dtype_and_names_the_cure():
    with pytest.raises(InputError, match=r"must have dtype float32, got float64; .*astype\('float32'\)"):
        SIGNATURE.check(arrays() | {"image": np.zeros((3, 3))})


@pytest.mark.parametrize("shape", [(3, 4), (3,), (3, 3, 1)])
def test_refuses_another_shape(shape):
    with pytest.raises(InputError, match=rf"must have shape .*got \({shape[0]},"):
        SIGNATURE.check(arrays() | {"image": np.zeros(shape, np.float32)})


def test_refuses_what_is_not_an_array():
    with pytest.raises(InputError, match="`image` must be a NumPy array, got list"):
        SIGNATURE.check(arrays() | {"image": [0.0]})
