"""Claims about `hierarchical_context` and `patch_embedding_alignment`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    HierarchicalContext,
    PatchEmbeddingAlignment,
    hierarchical_context,
    patch_embedding_alignment,
)

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def map_pairs(draw):
    shape = draw(st.sampled_from([(2, 2, 1, 1), (1, 2, 3, 5), (2, 1, 8, 6), (2, 2, 7), (1, 1, 5, 3, 4)]))
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def stages(value, dtype=torch.float64):
    return [torch.full((2, tokens, 3), value, dtype=dtype) for tokens in (64, 16, 4, 1)]


def test_context_equals_the_published_value():
    # Of the levels 4, 2, 1 only 1 is below the height of 2. Full size: 12/8. Means of the channels: 1 against 1 and 1/2
    # against 1, so 1/8. (3/2 + 1/2 * 1/8) / (3/2)
    assert hierarchical_context(MS, MT).item() == pytest.approx(1.0416666667, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 16])
def test_a_constant_offset_gives_its_square_at_any_size(size):
    target = torch.randn(2, 3, size, size, dtype=torch.float64)
    assert hierarchical_context(target + 1.5, target).item() == pytest.approx(2.25, rel=1e-9)


def test_a_checkerboard_is_seen_at_full_size_only():
    # Mean squared error 1 at full size, 0 at levels 4, 2 and 1: 1 / (1 + 1/2 + 1/4 + 1/8)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = (1.0 - 2.0 * ((rows + columns) % 2)).double()[None, None]
    assert hierarchical_context(board, torch.zeros_like(board)).item() == pytest.approx(0.5333333333, rel=1e-9)


def test_equals_pooling_both_maps_by_hand():
    # Height and width 4: levels 2 and 1, whose cells are blocks of 2x2 and of 4x4, with weights 1/2 and 1/4.
    student, teacher = np.random.default_rng(0).normal(size=(2, 3, 5, 4, 4))
    terms = []
    for level, weight in ((4, 1.0), (2, 0.5), (1, 0.25)):
        block = 4 // level
        s, t = (x.reshape(3, 5, level, block, level, block).mean(axis=(3, 5)) for x in (student, teacher))
        terms.append(weight * ((s - t) ** 2).mean())
    loss = hierarchical_context(torch.from_numpy(student), torch.from_numpy(teacher))
    assert loss.item() == pytest.approx(sum(terms) / 1.75, rel=1e-12)


def test_a_level_must_be_below_the_height():
    student, teacher = torch.randn(2, 1, 2, 2, 8, dtype=torch.float64).unbind()
    expected = hierarchical_context(student, teacher, levels=(1,))
    assert_close(hierarchical_context(student, teacher), expected, **EXACT)


def test_a_level_may_be_above_the_width():
    # Errors of 1 in the left column and 2 in the right one: mean square 5/2 at full size and at levels 4 and 2, of
    # which 4 repeats the columns; 9/4 at level 1.
    student = torch.tensor([1.0, 2.0], dtype=torch.float64).expand(1, 3, 8, 2)
    loss = hierarchical_context(student, torch.zeros(1, 3, 8, 2, dtype=torch.float64))
    assert loss.item() == pytest.approx((2.5 + 0.5 * 2.5 + 0.25 * 2.5 + 0.125 * 2.25) / 1.875, rel=1e-12)


def test_a_one_by_one_map_gives_the_mean_squared_error():
    student, teacher = torch.randn(2, 4, 8, 1, 1, dtype=torch.float64).unbind()
    assert_close(hierarchical_context(student, teacher), (student - teacher).square().mean(), **EXACT)


@given(map_pairs())
def test_context_is_zero_at_equality_and_not_negative(pair):
    assert hierarchical_context(pair[1], pair[1]).item() == 0.0
    assert hierarchical_context(*pair).item() >= 0.0


@given(map_pairs())
def test_context_of_a_batch_is_the_mean_of_its_items(pair):
    items = [hierarchical_context(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(hierarchical_context(*pair), torch.stack(items).mean(), **EXACT)


@given(map_pairs(), st.randoms(use_true_random=False))
def test_context_ignores_the_order_of_the_channels(pair, random):
    student, teacher = pair
    order = random.sample(range(student.shape[1]), student.shape[1])
    assert_close(
        hierarchical_context(student[:, order], teacher[:, order]), hierarchical_context(student, teacher), **EXACT
    )


def test_context_has_an_exact_gradient():
    student, teacher = torch.randn(2, 2, 3, 5, 6, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(lambda s: hierarchical_context(s, teacher), student.requires_grad_())


def test_alignment_weighs_the_stages():
    # Unit error in every stage: 0.1 + 0.1 + 0.5 + 1.0
    assert patch_embedding_alignment(stages(0.0), stages(1.0)).item() == pytest.approx(1.7, rel=1e-12)


@pytest.mark.parametrize(("stage", "weight"), [(0, 0.1), (1, 0.1), (2, 0.5), (3, 1.0)])
def test_alignment_of_one_stage_has_its_weight(stage, weight):
    students, teachers = stages(0.0), stages(0.0)
    students[stage] += 2.0
    assert patch_embedding_alignment(students, teachers).item() == pytest.approx(4.0 * weight, rel=1e-12)


def test_alignment_takes_the_single_embedding_of_a_plain_transformer():
    loss = patch_embedding_alignment(stages(0.0)[:1], stages(3.0)[:1], weights=(0.5,))
    assert loss.item() == pytest.approx(4.5, rel=1e-12)


@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8))
def test_alignment_is_zero_at_equality_and_not_negative(values):
    students, teachers = ([torch.tensor([[v]], dtype=torch.float64) for v in half] for half in (values[:4], values[4:]))
    assert patch_embedding_alignment(students, students).item() == 0.0
    assert patch_embedding_alignment(students, teachers).item() >= 0.0


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_both_promote_half_and_keep_double(given_dtype, returned):
    assert hierarchical_context(MS.to(given_dtype), MT.to(given_dtype)).dtype == returned
    assert patch_embedding_alignment(stages(0.0, given_dtype), stages(1.0, given_dtype)).dtype == returned


def test_both_equal_themselves_under_bfloat16_autocast():
    student, teacher = torch.randn(2, 2, 3, 8, 8).unbind()
    expected = hierarchical_context(student, teacher), patch_embedding_alignment([student] * 4, [teacher] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(hierarchical_context(student, teacher), expected[0], rtol=1e-6, atol=0.0)
        assert_close(patch_embedding_alignment([student] * 4, [teacher] * 4), expected[1], rtol=1e-6, atol=0.0)


def test_both_are_finite_where_squares_overflow_half_precision():
    student = torch.full((1, 2, 8, 8), 6e4, dtype=torch.float16, requires_grad=True)
    loss = hierarchical_context(student, -student.detach())
    (loss + patch_embedding_alignment([student] * 4, [-student.detach()] * 4)).backward()
    assert loss.isfinite()
    # The gradient is cast back to half precision: 2 * 120000 / elements stays in range here.
    assert student.grad.isfinite().all()


def test_neither_gives_the_teacher_a_gradient():
    student, teacher = MS.clone().requires_grad_(), MT.clone().requires_grad_()
    loss = hierarchical_context(student, teacher)
    (loss + patch_embedding_alignment([student] * 4, [teacher] * 4)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_modules_compute_the_functions():
    context, alignment = HierarchicalContext(levels=(2, 1)), PatchEmbeddingAlignment(weights=(1.0, 2.0))
    student, teacher = torch.randn(2, 2, 3, 5, 5).unbind()
    assert context(student, teacher) == hierarchical_context(student, teacher, levels=(2, 1))
    pair = [student, teacher], [teacher, student]
    assert alignment(*pair) == patch_embedding_alignment(*pair, weights=(1.0, 2.0))
    assert repr(context) == "HierarchicalContext(levels=(2, 1))"
    assert repr(alignment) == "PatchEmbeddingAlignment(weights=(1.0, 2.0))"


def test_context_refuses_maps_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2, 2\) and \(1, 2, 2, 1\)"):
        hierarchical_context(MS, MT[..., :1])
    with pytest.raises(ShapeError, match=r"one to three grid axes after \(N, C\), got shape \(2, 3\)"):
        hierarchical_context(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 2, 2, 2\)"):
        hierarchical_context(MS[:0], MT[:0])
    with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
        hierarchical_context(MS, MT.long())


def test_context_refuses_levels_below_one():
    with pytest.raises(ValueError, match=r"`levels` must be at least 1 cell each, got \(4, 0\)"):
        hierarchical_context(MS, MT, levels=(4, 0))
    with pytest.raises(ValueError, match=r"got \(4, 0\)"):
        HierarchicalContext(levels=(4, 0))


def test_alignment_refuses_stages_that_do_not_pair_up():
    with pytest.raises(ShapeError, match="one entry per stage, got 1, 1 and 4"):
        patch_embedding_alignment(stages(0.0)[:1], stages(0.0)[:1])
    with pytest.raises(ShapeError, match="got 4, 3 and 4"):
        patch_embedding_alignment(stages(0.0), stages(0.0)[:3])
    with pytest.raises(ShapeError, match=r"got \(2, 64, 3\) and \(2, 1, 3\)"):
        patch_embedding_alignment(stages(0.0), stages(0.0)[::-1])


def test_alignment_refuses_weights_that_are_not_above_zero():
    with pytest.raises(ValueError, match=r"`weights\[2\]` must be a finite number above 0, got 0\.0"):
        PatchEmbeddingAlignment(weights=(0.1, 0.1, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"`weights\[0\]` must be a finite number above 0, got nan"):
        patch_embedding_alignment(stages(0.0), stages(0.0), weights=(float("nan"), 1.0, 1.0, 1.0))
