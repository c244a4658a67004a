"""Claims about `MinibatchCKA`."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import MinibatchCKA, cka

X = torch.tensor([[1, 0], [0, 1], [1, 1], [2, -1], [0, 0]], dtype=torch.float64)
Y = torch.tensor([[1, 1, 0], [0, 2, 1], [1, 0, 1], [3, 1, -1], [0, 0, 0]], dtype=torch.float64)
UNBIASED = {"unbiased": True}
BIASED = {"unbiased": False}
RBF = {"kernel": "rbf", "unbiased": True}
BIASED_RBF = {"kernel": "rbf", "unbiased": False, "bandwidth": 0.5}
CENTRED = [UNBIASED, BIASED, RBF, BIASED_RBF]

centred_cases = pytest.mark.parametrize("options", CENTRED, ids=str)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("unbiased", "expected"), [(True, 0.5132675064), (False, 0.6548042002)])
def test_minibatches_give_the_published_values(correlated_gaussians, unbiased, expected):
    similarity = MinibatchCKA(unbiased=unbiased)
    for student, teacher in zip(*(x.split(25) for x in correlated_gaussians), strict=True):
        similarity.update([student], [teacher])
    assert similarity.compute().item() == pytest.approx(expected, rel=1e-9)
    assert similarity.samples == 100


@centred_cases
@given(seed=seeds)
def test_minibatches_sum_each_hsic_by_its_pairs(reference, options, seed):
    rng = np.random.default_rng(seed)
    students, teachers = (
        [torch.from_numpy(rng.normal(size=(22, d))) for d in widths] for widths in ((3, 9), (5, 2, 8))
    )
    similarity = MinibatchCKA(**options)
    sums = np.zeros((3, 2, 3))
    for rows in (slice(0, 6), slice(6, 18), slice(18, 22)):  # of different sizes
        s, t = [x[rows] for x in students], [x[rows] for x in teachers]
        similarity.update(s, t)
        n = len(s[0])
        pairs = n * (n - 3) if options["unbiased"] else 1
        kernels = [[reference.kernel(x, options) for x in layers] for layers in (s, t)]
        for (i, left), (j, right) in itertools.product(*map(enumerate, kernels)):
            hsic = [reference.hsic(*pair, options) for pair in ((left, right), (left, left), (right, right))]
            sums[:, i, j] += np.array(hsic) * pairs
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    np.testing.assert_allclose(similarity.compute().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_one_minibatch_gives_the_plain_value():
    similarity = MinibatchCKA()
    similarity.update([X, Y], [X, Y])
    value = cka(X, Y).item()
    expected = torch.tensor([[1.0, value], [value, 1.0]], dtype=torch.float64)
    assert_close(similarity.compute(), expected, rtol=1e-9, atol=0.0)


def test_unbiased_minibatches_agree_with_the_whole_where_biased_ones_do_not():
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.normal(size=(4096, 32))) for _ in range(2))
    values = {}
    for unbiased in (True, False):
        similarity = MinibatchCKA(unbiased=unbiased)
        for s, t in zip(student.split(16), teacher.split(16), strict=True):
            similarity.update([s], [t])
        values[unbiased] = similarity.compute().item()
    # Independent features: the truth is 0. Batches of 16 samples of 32 features look alike to the biased estimate.
    assert abs(values[True]) < 0.02
    assert values[False] > 0.5


def test_minibatches_keep_no_graph_and_compute_in_double():
    similarity = MinibatchCKA()
    similarity.update([X.float().requires_grad_()], [Y.float()])
    assert not similarity.compute().requires_grad
    assert similarity.compute().dtype == torch.float64


def test_a_constant_layer_has_similarity_zero_in_minibatches():
    similarity = MinibatchCKA()
    similarity.update([torch.full((5, 3), 0.1), X.float()], [Y.float()])
    assert similarity.compute()[0, 0].item() == 0.0
    assert similarity.compute()[1, 0].item() == pytest.approx(cka(X, Y).item(), rel=1e-5)


def test_minibatches_refuse_what_does_not_fit():
    similarity = MinibatchCKA()
    with pytest.raises(ShapeError, match="at least one batch, got none"):
        similarity.compute()
    with pytest.raises(ShapeError, match="got 0 and 1 layers"):
        similarity.update([], [Y])
    with pytest.raises(ShapeError, match=r"on \[4, 5\] samples"):
        similarity.update([X[:4]], [Y])
    with pytest.raises(ShapeError, match="`features` must have at least 4 samples for unbiased CKA, got 3"):
        similarity.update([X[:3]], [Y[:3]])
    similarity.update([X], [Y])
    with pytest.raises(ShapeError, match=r"layers of the batches before, \(1, 1\), got \(2, 1\)"):
        similarity.update([X, X], [Y])
