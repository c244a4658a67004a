"""Claims about the loss on collapsed lattices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import TransducerKL, soft_target_kl, transducer_kl

P = torch.tensor([0.6, 0.15, 0.05, 0.2], dtype=torch.float64)
Q = torch.tensor([0.5, 0.1, 0.3, 0.1], dtype=torch.float64)


def lattice(probabilities, times=1, labels=1):
    return probabilities.log().expand(1, times, labels + 1, len(probabilities))


def reference(student, teacher, targets, frames, labels, blank):
    """Sum over the lattice of each utterance, in plain loops on probabilities."""
    sums = []
    for n in range(len(student)):
        total = 0.0
        for t in range(frames[n]):
            for u in range(labels[n] + 1):
                p, q = (z[n, t, u].softmax(-1) for z in (teacher, student))
                kept = [blank] if u == labels[n] else [blank, int(targets[n, u])]
                pairs = [(p[k], q[k]) for k in kept]
                pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
                total = total + sum(a * (a / b).log() for a, b in pairs)
        sums.append(total)
    return torch.stack(sums)


@pytest.fixture
def networks():
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 2, 4, 3, 5, generator=generator, dtype=torch.float64)
    return student, teacher, torch.tensor([[1, 2], [4, 0]]), torch.tensor([4, 2]), torch.tensor([2, 1])


def test_is_the_sheets_value_at_a_node():
    # Collapsed (.6, .2, .2) against (.5, .1, .4); behind the label (.2, .8) against (.1, .9).
    assert transducer_kl(lattice(Q), lattice(P), torch.tensor([[0]]), blank=3, reduction="sum").item() == pytest.approx(
        0.109392934 + 0.044403016, abs=1e-8
    )
    assert soft_target_kl(Q.log(), P.log(), temperature=1.0).item() == pytest.approx(0.219254163, abs=1e-8)


def test_is_the_sum_over_each_lattice(networks):
    student, teacher, targets, frames, labels = networks
    sums = reference(student, teacher, targets, frames, labels, blank=3)
    options = {"blank": 3, "frames": frames, "labels": labels}
    assert_close(transducer_kl(student, teacher, targets, reduction="sum", **options), sums.sum())
    assert_close(transducer_kl(student, teacher, targets, reduction="utterance", **options), sums.mean())
    nodes = 4 * 3 + 2 * 2
    assert_close(transducer_kl(student, teacher, targets, **options), sums.sum() / nodes)


@given(st.integers(0, 1000))
def test_is_at_most_the_divergence_over_the_vocabulary(seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, 2, 3, 4, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, 6, (2, 3), generator=generator)
    full = soft_target_kl(student, teacher, temperature=1.0, reduction="sum")
    collapsed = transducer_kl(student, teacher, targets, blank=0, reduction="sum")
    assert 0 <= collapsed <= full + 1e-9


def test_padding_reaches_neither_value_nor_gradient(networks):
    student, teacher, targets, frames, labels = networks
    poisoned = student.clone()
    poisoned[1, 2:] = float("nan")
    poisoned[1, :, 2:] = float("nan")
    poisoned.requires_grad_()
    options = {"blank": 3, "frames": frames, "labels": labels}
    loss = transducer_kl(poisoned, teacher, targets, **options)
    loss.backward()
    assert_close(loss.detach(), transducer_kl(student, teacher, targets, **options))
    assert poisoned.grad.isfinite().all()
    alone = student[1:, :2, :2].clone().requires_grad_()
    transducer_kl(alone, teacher[1:, :2, :2], targets[1:, :1], blank=3, reduction="sum").backward()
    assert_close(poisoned.grad[1, :2, :2] * 16, alone.grad[0])


def test_stays_finite_where_label_and_blank_have_all_the_mass():
    certain = torch.tensor([80.0, 0.0, 0.0, 80.0]).expand(1, 1, 2, 4).clone().requires_grad_()
    loss = transducer_kl(certain, lattice(P.float()), torch.tensor([[0]]), blank=3)
    loss.backward()
    assert loss.isfinite()
    assert certain.grad.isfinite().all()


def test_is_zero_when_student_equals_teacher(networks):
    student, _, targets, frames, labels = networks
    assert transducer_kl(student, student, targets, blank=3, frames=frames, labels=labels).item() == 0.0


def test_the_module_computes_the_function(networks):
    student, teacher, targets, frames, labels = networks
    module = TransducerKL(blank=3, reduction="utterance")
    expected = transducer_kl(student, teacher, targets, blank=3, frames=frames, labels=labels, reduction="utterance")
    assert_close(module(student, teacher, targets, frames, labels), expected)


def test_refuses_what_does_not_fit(networks):
    student, teacher, targets, frames, _ = networks
    with pytest.raises(ShapeError, match=r"got \(2, 4, 3, 5\) and \(2, 1\)"):
        transducer_kl(student, teacher, targets[:, :1], blank=0)
    with pytest.raises(ShapeError, match=r"`frames` must have shape \(2,\), got \(1,\)"):
        transducer_kl(student, teacher, targets, blank=0, frames=frames[:1])
    with pytest.raises(ValueError, match=r"`blank` must be one of the 5 classes, from 0 on, got 5"):
        transducer_kl(student, teacher, targets, blank=5)
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'mean'"):
        transducer_kl(student, teacher, targets, blank=0, reduction="mean")
    with pytest.raises(ShapeError, match=r"\(2, 4, 3, 5\) and \(2, 4, 3, 4\)"):
        transducer_kl(student, teacher[..., :4], targets, blank=0)
