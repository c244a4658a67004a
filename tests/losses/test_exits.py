"""Claims about the losses of networks with several exits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    ChannelDistributionKL,
    ChannelGramMSE,
    ExitCrossEntropy,
    channel_distribution_kl,
    channel_gram_mse,
    exit_cross_entropy,
)

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def feature_pairs(draw):
    shape = draw(st.sampled_from([(1, 3), (2, 3, 4), (2, 2, 3, 2), (3, 4, 1, 1)]))
    values = arrays(np.float64, shape, elements=st.floats(-8, 8, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def test_cross_entropy_of_one_exit_equals_the_published_value():
    assert exit_cross_entropy([ZS], Y).item() == pytest.approx(0.4321426543, rel=1e-9)


def test_cross_entropy_takes_mixed_labels():
    # The sheet's soft cross-entropy with targets softmax(ZT)
    assert exit_cross_entropy([ZS], ZT.softmax(1)).item() == pytest.approx(0.6003117542, rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_sums_over_the_exits(smoothing):
    log_q = log_softmax(np.stack([ZS, ZT]), axis=-1)
    hard = -log_q[:, [0, 1], [0, 1]].mean(axis=1)
    spread = -log_q.mean(axis=(1, 2))
    expected = ((1 - smoothing) * hard + smoothing * spread).sum()
    assert exit_cross_entropy([ZS, ZT], Y, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-9)


def test_one_hot_labels_equal_class_indices():
    one_hot = torch.nn.functional.one_hot(Y, 3).float()
    assert_close(exit_cross_entropy([ZS, ZT], one_hot), exit_cross_entropy([ZS, ZT], Y), **EXACT)


def test_labels_that_do_not_count_change_nothing():
    dense, labels = torch.randn(1, 3, 2, 2, dtype=torch.float64), torch.tensor([[[0, -100], [-100, 2]]])
    counted = dense[0].flatten(1).T[[0, 3]]
    assert_close(exit_cross_entropy([dense], labels), exit_cross_entropy([counted], torch.tensor([0, 2])), **EXACT)


def test_labels_of_which_none_counts_give_a_zero_with_a_graph():
    student = ZS.clone().requires_grad_()
    loss = exit_cross_entropy([student], torch.tensor([-100, -100]))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.count_nonzero() == 0


@given(feature_pairs())
def test_distribution_kl_equals_the_reference(pair):
    log_q, log_p = (log_softmax(feature.numpy(), axis=1) for feature in pair)
    expected = (np.exp(log_p) * (log_p - log_q)).sum() / len(pair[0])
    assert channel_distribution_kl(*pair).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(feature_pairs())
def test_distribution_kl_is_zero_at_equality_and_not_negative(pair):
    assert channel_distribution_kl(pair[0], pair[0]).item() == 0.0
    assert channel_distribution_kl(*pair).item() >= -1e-12


@given(feature_pairs(), st.floats(-5, 5))
def test_distribution_kl_ignores_a_constant_added_to_all_channels(pair, shift):
    student, teacher = pair
    assert_close(channel_distribution_kl(student + shift, teacher), channel_distribution_kl(student, teacher), **EXACT)


@given(feature_pairs(), st.sampled_from([channel_distribution_kl, channel_gram_mse]))
def test_reductions_agree(pair, loss):
    each = loss(*pair, reduction="none")
    assert_close(loss(*pair, reduction="mean"), each.mean(), **EXACT)
    assert_close(loss(*pair, reduction="sum"), each.sum(), **EXACT)


@given(feature_pairs(), st.sampled_from([channel_distribution_kl, channel_gram_mse]))
def test_batch_is_the_mean_of_its_items(pair, loss):
    items = [loss(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(loss(*pair), torch.stack(items).mean(), **EXACT)


def test_positions_are_summed():
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    once = channel_distribution_kl(student, teacher)
    twice = channel_distribution_kl(student.repeat(1, 1, 2), teacher.repeat(1, 1, 2))
    assert_close(twice, 2 * once, **EXACT)


def test_tokens_and_maps_agree():
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    tokens = [feature.flatten(2).mT for feature in (student, teacher)]
    expected = channel_distribution_kl(student, teacher)
    assert_close(channel_distribution_kl(*tokens, channel_axis=-1), expected, **EXACT)


@given(feature_pairs())
def test_gram_equals_the_reference(pair):
    grams = [np.einsum("ncu,ndu->ncd", *[x.reshape(*x.shape[:2], -1)] * 2) for x in (f.numpy() for f in pair)]
    expected = ((grams[0] - grams[1]) ** 2).mean()
    assert channel_gram_mse(*pair).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(feature_pairs())
def test_gram_is_zero_at_equality_and_not_negative(pair):
    assert channel_gram_mse(pair[0], pair[0]).item() == 0.0
    assert channel_gram_mse(*pair).item() >= 0.0


def test_gram_ignores_where_a_feature_is():
    student, teacher = torch.randn(2, 2, 3, 6, dtype=torch.float64)
    moved = student[..., torch.randperm(6)]
    assert_close(channel_gram_mse(moved, teacher), channel_gram_mse(student, teacher), **EXACT)


def test_gram_is_not_normalised():
    # Twice the positions give twice the Gram matrix, and four times the squared error.
    student, zeros = torch.randn(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3, 4, dtype=torch.float64)
    once, twice = channel_gram_mse(student, zeros), channel_gram_mse(student.repeat(1, 1, 2), zeros)
    assert_close(twice, 4 * once, **EXACT)


def test_gram_compares_different_grids():
    student = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    assert channel_gram_mse(student, torch.ones(1, 1, 1, 1, dtype=torch.float64)).item() == 0.0


@pytest.mark.parametrize("loss", [channel_distribution_kl, channel_gram_mse])
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    loss(student, teacher).backward()
    assert student.grad.count_nonzero() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("loss", [channel_distribution_kl, channel_gram_mse])
def test_is_the_same_and_finite_under_bfloat16_autocast(loss, batch):
    student, teacher = torch.randn(2, batch, 1000, 4)
    expected = loss(student, teacher)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    value.backward()
    assert_close(value, expected, rtol=1e-6, atol=0.0)
    assert value.dtype == torch.float32
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("target", [torch.tensor([3]), torch.full((1, 1000), 1e-3)], ids=["hard", "mixed"])
def test_cross_entropy_is_the_same_and_finite_under_bfloat16_autocast(target):
    exits = [torch.randn(1, 1000).bfloat16().requires_grad_() for _ in range(3)]
    expected = exit_cross_entropy([z.double() for z in exits], target).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = exit_cross_entropy(exits, target)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert all(z.grad.isfinite().all() for z in exits)


def test_modules_compute_the_functions():
    assert_close(ExitCrossEntropy(label_smoothing=0.1)([ZS], Y), exit_cross_entropy([ZS], Y, label_smoothing=0.1))
    student, teacher = torch.randn(2, 2, 3, 4)
    module = ChannelDistributionKL(channel_axis=-1, reduction="sum")
    assert_close(module(student, teacher), channel_distribution_kl(student, teacher, channel_axis=-1, reduction="sum"))
    assert_close(
        ChannelGramMSE(reduction="none")(student, teacher), channel_gram_mse(student, teacher, reduction="none")
    )
    assert repr(ExitCrossEntropy()) == "ExitCrossEntropy(label_smoothing=0.0)"
    assert repr(module) == "ChannelDistributionKL(channel_axis=-1, reduction='sum')"
    assert repr(ChannelGramMSE()) == "ChannelGramMSE(reduction='mean')"


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, math.nan])
def test_refuses_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {smoothing}"):
        exit_cross_entropy([ZS], Y, label_smoothing=smoothing)
    with pytest.raises(ValueError, match=f"got {smoothing}"):
        ExitCrossEntropy(label_smoothing=smoothing)


def test_refuses_no_exit():
    with pytest.raises(ShapeError, match="at least one exit, got none"):
        exit_cross_entropy([], Y)


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 2\)"):
        channel_distribution_kl(ZS, ZT[:, :2])
    with pytest.raises(ShapeError, match=r"got shape \(3,\)"):
        channel_distribution_kl(ZS[0], ZT[0])
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 2\)"):
        channel_gram_mse(ZS, ZT[:, :2])


@pytest.mark.parametrize("loss", [channel_distribution_kl, channel_gram_mse])
def test_refuses_an_unknown_reduction(loss):
    with pytest.raises(ValueError, match="got 'batchmean'"):
        loss(ZS, ZT, reduction="batchmean")
