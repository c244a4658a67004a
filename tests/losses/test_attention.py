"""Claims about `attention_score_mse` and `attention_kl`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import AttentionKL, AttentionScoreMSE, attention_kl, attention_score_mse
from lightning_kd.losses.attention import token_relations

EXACT = {"rtol": 1e-9, "atol": 1e-12}
BOTH = pytest.mark.parametrize("loss", [attention_score_mse, attention_kl])


@st.composite
def score_pairs(draw):
    samples, heads, tokens = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5)))
    values = arrays(np.float64, (samples, heads, tokens, tokens), elements=st.floats(-20, 20, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def masks(scores, seed):
    """Real tokens of each sample, at least one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, scores.shape[-1], size=len(scores), endpoint=True)
    return torch.from_numpy(np.arange(scores.shape[-1])[None] < lengths[:, None])


def test_scores_are_the_scaled_products_of_each_head():
    left, right = np.random.default_rng(0).normal(size=(2, 3, 5, 12))
    expected = np.stack(
        [left[..., 4 * h : 4 * h + 4] @ right[..., 4 * h : 4 * h + 4].swapaxes(1, 2) / 2 for h in range(3)], axis=1
    )
    scores = token_relations(torch.from_numpy(left), torch.from_numpy(right), heads=3)
    assert_close(scores, torch.from_numpy(expected), **EXACT)


def test_scores_are_computed_in_float32_under_bfloat16_autocast():
    left, right = torch.randn(2, 2, 5, 8).unbind()
    expected = token_relations(left, right, heads=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(token_relations(left, right, heads=2), expected, rtol=0.0, atol=0.0)


def test_mse_equals_the_hand_derived_value():
    # Differences 1, 2, 0 and, the masked -10000 counting as 0, again 2: (1 + 4 + 0 + 4) / 4
    student = torch.tensor([[[[1.0, 2.0], [3.0, -10000.0]]]])
    teacher = torch.tensor([[[[0.0, 4.0], [3.0, 2.0]]]])
    assert attention_score_mse(student, teacher).item() == pytest.approx(2.25, rel=1e-6)


@pytest.mark.parametrize(("score", "expected"), [(-100.0, 0.0), (-99.0, 99.0**2), (-torch.inf, 0.0)])
def test_mse_takes_scores_of_minus_a_hundred_and_below_for_zero(score, expected):
    student = torch.full((1, 1, 1, 1), score, requires_grad=True)
    loss = attention_score_mse(student, torch.zeros(1, 1, 1, 1))
    loss.backward()
    assert loss.item() == expected
    assert student.grad.isfinite().all()


def test_kl_equals_the_hand_derived_value():
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log 3 - log 2 for every query of every head
    teacher = torch.tensor([3.0, 1.0], dtype=torch.float64).log().expand(2, 3, 2, 2)
    loss = attention_kl(torch.zeros(2, 3, 2, 2, dtype=torch.float64), teacher)
    assert loss.item() == pytest.approx(0.75 * np.log(3.0) - np.log(2.0), rel=1e-12)


@given(score_pairs(), st.integers(0, 9))
def test_kl_equals_the_reference(pair, seed):
    mask = masks(pair[0], seed)
    expected = []
    for student, teacher, real in zip(*(x.numpy() for x in pair), mask.numpy(), strict=True):
        q, p = (softmax(x[:, real][:, :, real], axis=-1) for x in (student, teacher))
        expected.append(rel_entr(p, q).sum() / (len(p) * real.sum()))
    assert_close(
        attention_kl(*pair, mask=mask, reduction="none"),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-7,
        atol=1e-9,
    )


@given(score_pairs(), st.integers(0, 9))
def test_mse_equals_the_reference(pair, seed):
    mask = masks(pair[0], seed)
    errors = [
        ((s - t) ** 2)[:, real][:, :, real].ravel()
        for s, t, real in zip(*(x.numpy() for x in pair), mask.numpy(), strict=True)
    ]
    assert attention_score_mse(*pair, mask=mask).item() == pytest.approx(np.concatenate(errors).mean(), rel=1e-9)


@BOTH
@given(pair=score_pairs())
def test_is_zero_at_equality_and_not_negative(loss, pair):
    assert loss(pair[1], pair[1]).item() == 0.0
    assert loss(*pair).item() >= -1e-9


@BOTH
@given(pair=score_pairs())
def test_a_mask_of_all_tokens_is_no_mask(loss, pair):
    everything = torch.ones(pair[0].shape[0], pair[0].shape[-1], dtype=torch.bool)
    assert_close(loss(*pair, mask=everything), loss(*pair), **EXACT)


@BOTH
@given(pair=score_pairs(), seed=st.integers(0, 9))
@pytest.mark.parametrize("padding", [1e4, torch.nan, torch.inf])
def test_padding_influences_neither_value_nor_gradient(loss, pair, seed, padding):
    mask = masks(pair[0], seed)
    padded = ~(mask[:, None, :, None] & mask[:, None, None, :])
    gradients = []
    for filling in (0.0, padding):
        student = pair[0].masked_fill(padded, filling).requires_grad_()
        value = loss(student, pair[1].masked_fill(padded, -filling), mask=mask)
        value.backward()
        gradients.append((value.detach(), student.grad.masked_fill(padded, 0.0), student.grad))
    for plain, filled in zip(gradients[0][:2], gradients[1][:2], strict=True):
        assert_close(filled, plain, **EXACT)
    assert gradients[1][2].masked_select(padded.expand_as(pair[0])).eq(0.0).all()


@BOTH
def test_without_any_real_token_it_is_a_zero_with_a_graph(loss):
    student = torch.randn(2, 1, 3, 3, requires_grad=True)
    value = loss(student, torch.randn(2, 1, 3, 3), mask=torch.zeros(2, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert student.grad.eq(0.0).all()


@given(score_pairs(), st.floats(-50, 50), st.floats(-50, 50))
def test_kl_ignores_a_constant_added_to_all_scores(pair, student_shift, teacher_shift):
    student, teacher = pair
    assert_close(
        attention_kl(student + student_shift, teacher + teacher_shift), attention_kl(student, teacher), **EXACT
    )


@BOTH
@given(pair=score_pairs(), random=st.randoms(use_true_random=False))
def test_ignores_the_order_of_tokens_and_heads(loss, pair, random):
    tokens = random.sample(range(pair[0].shape[-1]), pair[0].shape[-1])
    heads = random.sample(range(pair[0].shape[1]), pair[0].shape[1])
    shuffled = [x[:, heads][:, :, tokens][:, :, :, tokens] for x in pair]
    assert_close(loss(*shuffled), loss(*pair), **EXACT)


@BOTH
@given(pair=score_pairs())
def test_reductions_agree(loss, pair):
    each = loss(*pair, reduction="none")
    assert_close(loss(*pair), each.mean(), **EXACT)
    assert_close(loss(*pair, reduction="sum"), each.sum(), **EXACT)


@BOTH
@given(pair=score_pairs())
def test_batch_is_the_mean_of_its_items(loss, pair):
    items = [loss(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(loss(*pair), torch.stack(items).mean(), **EXACT)


@BOTH
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = torch.randn(2, 2, 3, 4, 4).requires_grad_().unbind()
    teacher.retain_grad()
    student.retain_grad()
    loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@BOTH
@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(loss, given_dtype, returned):
    student, teacher = torch.randn(2, 1, 2, 4, 4).to(given_dtype).unbind()
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    value.backward()
    assert value.dtype == returned
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("module", "loss"), [(AttentionScoreMSE, attention_score_mse), (AttentionKL, attention_kl)])
def test_module_computes_the_function(module, loss):
    pair = torch.randn(2, 2, 3, 4, 4).unbind()
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    assert module(reduction="sum")(*pair, mask=mask) == loss(*pair, mask=mask, reduction="sum")
    assert repr(module(reduction="sum")) == f"{module.__name__}(reduction='sum')"


@BOTH
def test_refuses_what_does_not_fit(loss):
    scores = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ShapeError, match=r"\(2, 3, 4, 4\) and \(2, 2, 4, 4\)"):
        loss(scores, scores[:, :2])
    with pytest.raises(ShapeError, match=r"\(samples, heads, tokens, tokens\), got \(2, 3, 4, 2\)"):
        loss(scores[..., :2], scores[..., :2])
    with pytest.raises(ShapeError, match=r"shape \(2, 4\), got \(2, 3\)"):
        loss(scores, scores, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`mask` must be a boolean tensor, true for real tokens, got torch\.int64"):
        loss(scores, scores, mask=torch.ones(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="got 'batchmean'"):
        loss(scores, scores, reduction="batchmean")


def test_scores_refuse_heads_that_do_not_divide_the_width():
    with pytest.raises(ShapeError, match="`heads` must divide the width 8, got 3"):
        token_relations(torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), heads=3)
    with pytest.raises(ShapeError, match=r"with one width, got \(1, 2, 8\) and \(1, 2, 4\)"):
        token_relations(torch.zeros(1, 2, 8), torch.zeros(1, 2, 4), heads=2)
