"""Claims about `generation_error`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import GenerationError, feature_mse, generation_error

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(2, 3), (3, 2, 4), (2, 3, 2, 2)]))
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
    mask_shape = (shape[0], 1, *shape[2:])
    mask = arrays(np.bool_, mask_shape)
    return tuple(torch.from_numpy(draw(array)) for array in (values, values, mask))


def test_equals_the_hand_derived_value():
    # Squared differences of MS and MT: 1 + 4 + 1 + 0 and 1 + 0 + 1 + 4, one sample.
    assert generation_error(MS, MT).item() == pytest.approx(12.0, rel=1e-12)


@given(cases())
def test_equals_the_reference(case):
    student, teacher, mask = (tensor.numpy() for tensor in case)
    total = 0.0
    for s, t, m in zip(student, teacher, mask, strict=True):
        difference = (s - t)[np.broadcast_to(m, s.shape)]
        total += np.dot(difference, difference)
    loss = generation_error(*case[:2], mask=case[2])
    assert loss.item() == pytest.approx(total / len(student), rel=1e-9, abs=1e-12)


@given(cases())
def test_is_the_mean_squared_error_times_the_elements_of_a_sample(case):
    student, teacher, _ = case
    assert_close(generation_error(student, teacher), feature_mse(student, teacher) * student[0].numel(), **EXACT)


@given(cases())
def test_is_zero_at_equality_and_not_negative(case):
    student, teacher, mask = case
    assert generation_error(teacher, teacher, mask=mask).item() == 0.0
    assert generation_error(student, teacher, mask=mask).item() >= 0.0


@given(cases())
def test_a_mask_and_its_complement_add_up(case):
    student, teacher, mask = case
    parts = generation_error(student, teacher, mask=mask) + generation_error(student, teacher, mask=~mask)
    assert_close(parts, generation_error(student, teacher), **EXACT)


@given(cases())
def test_reductions_agree(case):
    each = generation_error(*case[:2], mask=case[2], reduction="none")
    assert each.shape == case[0].shape[:1]
    assert_close(generation_error(*case[:2], mask=case[2]), each.mean(), **EXACT)
    assert_close(generation_error(*case[:2], mask=case[2], reduction="sum"), each.sum(), **EXACT)


@given(cases())
def test_what_is_left_out_influences_neither_value_nor_gradient(case):
    student, teacher, mask = case
    student = student.masked_fill(~mask, float("inf")).requires_grad_()
    loss = generation_error(student, teacher, mask=mask)
    loss.backward()
    assert loss.isfinite()
    assert (student.grad.masked_fill(mask, 0.0) == 0).all()


def test_has_an_exact_gradient():
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64).unbind()
    mask = torch.rand(2, 1, 2, 2) < 0.5
    assert torch.autograd.gradcheck(lambda s: generation_error(s, teacher, mask=mask), student.requires_grad_())


def test_gives_the_teacher_no_gradient():
    student, teacher = MS.clone().requires_grad_(), MT.clone().requires_grad_()
    generation_error(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("samples", [1, 4])
def test_equals_itself_under_bfloat16_autocast(samples):
    student, teacher = torch.randn(2, samples, 3, 8, 8).unbind()
    student.requires_grad_()
    expected = generation_error(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = generation_error(student, teacher)
    loss.backward()
    assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    assert generation_error(MS.to(given_dtype), MT.to(given_dtype)).dtype == returned


def test_module_computes_the_function():
    module, mask = GenerationError(reduction="sum"), MS[:, :1] > 0
    assert module(MS, MT) == generation_error(MS, MT, reduction="sum")
    assert module(MS, MT, mask) == generation_error(MS, MT, mask=mask, reduction="sum")
    assert repr(module) == "GenerationError(reduction='sum')"


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2, 2\) and \(1, 2, 2, 1\)"):
        generation_error(MS, MT[..., :1])
    with pytest.raises(ShapeError, match=r"`mask` must broadcast to \(1, 2, 2, 2\), got shape \(3, 1, 1\)"):
        generation_error(MS, MT, mask=torch.ones(3, 1, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"got shape \(1, 1, 1, 1, 1\)"):
        generation_error(MS, MT, mask=torch.ones(1, 1, 1, 1, 1, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`mask` must be boolean, got torch\.float32"):
        generation_error(MS, MT, mask=torch.ones(1, 1, 2, 2))
    with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
        generation_error(MS, MT.long())


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'batch'"):
        GenerationError(reduction="batch")
