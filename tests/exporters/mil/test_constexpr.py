"""Worked out by hand, and on random weights against coremltools' own decompression."""

import numpy as np
import pytest

from exporters.mil.toolkit import types


def case(name, expected, **options):
    """A decompressed weight, made to depend on the input by adding zeros."""
    expected = np.asarray(expected, np.float32)
    return (
        lambda mb, x: mb.add(x=x, y=getattr(mb, name)(**options)),
        {"x": np.zeros(expected.shape, np.float32)},
        (expected,),
    )


def sparse(name, expected, **options):
    """A weight that is decompressed to a mask and values, and then to a dense one."""
    expected = np.asarray(expected, np.float32)

    def build(mb, x):
        mask, values = getattr(mb, name)(**options)
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))

    return build, {"x": np.zeros(expected.shape, np.float32)}, (expected,)


def bits(values, width):
    return np.array(values).astype(types.nptype_from_builtin(getattr(types, f"uint{width}")))


BYTES = np.array([[-4, 2, 127], [0, -128, 5]], np.int8)
# Five indices of 2 bits, the first in the lowest bits: 3, 0, 2, 1 in 0b01100011 and 1 in 0b00000001.
PACKED = np.array([0b01100011, 0b00000001], np.uint8)
TABLE = np.array([10.0, 20.0, 30.0, 40.0], np.float32)
# Elements 0, 2 and 3 of five.
PACKED_MASK = np.array([0b00001101], np.uint8)
MASK = bits([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], 1)

OLD = {
    "constexpr_affine_dequantize": case(
        "constexpr_affine_dequantize",
        [[-3, 1.5, 95.25], [-1, -65, 1.5]],
        quantized_data=BYTES,
        scale=np.array([0.75, 0.5], np.float32),
        zero_point=np.array([0, 2], np.int8),
        axis=np.int32(0),
    ),
    "constexpr_affine_dequantize__scalar": case(
        "constexpr_affine_dequantize",
        BYTES.astype(np.float32) / 2,
        quantized_data=BYTES,
        scale=np.float32(0.5),
        zero_point=np.int8(0),
        axis=np.int32(0),
    ),
    "constexpr_cast": case(
        "constexpr_cast", [0.5, 65504], source_val=np.array([0.5, 65504], np.float16), output_dtype="fp32"
    ),
    "constexpr_lut_to_dense": case(
        "constexpr_lut_to_dense", [40, 10, 30, 20, 20], indices=PACKED, lut=TABLE, shape=np.array([5], np.uint32)
    ),
    "constexpr_sparse_to_dense": case(
        "constexpr_sparse_to_dense",
        [[7], [0], [8], [9], [0]],
        nonzero_data=np.array([7, 8, 9], np.float32),
        mask=PACKED_MASK,
        shape=np.array([5, 1], np.uint32),
    ),
}

CASES = {
    # Two tables: the first for the upper half of the rows.
    "constexpr_lut_to_dense__groups": case(
        "constexpr_lut_to_dense",
        [[9, 13], [13, 1], [26, 2], [18, 10]],
        indices=bits([[2, 3], [3, 0], [3, 0], [2, 1]], 2),
        lut=np.array([[1, 5, 9, 13], [2, 10, 18, 26]], np.float32).reshape(2, 1, 4, 1),
    ),
    # An index stands for two values, one above the other.
    "constexpr_lut_to_dense__vector": case(
        "constexpr_lut_to_dense",
        [[1, 3], [2, 4], [3, 3], [4, 4]],
        indices=bits([[0, 1], [1, 1]], 1),
        lut=np.array([[1, 2], [3, 4]], np.float32).reshape(1, 1, 2, 2),
        vector_axis=np.int32(0),
    ),
    "constexpr_sparse_to_dense__new": case(
        "constexpr_sparse_to_dense",
        [[1, 2, 0, 0], [3, 4, 5, 0], [0, 0, 6, 7]],
        nonzero_data=np.arange(1, 8, dtype=np.float32),
        mask=MASK,
    ),
    # Blocks of one row and two columns: (2 - 1) * 0.5, (4 - 1) * 0.5, (6 - 0) * 2, (7 - 0) * 2; then without offsets 1.
    "constexpr_blockwise_shift_scale": case(
        "constexpr_blockwise_shift_scale",
        [[0.5, 1.5, 12, 14], [3, 0, 4, 8]],
        data=np.array([[2, 4, 6, 7], [3, 0, 1, 2]], np.int8),
        scale=np.array([[0.5, 2], [1, 4]], np.float32),
        offset=np.array([[1, 0], [0, 0]], np.int8),
    ),
    "constexpr_blockwise_shift_scale__plain": case(
        "constexpr_blockwise_shift_scale",
        [[-1, 2], [-6, 10]],
        data=np.array([[-2, 4], [-3, 5]], np.int8),
        scale=np.array([[0.5], [2]], np.float32),
    ),
    "constexpr_lut_to_sparse": sparse(
        "constexpr_lut_to_sparse",
        [[2, 3, 0, 0], [3, 2, 2, 0], [0, 0, 3, 2]],
        indices_mask=MASK,
        indices_nonzero_data=bits([0, 1, 1, 0, 0, 1, 0], 1),
        lut=np.array([2, 3], np.float32).reshape(1, 1, 2, 1),
    ),
    "constexpr_lut_to_sparse__vector": sparse(
        "constexpr_lut_to_sparse",
        [[2, 0], [5, 0], [3, 2], [7, 5]],
        indices_mask=bits([[1, 0], [1, 1]], 1),
        indices_nonzero_data=bits([0, 1, 0], 1),
        lut=np.array([[2, 5], [3, 7]], np.float32).reshape(1, 1, 2, 2),
        vector_axis=np.int32(0),
    ),
    # A scale and an offset for every column: (10 - 1) * 0.5, (11 - 2) * 1, (3 - 1) * 0.5, (4 - 2) * 1, ...
    "constexpr_sparse_blockwise_shift_scale": sparse(
        "constexpr_sparse_blockwise_shift_scale",
        [[4.5, 9, 0, 0], [1, 2, 4, 0], [0, 0, 6, 12]],
        data_mask=MASK,
        nonzero_data=np.array([10, 11, 3, 4, 5, 6, 7], np.int8),
        scale=np.array([[0.5, 1, 2, 4]], np.float32),
        offset=np.array([[1, 2, 3, 4]], np.int8),
    ),
}


@pytest.fixture(scope="module")
def of_ios_16(evaluate, tmp_path_factory):
    return evaluate(OLD, tmp_path_factory.mktemp("old"), target="iOS16")


@pytest.mark.parametrize("name", CASES)
def test_gives_what_was_worked_out(check, name):
    check(name)


@pytest.mark.parametrize("name", OLD)
def test_gives_what_was_worked_out_in_the_form_of_ios_16(of_ios_16, name):
    np.testing.assert_allclose(of_ios_16[name][0], OLD[name][2][0], rtol=1e-6)
