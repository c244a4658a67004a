"""Claims about the banks of contrastive distillation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.adapters.memory import ContrastiveMemory, contrast_groups
from lightning_kd.errors import SetupError

GROUPS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def unit_rows(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


@pytest.fixture
def memory():
    return ContrastiveMemory(GROUPS, 4).double()


def test_starts_with_uniform_embeddings_of_length_about_one():
    banks = ContrastiveMemory(torch.arange(4000), 128)
    bound = 1 / math.sqrt(128 / 3)
    for bank in (banks.student, banks.teacher):
        assert bank.shape == (4000, 128)
        assert bank.abs().max() <= bound
        assert bank.square().sum(dim=1).mean().item() == pytest.approx(1.0, rel=0.01)
    assert not torch.equal(banks.student, banks.teacher)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6, unique=True), st.integers(1, 5))
def test_draws_the_sample_itself_and_others_of_other_groups_once(indices, negatives):
    indices = torch.tensor(indices)
    drawn = ContrastiveMemory(GROUPS, 2).candidates(indices, negatives)
    assert drawn.shape == (len(indices), 1 + negatives)
    assert torch.equal(drawn[:, 0], indices)
    for own, others in zip(indices, drawn[:, 1:], strict=True):
        assert (GROUPS[others] != GROUPS[own]).all()
        assert len(others.unique()) == negatives


def test_draws_every_other_sample_equally_often(memory):
    drawn = torch.cat([memory.candidates(torch.tensor([0]), 2)[:, 1:] for _ in range(2000)])
    shares = torch.bincount(drawn.flatten(), minlength=8) / 2000
    # Two of the five samples of other groups: each with probability 2/5.
    assert_close(shares, torch.where(GROUPS == 0, 0.0, 0.4), rtol=0.0, atol=0.04)


def test_draws_the_same_from_the_same_generator(memory):
    first, second = (
        memory.candidates(torch.arange(3), 3, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, memory.candidates(torch.arange(3), 3))


def test_probabilities_are_those_of_the_other_bank_over_a_constant_fixed_at_first(memory):
    student, teacher = unit_rows(3, 4), unit_rows(3, 4)
    drawn = memory.candidates(torch.tensor([1, 4, 6]), 3)
    banks = memory.student.numpy().copy(), memory.teacher.numpy().copy()

    def exponentials(embeddings, bank):
        scores = [[np.dot(bank[j], x) for j in row] for x, row in zip(embeddings.numpy(), drawn.numpy(), strict=True)]
        return np.exp(np.array(scores) / 0.07)

    expected = exponentials(student, banks[1]), exponentials(teacher, banks[0])
    constants = [8 * values.mean() for values in expected]
    for values, exponential, constant in zip(memory(student, teacher, drawn), expected, constants, strict=True):
        assert_close(values.exp(), torch.from_numpy(exponential / constant), **EXACT)
    # The next batch is divided by the same constants.
    other = unit_rows(3, 4)
    of_student, _ = memory(other, teacher, drawn)
    assert_close(of_student.exp(), torch.from_numpy(exponentials(other, banks[1]) / constants[0]), **EXACT)


def test_gradients_reach_both_embeddings_through_the_banks_as_they_were(memory):
    student, teacher = (unit_rows(3, 4).requires_grad_() for _ in range(2))
    indices = torch.tensor([1, 4, 6])
    drawn = memory.candidates(indices, 3)
    kept = memory.teacher.clone()
    of_student, of_teacher = memory(student, teacher, drawn)
    memory.update(indices, student, teacher)
    (of_student[:, 0].sum() + of_teacher.sum()).backward()
    assert_close(student.grad, kept[indices] / 0.07, **EXACT)
    assert teacher.grad.ne(0).any()


def test_embeddings_are_remembered_with_momentum_and_length_one(memory):
    before, seen = memory.student.clone(), unit_rows(2, 4)
    memory.update(torch.tensor([6, 1]), seen, unit_rows(2, 4))
    mixed = (before[[6, 1]] + seen) / 2
    assert_close(memory.student[[6, 1]], mixed / mixed.norm(dim=1, keepdim=True), **EXACT)
    untouched = [0, 2, 3, 4, 5, 7]
    assert torch.equal(memory.student[untouched], before[untouched])


def test_of_a_sample_seen_twice_the_first_embedding_is_remembered(memory):
    other = ContrastiveMemory(GROUPS, 4).double()
    other.load_state_dict(memory.state_dict())
    student, teacher = unit_rows(3, 4), unit_rows(3, 4)
    memory.update(torch.tensor([5, 2, 5]), student, teacher)
    other.update(torch.tensor([5, 2]), student[:2], teacher[:2])
    assert_close(memory.student, other.student, **EXACT)


def test_the_state_holds_banks_and_constants_so_that_training_goes_on(memory):
    indices, student, teacher = torch.tensor([1, 4, 6]), unit_rows(3, 4), unit_rows(3, 4)
    drawn = memory.candidates(indices, 3)
    memory(student, teacher, drawn)
    memory.update(indices, student, teacher)
    assert set(memory.state_dict()) == {"student", "teacher", "log_partitions"}
    resumed = ContrastiveMemory(GROUPS, 4).double()
    resumed.load_state_dict(memory.state_dict())
    for value, expected in zip(resumed(teacher, student, drawn), memory(teacher, student, drawn), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 10.0])
def test_scores_are_finite_at_any_temperature_under_autocast(temperature):
    memory = ContrastiveMemory(GROUPS, 4, temperature=temperature)
    student, teacher = (unit_rows(3, 4).bfloat16().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = memory(student, teacher, memory.candidates(torch.arange(3), 3))
    sum(values.sum() for values in scores).backward()
    assert all(values.dtype == torch.float32 and values.isfinite().all() for values in scores)
    assert student.grad.isfinite().all()


def test_refuses_indices_out_of_range(memory):
    for index in (-1, 8):
        with pytest.raises(SetupError, match=rf"from 0 to 7, for 8 samples, got {min(index, 2)} to {max(index, 2)}"):
            memory.candidates(torch.tensor([2, index]), 3)


def test_warns_of_a_first_batch_that_names_a_sample_twice(memory):
    with pytest.warns(UserWarning, match="name a sample twice: are they labels"):
        memory.candidates(torch.tensor([2, 3, 2]), 3)


def test_groups_are_the_classes_or_each_sample_its_own():
    assert contrast_groups(3, None, negatives=2).tolist() == [0, 1, 2]
    assert contrast_groups(None, [4, 4, 9], negatives=1).tolist() == [4, 4, 9]
    assert contrast_groups(3, torch.tensor([4, 4, 9]), negatives=1).tolist() == [4, 4, 9]


@pytest.mark.parametrize(
    ("samples", "labels", "negatives", "message"),
    [
        (None, None, 1, r"`samples` must be the size of the data set where `labels` are not given, got None"),
        (0, None, 1, r"got 0"),
        (5, [0, 1], 1, r"one whole number per sample, 5 of them, got torch\.int64 of shape \(2,\)"),
        (None, [0.0, 1.0], 1, r"n of them, got torch\.float32 of shape \(2,\)"),
        (None, [[0, 1]], 1, r"got torch\.int64 of shape \(1, 2\)"),
        (50, None, 50, r"`negatives` must be from 1 to 49, as many of the 50 samples .* got 50"),
        (50, None, 0, r"from 1 to 49, .* got 0"),
        (None, [0, 0, 1], 2, r"from 1 to 1, as many of the 3 samples .* got 2"),
        (None, [0, 0], 1, r"from 1 to 0, .* got 1"),
    ],
)
def test_refuses_groups_that_leave_too_few_to_contrast_with(samples, labels, negatives, message):
    with pytest.raises(ValueError, match=message):
        contrast_groups(samples, labels, negatives=negatives)


def test_refuses_options_out_of_range():
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, got 0"):
        ContrastiveMemory(GROUPS, 4, temperature=0)
    for momentum in (1.0, -0.1):
        with pytest.raises(ValueError, match=f"`momentum` must be at least 0 and below 1, got {momentum}"):
            ContrastiveMemory(GROUPS, 4, momentum=momentum)
