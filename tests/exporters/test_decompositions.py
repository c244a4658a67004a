import pytest
import torch
import torch.nn.functional as F

from exporters.decompositions import (
    adaptive_max_pool,
    adaptive_pool,
    as_strided,
    average_pool,
    fold,
    frames,
    unfold,
    variance,
)

POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil", "include"),
    [
        (3, 2, 1, True, False),
        (3, 2, 1, True, True),
        (3, 2, 0, True, True),
        (3, 1, 1, False, False),
        (4, 3, 1, True, True),
    ],
)
def test_average_pooling_counts_what_pytorch_counts(rank, kernel, stride, padding, ceil, include):
    input = torch.randn(2, 3, *(10, 9, 12)[:rank])
    expected = POOL[rank](input, kernel, stride, padding, ceil_mode=ceil, count_include_pad=include)
    actual = average_pool(rank, input, [kernel], [stride], [padding], ceil, include)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_given_divisor_replaces_the_count():
    input = torch.randn(2, 3, 11, 10)
    expected = F.avg_pool2d(input, 4, 3, 2, ceil_mode=True, divisor_override=5)
    torch.testing.assert_close(average_pool(2, input, [4, 4], [3, 3], [2, 2], True, True, 5), expected)


@pytest.mark.parametrize(("padding", "include"), [(0, False), (1, True)])
def test_pooling_that_converters_know_is_left_alone(padding, include):
    assert average_pool(2, torch.randn(1, 1, 8, 8), [3], [2], [padding], False, include) is NotImplemented


@pytest.mark.parametrize("size", [(3, 5), (10, 9), (1, 4), (12, 2), (1, 1)])
def test_adaptive_pooling_has_the_windows_of_pytorch(size):
    input = torch.randn(2, 3, 10, 9)
    means = adaptive_pool(torch.mean, 2, input, size)
    torch.testing.assert_close(means, F.adaptive_avg_pool2d(input, size))
    maxima, places = adaptive_max_pool(input, size)
    torch.testing.assert_close(maxima, F.adaptive_max_pool2d(input, size), rtol=0, atol=0)
    assert places.shape == maxima.shape


def test_strides_that_move_nothing_are_the_tensor_itself():
    input = torch.randn(2, 5, 1, 1)
    torch.testing.assert_close(as_strided(input, [2, 5, 1, 1], [5, 1, 5, 5]), input)


@pytest.mark.parametrize(("size", "stride", "offset"), [([2, 2], [1, 2], 0), ([2, 2], [2, 1], 1), ([4], [1], 0)])
def test_strides_that_move_elements_are_left_alone(size, stride, offset):
    assert as_strided(torch.randn(2, 2), size, stride, offset) is NotImplemented


WINDOWS = pytest.mark.parametrize(
    ("kernel", "dilation", "padding", "stride"),
    [(3, 1, 1, 2), ((2, 3), (2, 1), (0, 1), (1, 2)), (3, 1, 0, 3), ((4, 2), 1, 0, (4, 2))],
)


def pairs(*values):
    return [value if isinstance(value, tuple) else (value, value) for value in values]


@WINDOWS
def test_windows_become_the_columns_of_pytorch(kernel, dilation, padding, stride):
    image = torch.randn(2, 3, 11, 10)
    actual = unfold(image, *pairs(kernel, dilation, padding, stride))
    torch.testing.assert_close(actual, F.unfold(image, kernel, dilation, padding, stride), rtol=0, atol=0)


def test_windows_of_an_image_without_a_batch_are_left_alone():
    assert unfold(torch.randn(3, 8, 8), [2, 2], [1, 1], [0, 0], [2, 2]) is NotImplemented


@pytest.mark.parametrize(("dimension", "size", "step"), [(-1, 8, 4), (1, 3, 3), (2, 20, 7), (0, 2, 1)])
def test_frames_are_those_of_pytorch(dimension, size, step):
    input = torch.randn(4, 6, 50)
    expected = input.unfold(dimension, size, step)
    torch.testing.assert_close(frames(input, dimension, size, step), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dim", [None, [1], [-1, 0]])
@pytest.mark.parametrize("correction", [0, 1, 2])
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_variance_is_that_of_pytorch(dim, correction, keepdim):
    input = torch.randn(4, 6, 5)
    expected = torch.var(input, dim, correction=correction, keepdim=keepdim)
    torch.testing.assert_close(variance(input, dim, correction=correction, keepdim=keepdim), expected)


@WINDOWS
def test_columns_become_the_image_of_pytorch(kernel, dilation, padding, stride):
    columns = F.unfold(torch.randn(2, 3, 11, 10), kernel, dilation, padding, stride)
    actual = fold(columns, (11, 10), *pairs(kernel, dilation, padding, stride))
    torch.testing.assert_close(actual, F.fold(columns, (11, 10), kernel, dilation, padding, stride))


def test_columns_without_a_batch_are_left_alone():
    assert fold(torch.randn(12, 16), (8, 8), [2, 2], [1, 1], [0, 0], [2, 2]) is NotImplemented
