"""Claims about losses on samples without labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    WeightAwareCrossEntropy,
    WeightedFeatureMSE,
    class_similarities,
    combined_confidence,
    most_confident,
    weight_aware_cross_entropy,
    weighted_feature_mse,
)

# Probabilities of the student and of the teacher.
ZS = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
ZT = torch.tensor([[0.2, 0.8], [0.7, 0.3], [0.9, 0.1]], dtype=torch.float64).log()


def test_confidence_is_the_largest_mean_probability_so_disagreement_lowers_it():
    # Mean probabilities: 0.35 and 0.65; 0.8 and 0.2; 0.55 and 0.45.
    expected = torch.tensor([0.65, 0.8, 0.55], dtype=torch.float64)
    assert_close(combined_confidence(ZS, ZT), expected)
    assert_close(combined_confidence(ZT, ZS), expected)
    assert not combined_confidence(ZS.requires_grad_(), ZT).requires_grad


@given(st.integers(1, 40), st.floats(0.01, 1.0))
def test_the_most_confident_are_the_share_of_the_batch_with_the_largest_values(size, share):
    confidence = torch.rand(size, generator=torch.Generator().manual_seed(size))
    chosen = most_confident(confidence, share)
    assert int(chosen.sum()) == max(1, round(share * size))
    if not bool(chosen.all()):
        assert confidence[chosen].min() >= confidence[~chosen].max()


def test_samples_count_by_their_weights():
    s, t = torch.tensor([[1.0, 1.0], [5.0, 1.0]]), torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    # Means over the two dimensions: 1 and 12.5; (2 * 1 + 1 * 12.5) / 3.
    assert_close(weighted_feature_mse(s, t, torch.tensor([2.0, 1.0])), torch.tensor(14.5 / 3))
    assert_close(WeightedFeatureMSE()(s, t, torch.tensor([0.0, 1.0])), torch.tensor(12.5))


def test_without_any_weight_the_loss_is_a_zero_with_a_gradient():
    s = torch.randn(3, 2, requires_grad=True)
    loss = weighted_feature_mse(s, torch.randn(3, 2), torch.zeros(3))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(s.grad, torch.zeros(3, 2))


def test_no_gradient_reaches_teacher_or_weights():
    s, t, w = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True), torch.rand(3)
    weighted_feature_mse(s, t, w.requires_grad_()).backward()
    assert s.grad is not None
    assert t.grad is None
    assert w.grad is None


def test_similarities_are_the_largest_cosine_to_a_labelled_sample_of_each_class():
    generator = np.random.default_rng(0)
    features, known, labels = (
        generator.normal(size=(4, 3)),
        generator.normal(size=(7, 3)),
        np.array([0, 2, 2, 0, 2, 0, 0]),
    )
    expected = np.full((4, 3), -1.0)
    for n, f in enumerate(features):
        for k, label in zip(known, labels, strict=True):
            cosine = f @ k / np.linalg.norm(f) / np.linalg.norm(k)
            expected[n, label] = max(expected[n, label], cosine)
    similarities = class_similarities(*map(torch.from_numpy, (features, known, labels)), classes=3)
    assert_close(similarities, torch.from_numpy(expected))
    assert bool((similarities[:, 1] == -1).all())


def test_pseudo_labels_count_by_how_much_clearer_they_are_than_the_next():
    similarities = torch.tensor([[0.9, 0.1, 0.4], [0.3, 0.3, 0.2]])
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log()
    # Weights 0.5 and 0: half of 0.5 * log 2.
    assert_close(weight_aware_cross_entropy(logits, similarities), torch.tensor(0.25 * np.log(2), dtype=torch.float32))
    assert_close(WeightAwareCrossEntropy()(logits[1:], similarities[1:]), torch.tensor(0.0))


def test_gradient_is_that_of_the_weighted_cross_entropy():
    z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    weight_aware_cross_entropy(z, torch.tensor([[0.2, 0.7]], dtype=torch.float64)).backward()
    # 0.5 * (q - onehot) with q = 1/2 each.
    assert_close(z.grad, torch.tensor([[0.25, -0.25]], dtype=torch.float64))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="Logits of student and teacher must have the same shape"):
        combined_confidence(ZS, ZT[:2])
    with pytest.raises(ShapeError, match=r"`weights` must have shape \(3,\), got \(2,\)"):
        weighted_feature_mse(ZS, ZT, torch.ones(2))
    with pytest.raises(ShapeError, match=r"vectors of one width, got \(2, 3\) and \(2, 4\)"):
        class_similarities(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), classes=2)
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(2,\), got \(3,\)"):
        class_similarities(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3), classes=2)
    with pytest.raises(ShapeError, match=r"\(N, C\) with C > 1, got \(3, 1\)"):
        weight_aware_cross_entropy(ZS[:, :1], ZT[:, :1])
    with pytest.raises(ShapeError, match=r"`confidence` must have shape \(N,\) with N > 0, got \(0,\)"):
        most_confident(torch.zeros(0), 0.5)
    with pytest.raises(ValueError, match="`share` must be a finite number above 0, got 0"):
        most_confident(torch.ones(2), 0)
