"""Claims about every loss on class scores: what they share, whatever their formula."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd import losses
from lightning_kd.errors import ShapeError

EXACT = {"rtol": 1e-9, "atol": 1e-12}

PLAIN = {
    "soft_target_kl": (losses.soft_target_kl, losses.SoftTargetKL, {"temperature": 2.0}),
    "class_mean_kl": (losses.class_mean_kl, losses.ClassMeanKL, {"temperature": 2.0}),
    "soft_cross_entropy": (losses.soft_cross_entropy, losses.SoftCrossEntropy, {"temperature": 2.0}),
    "symmetric_kl": (losses.symmetric_kl, losses.SymmetricKL, {}),
    "jensen_shannon": (losses.jensen_shannon, losses.JensenShannon, {}),
    "skew_kl": (losses.skew_kl, losses.SkewKL, {"skew": 0.2}),
    "skew_reverse_kl": (losses.skew_reverse_kl, losses.SkewReverseKL, {"skew": 0.2}),
    "hard_target_cross_entropy": (losses.hard_target_cross_entropy, losses.HardTargetCrossEntropy, {}),
    "interpolated_cross_entropy": (losses.interpolated_cross_entropy, losses.InterpolatedCrossEntropy, {"mix": 0.3}),
}
LABELLED = {
    "one_for_all": (losses.one_for_all, losses.OneForAll, {"exponent": 1.5, "temperature": 2.0}),
    "decoupled_kl": (losses.decoupled_kl, losses.DecoupledKL, {"temperature": 2.0, "beta": 3.0}),
    "normalized_cross_entropy": (losses.normalized_cross_entropy, losses.NormalizedCrossEntropy, {"temperature": 2.0}),
}
EACH = PLAIN | LABELLED
ZERO_AT_EQUALITY = [
    "soft_target_kl",
    "class_mean_kl",
    "decoupled_kl",
    "symmetric_kl",
    "jensen_shannon",
    "skew_kl",
    "skew_reverse_kl",
]
every_loss = pytest.mark.parametrize("name", EACH)


def loss_of(name):
    """The function with its options and, for losses without one, an unused target."""
    function, _, options = EACH[name]
    if name in LABELLED:
        return functools.partial(function, **options)
    return lambda student, teacher, target, **more: function(student, teacher, **options, **more)


def random_case(*leading, classes=5, dtype=torch.float64):
    student, teacher = torch.randn(2, *leading, classes, dtype=dtype).unbind()
    return student, teacher, torch.randint(classes, leading)


@st.composite
def cases(draw):
    rows, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    values = arrays(np.float64, (2, rows, classes), elements=st.floats(-20, 20, width=32))
    student, teacher = torch.from_numpy(draw(values)).unbind()
    return student, teacher, torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))


@every_loss
@given(case=cases())
def test_is_not_negative(name, case):
    assert (loss_of(name)(*case, reduction="none") >= -1e-9).all()


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
@given(case=cases())
def test_is_zero_with_zero_gradient_when_student_equals_teacher(name, case):
    _, teacher, target = case
    student = teacher.clone().requires_grad_()
    loss = loss_of(name)(student, teacher, target)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert_close(student.grad, torch.zeros_like(teacher), rtol=0.0, atol=1e-10)


@every_loss
@given(case=cases(), shifts=st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_ignores_a_constant_added_to_all_scores(name, case, shifts):
    (student, teacher, target), (ours, theirs) = case, shifts
    if name == "hard_target_cross_entropy":  # rounding may break a tie of the best classes
        theirs = round(theirs)
    loss = loss_of(name)
    assert_close(loss(student + ours, teacher + theirs, target), loss(student, teacher, target), rtol=1e-7, atol=1e-9)


@every_loss
def test_ignores_the_order_of_the_classes(name):
    student, teacher, target = random_case(6)
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = loss_of(name)(student[:, order], teacher[:, order], order.argsort()[target])
    assert_close(moved, loss_of(name)(student, teacher, target), **EXACT)


@every_loss
@given(case=cases())
def test_reductions_agree_and_a_batch_is_the_mean_of_its_items(name, case):
    loss = loss_of(name)
    each = loss(*case, reduction="none")
    items = [loss(*(tensor[[row]] for tensor in case)) for row in range(len(each))]
    assert_close(each, torch.stack(items), **EXACT)
    assert_close(loss(*case, reduction="mean"), each.mean(), **EXACT)
    assert_close(loss(*case, reduction="sum"), each.sum(), **EXACT)


@every_loss
def test_averages_over_every_leading_axis(name):
    student, teacher, target = random_case(2, 3, 4)
    flat = loss_of(name)(student.flatten(0, 2), teacher.flatten(0, 2), target.flatten())
    assert_close(loss_of(name)(student, teacher, target), flat, **EXACT)


# The target of the interpolated one follows the student without a gradient: see test_interpolation.py.
@pytest.mark.parametrize("name", [name for name in EACH if name != "interpolated_cross_entropy"])
def test_has_an_exact_gradient(name):
    student, teacher, target = random_case(3)
    assert torch.autograd.gradcheck(lambda s: loss_of(name)(s, teacher, target), student.requires_grad_())


@every_loss
def test_gives_the_teacher_no_gradient(name):
    student, teacher, target = random_case(3)
    loss_of(name)(student.requires_grad_(), teacher.requires_grad_(), target).backward()
    assert student.grad.ne(0).any()
    assert teacher.grad is None


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_mask_leaves_what_it_keeps(name, reduction):
    student, teacher, target = random_case(2, 3, 4)
    mask = torch.rand(2, 3, 4) > 0.4
    kept = loss_of(name)(student[mask], teacher[mask], target[mask], reduction=reduction)
    assert_close(loss_of(name)(student, teacher, target, mask=mask, reduction=reduction), kept, **EXACT)


@every_loss
def test_what_is_masked_reaches_neither_value_nor_gradient(name):
    student, teacher, target = random_case(6)
    mask = torch.tensor([True, False, True, True, False, False])
    expected = loss_of(name)(student, teacher, target, mask=mask, reduction="none")
    for tensor, strange in ((student, torch.nan), (teacher, torch.inf), (target, 255)):
        tensor[~mask] = strange
    student.requires_grad_()
    each = loss_of(name)(student, teacher, target, mask=mask, reduction="none")
    assert_close(each, expected, **EXACT)
    assert each[~mask].eq(0).all()
    loss_of(name)(student, teacher, target, mask=mask).backward()
    assert student.grad[~mask].eq(0).all()
    assert student.grad[mask].ne(0).any()


@every_loss
def test_a_mask_that_counts_all_changes_nothing(name):
    student, teacher, target = random_case(5)
    mask = torch.ones(5, dtype=torch.bool)
    assert_close(loss_of(name)(student, teacher, target, mask=mask), loss_of(name)(student, teacher, target), **EXACT)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_that_counts_gives_a_zero_that_keeps_the_graph(name, reduction):
    student, teacher, target = random_case(3)
    mask = torch.zeros(3, dtype=torch.bool)
    loss = loss_of(name)(student.requires_grad_(), teacher, target, mask=mask, reduction=reduction)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.eq(0).all()


@every_loss
@pytest.mark.parametrize(
    ("dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(name, dtype, returned):
    student, teacher, target = random_case(3, dtype=dtype)
    assert loss_of(name)(student, teacher, target).dtype == returned


@every_loss
@pytest.mark.parametrize("rows", [1, 8])
def test_is_itself_under_bfloat16_autocast_with_a_thousand_classes(name, rows):
    student, teacher, target = random_case(rows, classes=1000, dtype=torch.float32)
    expected = loss_of(name)(student, teacher, target)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(name)(student, teacher, target)
    loss.backward()
    assert_close(loss.detach(), expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()
    double = loss_of(name)(student.detach().double(), teacher.double(), target)
    assert_close(loss.detach().double(), double, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_is_finite_at_the_extremes_of_half_precision(name, dtype):
    student = torch.tensor([[6e4, -6e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-6e4, 6e4, 0.0]], dtype=dtype)
    loss = loss_of(name)(student, teacher, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@every_loss
def test_a_class_that_both_mask_contributes_nothing(name):
    student, teacher, target = random_case(3)
    closed = torch.full((3, 1), -torch.inf, dtype=torch.float64)
    wider = torch.cat([student, closed], dim=1).requires_grad_()
    loss = loss_of(name)(wider, torch.cat([teacher, closed], dim=1), target)
    loss.backward()
    expected = loss_of(name)(student, teacher, target)
    assert_close(loss.detach(), expected * 5 / 6 if name == "class_mean_kl" else expected, **EXACT)
    assert wider.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("masked", [False, True])
def test_the_module_computes_the_function(name, masked):
    function, module, options = EACH[name]
    student, teacher, target = random_case(4)
    arguments = (student, teacher, target) if name in LABELLED else (student, teacher)
    mask = torch.tensor([True, True, False, True]) if masked else None
    made = module(**options, reduction="sum")
    assert made(*arguments, mask=mask) == function(*arguments, **options, mask=mask, reduction="sum")
    assert repr(made).endswith("reduction='sum')")
    assert all(f"{key}={value}" in repr(made) for key, value in options.items())
    assert list(made.state_dict()) == []


@every_loss
def test_refuses_another_label_set(name):
    student, teacher, target = random_case(2)
    with pytest.raises(ShapeError, match=r"Logits .* got \(2, 5\) and \(2, 4\)"):
        loss_of(name)(student, teacher[:, :4], target)


@every_loss
def test_refuses_an_unknown_reduction(name):
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum', 'none', got 'batchmean'"):
        loss_of(name)(*random_case(2), reduction="batchmean")
    with pytest.raises(ValueError, match="got 'batchmean'"):
        EACH[name][1](reduction="batchmean")


@every_loss
def test_refuses_a_mask_that_does_not_fit(name):
    student, teacher, target = random_case(2, 3)
    with pytest.raises(ShapeError, match=r"`mask` must have .* without classes, \(2, 3\), got \(2,\)"):
        loss_of(name)(student, teacher, target, mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`mask` must be boolean, True where a position counts, got torch\.float32"):
        loss_of(name)(student, teacher, target, mask=torch.ones(2, 3))


@pytest.mark.parametrize("name", LABELLED)
def test_refuses_a_target_that_names_no_class(name):
    student, teacher, _ = random_case(2)
    with pytest.raises(ValueError, match=r"`target` must hold class indices from 0 to 4, got 1 to 255: .*mask="):
        loss_of(name)(student, teacher, torch.tensor([1, 255]))
    with pytest.raises(ValueError, match="got -100 to 1"):
        loss_of(name)(student, teacher, torch.tensor([1, -100]))
    with pytest.raises(TypeError, match=r"`target` must hold class indices, got torch\.float32: .*argmax"):
        loss_of(name)(student, teacher, torch.rand(2))
    with pytest.raises(ShapeError, match=r"`target` must have .* \(2,\), got \(2, 5\)"):
        loss_of(name)(student, teacher, torch.ones(2, 5).long())
    with pytest.raises(ShapeError, match=r"at least 2 classes apart, got shape \(2, 1\)"):
        loss_of(name)(student[:, :1], teacher[:, :1], torch.zeros(2).long())
