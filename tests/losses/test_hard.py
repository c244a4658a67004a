"""Claims about the teacher's decision as a target; those that all losses on scores share: test_scores.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import HardTargetCrossEntropy, class_balanced_weights, hard_target_cross_entropy

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

counts = st.lists(st.integers(1, 100_000), min_size=1, max_size=8)


def test_equals_the_published_value():
    assert hard_target_cross_entropy(ZS, ZT).item() == pytest.approx(0.4321426543, rel=1e-9)


def test_weighted_equals_the_published_value():
    weights = class_balanced_weights([500, 50, 5])
    assert hard_target_cross_entropy(ZS, ZT, class_weights=weights).item() == pytest.approx(0.5875644124, rel=1e-7)


@pytest.mark.parametrize(
    ("numbers", "beta", "expected"),
    [
        ([500, 50, 5], 0.9999, [0.02768960, 0.27076302, 2.70154738]),
        ([100, 10, 1], 0.9, [0.23932924, 0.36744197, 2.39322879]),
    ],
)
def test_class_balanced_weights_equal_the_published_values(numbers, beta, expected):
    assert class_balanced_weights(numbers, beta=beta).tolist() == pytest.approx(expected, rel=1e-6)


@given(counts, st.sampled_from([0.0, 0.9, 0.999, 0.9999]))
def test_class_balanced_weights_equal_the_reference(numbers, beta):
    # (1 - b^n) / (1 - b) is the geometric series 1 + b + ... + b^(n-1).
    series = np.array([(beta ** np.arange(n)).sum() for n in numbers])
    expected = (1 / series) / (1 / series).mean()
    assert class_balanced_weights(torch.tensor(numbers), beta=beta).numpy() == pytest.approx(expected, rel=1e-5)


@given(counts)
def test_class_balanced_weights_sum_to_the_number_of_classes_and_favour_the_rare(numbers):
    weights = class_balanced_weights(sorted(numbers))
    assert weights.sum().item() == pytest.approx(len(numbers), rel=1e-6)
    assert (weights.diff() <= 0).all()


def test_class_balanced_weights_of_equal_counts_are_one():
    assert_close(class_balanced_weights([70] * 5), torch.ones(5))
    assert_close(class_balanced_weights([3, 70, 900], beta=0.0), torch.ones(3))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_is_cross_entropy_with_the_decided_classes(weights):
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(student, teacher.argmax(dim=1), weight=weights, reduction=reduction)
        loss = hard_target_cross_entropy(student, teacher, class_weights=weights, reduction=reduction)
        assert_close(loss, expected, **EXACT)


def test_a_mask_leaves_what_it_keeps_of_the_weights_too():
    student, teacher = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64).unbind()
    mask = torch.rand(2, 3, 5) > 0.4
    expected = hard_target_cross_entropy(student[mask], teacher[mask], class_weights=WEIGHTS)
    student[~mask], teacher[~mask] = torch.nan, torch.nan
    assert_close(hard_target_cross_entropy(student, teacher, class_weights=WEIGHTS, mask=mask), expected, **EXACT)


def test_decisions_without_weight_give_a_zero_that_keeps_the_graph():
    student = ZS.clone().requires_grad_()
    loss = hard_target_cross_entropy(student, ZT, class_weights=torch.tensor([0.0, 0.0, 1.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.eq(0).all()


def test_ignores_how_certain_the_teacher_is():
    assert hard_target_cross_entropy(ZS, 0.01 * ZT) == hard_target_cross_entropy(ZS, 100.0 * ZT)


def test_the_module_keeps_its_weights_out_of_checkpoints_and_moves_them():
    module = HardTargetCrossEntropy(class_weights=WEIGHTS[:3], reduction="sum")
    assert module(ZS, ZT) == hard_target_cross_entropy(ZS, ZT, class_weights=WEIGHTS[:3], reduction="sum")
    assert list(module.state_dict()) == []
    assert module.to(torch.float32).class_weights.dtype == torch.float32
    assert repr(module) == "HardTargetCrossEntropy(weighted=True, reduction='sum')"


def test_refuses_weights_of_another_label_set():
    with pytest.raises(ShapeError, match=r"`class_weights` must have one entry per class, shape \(3,\), got \(4,\)"):
        hard_target_cross_entropy(ZS, ZT, class_weights=WEIGHTS)


def test_refuses_counts_and_beta_out_of_range():
    with pytest.raises(ValueError, match="`counts` must be at least 1 each, got 0"):
        class_balanced_weights([5, 0])
    with pytest.raises(ShapeError, match=r"`counts` must hold one number per class, got shape \(0,\)"):
        class_balanced_weights([])
    for beta in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"`beta` must be at least 0 and below 1, got {beta}"):
            class_balanced_weights([1, 2], beta=beta)


def test_label_smoothing_equals_the_published_value():
    # methods/speech.md, keyword spotting: a tenth of the target on all three classes.
    loss = hard_target_cross_entropy(
        torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64), torch.tensor([[0.0, 3.0, 0.0]]), label_smoothing=0.1
    )
    assert loss.item() == pytest.approx(0.895328137, abs=1e-9)


@given(st.floats(0, 1))
def test_label_smoothing_is_that_of_the_cross_entropy_with_the_decided_classes(smoothing):
    expected = F.cross_entropy(ZS, ZT.argmax(-1), label_smoothing=smoothing, reduction="none")
    assert_close(hard_target_cross_entropy(ZS, ZT, label_smoothing=smoothing, reduction="none"), expected)
    module = HardTargetCrossEntropy(label_smoothing=smoothing, reduction="none")
    assert_close(module(ZS, ZT), expected)


def test_label_smoothing_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"`label_smoothing` must be a number from 0 to 1, got 1\.5"):
        hard_target_cross_entropy(ZS, ZT, label_smoothing=1.5)
