"""The rule by which the audit of an export calls weights 2:4 sparse."""

import numpy as np
import pytest

from exporters.quantization.sparsity import is_two_four

SPARSE = np.array([[0.0, -0.9, 0.4, 0.0, 0.0, 0.25, 0.0, -0.6]])


def test_two_of_every_four_may_differ_from_zero():
    assert is_two_four(SPARSE)
    assert is_two_four(np.zeros((2, 8)))


def test_a_third_weight_in_a_group_is_one_too_many():
    dense = SPARSE.copy()
    dense[0, 0] = 0.1
    assert not is_two_four(dense)


def test_groups_do_not_slide():
    """Four neighbours across a border may hold four weights."""
    assert is_two_four(np.array([[0, 0, 1, 1, 1, 1, 0, 0]]))


def test_groups_lie_along_the_input_dimension():
    weight = np.stack([SPARSE] * 3, axis=-1)  # (1, 8, 3): a convolution's third axis is its kernel
    assert is_two_four(weight)
    assert is_two_four(SPARSE.T, axis=0)
    assert not is_two_four(np.ones((1, 8, 3)))


def test_integers_count_by_their_zero():
    assert is_two_four(np.array([[0, -127, 3, 0]], dtype=np.int8))


def test_inputs_that_four_does_not_divide_are_not_sparse():
    assert not is_two_four(np.zeros((1, 6)))


def test_an_axis_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"one of the 1 axes of the weight, got 1"):
        is_two_four(np.zeros(4))
