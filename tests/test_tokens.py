"""Claims about tokens side by side."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import LayoutError
from lightning_kd.layout import Layout
from lightning_kd.tokens import common_tokens, distinct_tokens, take_tokens


def test_the_same_tokens_are_taken_as_they_are():
    student, teacher = torch.randn(2, 17, 8), torch.randn(2, 17, 12)
    layout = Layout("NLD", prefix_tokens=1)
    s, t = common_tokens(student, teacher, layout, layout)
    assert s is student
    assert t is teacher


def test_frames_of_equal_number_are_taken_as_they_are():
    frames = torch.randn(2, 7, 8)
    assert common_tokens(frames, frames, Layout("NTD"), Layout("NTD"))[0] is frames


def test_prefix_tokens_are_dropped_where_their_numbers_differ():
    student, teacher = torch.randn(2, 17, 8), torch.randn(2, 18, 8)
    s, t = common_tokens(student, teacher, Layout("NLD", prefix_tokens=1), Layout("NLD", prefix_tokens=2))
    assert_close(s.flatten(1, 2), student[:, 1:], rtol=0.0, atol=0.0)
    assert_close(t.flatten(1, 2), teacher[:, 2:], rtol=0.0, atol=0.0)


def test_a_map_meets_tokens_on_the_smaller_grid():
    student, teacher = torch.randn(2, 8, 8, 8), torch.randn(2, 17, 12)
    s, t = common_tokens(student, teacher, Layout("NCHW"), Layout("NLD", prefix_tokens=1))
    assert s.shape == (2, 4, 4, 8)
    assert t.shape == (2, 4, 4, 12)
    assert_close(s[0, 0, 0], student[0, :, :2, :2].mean(dim=(1, 2)))


def test_a_map_and_frames_have_no_common_grid():
    with pytest.raises(LayoutError, match="a map and a sequence of frames have no common grid"):
        common_tokens(torch.zeros(2, 8, 4, 4), torch.zeros(2, 16, 8), Layout("NCHW"), Layout("NTD"))


def test_the_distinct_tokens_are_the_ones_unlike_the_rest():
    # Three of the five tokens point the same way, the other two elsewhere.
    tokens = torch.tensor([[[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [3.0, 0, 0]]])
    assert distinct_tokens(tokens, 2).tolist() == [[2, 3]]
    assert take_tokens(tokens, distinct_tokens(tokens, 2)).tolist() == [[[0, 1.0, 0], [0, 0, 1.0]]]


@given(st.integers(1, 9), st.integers(0, 99))
def test_the_distinct_tokens_follow_the_order_of_the_tokens(keep, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(3, 9, 4, generator=generator, dtype=torch.float64)
    order = torch.randperm(9, generator=generator)
    kept, of_shuffled = distinct_tokens(tokens, keep), distinct_tokens(tokens[:, order], keep)
    assert order[of_shuffled].sort(dim=1).values.equal(kept)
