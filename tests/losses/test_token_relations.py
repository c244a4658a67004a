"""Claims about `token_relation_kl`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import TokenRelationKL, token_relation_kl
from lightning_kd.losses.token_relations import ALL_RELATIONS

EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def projections(draw):
    """Queries, keys and values of two networks of different widths."""
    samples, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    widths = draw(st.sampled_from([(4, 12), (8, 8), (12, 4)]))
    student, teacher = ([torch.from_numpy(rng.normal(size=(samples, tokens, w))) for _ in "qkv"] for w in widths)
    return student, teacher


def reference(student, teacher, heads, relations):
    """One relation, head, sample and query after the other, in NumPy."""
    total = 0.0
    for left, right in relations:
        values = []
        for sample in range(len(student[0])):
            for head in range(heads):
                q, p = (
                    _relation(x["qkv".index(left)][sample], x["qkv".index(right)][sample], heads, head)
                    for x in (student, teacher)
                )
                values += list(rel_entr(p, q).sum(axis=1))
        total += np.mean(values)
    return total


def _relation(left, right, heads, head):
    a, b = (np.split(x.numpy(), heads, axis=1)[head] for x in (left, right))
    return softmax(a @ b.T / np.sqrt(a.shape[1]), axis=1)


def test_equals_the_published_value():
    student = [torch.eye(2, dtype=torch.float64)[None]] * 3
    teacher = [torch.tensor([[[1.0, 1.0], [0.0, 1.0]]], dtype=torch.float64)] * 3
    assert token_relation_kl(student, teacher, relation_heads=1, relations=["vv"]).item() == pytest.approx(
        0.0306198683, rel=1e-8
    )
    # The three relations of MiniLMv2 have weight 1 each.
    assert token_relation_kl(student, teacher, relation_heads=1).item() == pytest.approx(3 * 0.0306198683, rel=1e-8)


@given(projections(), st.sampled_from([1, 2, 4]), st.sampled_from([("qq", "kk", "vv"), ("qk",), ALL_RELATIONS]))
def test_equals_the_reference(pair, heads, relations):
    loss = token_relation_kl(*pair, relation_heads=heads, relations=relations)
    assert loss.item() == pytest.approx(reference(*pair, heads, relations), rel=1e-9, abs=1e-12)


@given(projections())
def test_is_zero_at_equality_and_not_negative(pair):
    assert token_relation_kl(pair[1], pair[1], relation_heads=2).item() == 0.0
    assert token_relation_kl(*pair, relation_heads=2).item() >= -1e-12


@given(projections(), st.integers(0, 9))
def test_ignores_a_rotation_inside_each_head(pair, seed):
    student, teacher = pair
    width = student[0].shape[-1] // 2
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])
    rotated = [(x.reshape(*x.shape[:2], 2, width) @ rotation).flatten(2) for x in student]
    assert_close(
        token_relation_kl(rotated, teacher, relation_heads=2),
        token_relation_kl(student, teacher, relation_heads=2),
        **EXACT,
    )


@given(projections(), st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_tokens(pair, random):
    order = random.sample(range(pair[0][0].shape[1]), pair[0][0].shape[1])
    shuffled = [[x[:, order] for x in side] for side in pair]
    assert_close(token_relation_kl(*shuffled, relation_heads=2), token_relation_kl(*pair, relation_heads=2), **EXACT)


@given(projections())
def test_reductions_agree(pair):
    each = token_relation_kl(*pair, relation_heads=2, reduction="none")
    assert each.shape == pair[0][0].shape[:1]
    assert_close(token_relation_kl(*pair, relation_heads=2), each.mean(), **EXACT)
    assert_close(token_relation_kl(*pair, relation_heads=2, reduction="sum"), each.sum(), **EXACT)


@given(projections(), st.integers(1, 4))
def test_padding_changes_nothing(pair, extra):
    samples, tokens, _ = pair[0][0].shape
    padded = [
        [torch.cat([x, 9.0 * torch.randn(samples, extra, x.shape[2]).double()], dim=1) for x in side] for side in pair
    ]
    mask = torch.arange(tokens + extra).expand(samples, -1) < tokens
    assert_close(
        token_relation_kl(*padded, relation_heads=2, mask=mask), token_relation_kl(*pair, relation_heads=2), **EXACT
    )


def test_has_an_exact_gradient_and_gives_the_teacher_none():
    student = torch.randn(3, 2, 3, 4, dtype=torch.float64).unbind()
    teacher = torch.randn(3, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    inputs = [x.requires_grad_() for x in student]
    assert torch.autograd.gradcheck(
        lambda *qkv: token_relation_kl(qkv, teacher.detach().unbind(), relation_heads=2), inputs
    )
    token_relation_kl(student, teacher.unbind(), relation_heads=2).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("batch", [1, 4])
def test_equals_itself_under_bfloat16_autocast(batch):
    student, teacher = [torch.randn(batch, 17, 32) for _ in "qkv"], [torch.randn(batch, 17, 48) for _ in "qkv"]
    expected = token_relation_kl(student, teacher, relation_heads=16)
    student[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = token_relation_kl(student, teacher, relation_heads=16)
    loss.backward()
    assert_close(loss.detach(), expected, rtol=1e-6, atol=0.0)
    assert student[0].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_is_finite_where_products_overflow_half_precision(dtype):
    student = torch.full((1, 4, 8), 300.0, dtype=dtype, requires_grad=True)
    loss = token_relation_kl([student] * 3, [torch.randn(1, 4, 8).to(dtype)] * 3, relation_heads=1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_module_computes_the_function():
    student, teacher = [torch.randn(2, 3, 4) for _ in "qkv"], [torch.randn(2, 3, 8) for _ in "qkv"]
    module = TokenRelationKL(relation_heads=2, relations=("qk",), reduction="sum")
    expected = token_relation_kl(student, teacher, relation_heads=2, relations=("qk",), reduction="sum")
    assert module(student, teacher) == expected
    assert repr(module) == "TokenRelationKL(relation_heads=2, relations=('qk',), reduction='sum')"


def test_refuses_what_does_not_fit():
    vectors = [torch.zeros(2, 3, 4)] * 3
    with pytest.raises(ShapeError, match="`relation_heads` must divide the width 4, got 3"):
        token_relation_kl(vectors, vectors, relation_heads=3)
    with pytest.raises(ShapeError, match=r"same samples and tokens, got \(2, 3\) and \(2, 2\).*FeatureKD"):
        token_relation_kl(vectors, [x[:, :2] for x in vectors], relation_heads=2)
    with pytest.raises(ShapeError, match=r"`teacher` must be queries, keys and values .* got \[\(2, 3, 4\)\]"):
        token_relation_kl(vectors, vectors[:1], relation_heads=2)
    with pytest.raises(ValueError, match=r"`relations\[1\]` must be one of .*, got 'qx'"):
        token_relation_kl(vectors, vectors, relation_heads=2, relations=("qq", "qx"))
    with pytest.raises(ValueError, match="at least one pair"):
        TokenRelationKL(relation_heads=2, relations=())
