"""By hand."""

import numpy as np
import pytest

X = np.array([[-10.0, 0.3, 1.26], [0.5, 1.5, 100.0]], np.float32)
SCALES, ZEROS = np.array([0.5, 0.25, 1.0], np.float32), np.array([0, 1, -2], np.int8)

CASES = {
    # Divided by the scale and rounded to even: -20, 0.6 -> 1 (+1), 1.26 -> 1 (-2); 1, 6 (+1), 100 (-2).
    "quantize": (
        lambda mb, x: mb.cast(
            x=mb.quantize(input=x, scale=SCALES, zero_point=ZEROS, axis=1, output_dtype="int8"), dtype="int32"
        ),
        {"x": X},
        (np.array([[-20, 2, -1], [1, 7, 98]]),),
    ),
    # Without a zero point, and clamped to the range of eight bits.
    "quantize__clamped": (
        lambda mb, x: mb.cast(x=mb.quantize(input=x, scale=np.float32(0.05), output_dtype="int8"), dtype="int32"),
        {"x": X},
        (np.array([[-128, 6, 25], [10, 30, 127]]),),
    ),
    "dequantize": (
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=SCALES, zero_point=ZEROS, axis=1, output_dtype="int8"),
            scale=SCALES,
            zero_point=ZEROS,
            axis=1,
        ),
        {"x": X},
        (np.array([[-10, 0.25, 1], [0.5, 1.5, 100]]),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_was_worked_out(check, name):
    check(name)
