"""Claims about classifiers that learn new classes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.incremental import align_class_weights, extend_classifier


@pytest.mark.parametrize("bias", [True, False])
def test_a_wider_classifier_says_of_old_classes_what_it_said_before(bias):
    old = nn.Linear(4, 3, bias=bias, dtype=torch.float64)
    new, x = extend_classifier(old, 7), torch.randn(6, 4, dtype=torch.float64)
    assert new(x).shape == (6, 7)
    assert_close(new(x)[:, :3], old(x))
    assert old.out_features == 3
    assert new.weight.requires_grad
    assert (new.bias is None) is not bias


def test_new_weights_get_the_mean_length_of_the_old_ones():
    # Lengths 5 and 10 of the old, 1 and 2 of the new classes: gamma = 7.5 / 1.5.
    classifier = nn.Linear(2, 4)
    weights = torch.tensor([[3.0, 4.0], [6.0, 8.0], [1.0, 0.0], [0.0, -2.0]])
    classifier.weight.data.copy_(weights)
    bias = classifier.bias.clone()
    assert align_class_weights(classifier, old_classes=2) == pytest.approx(5.0)
    assert_close(classifier.weight.detach(), torch.tensor([[3.0, 4.0], [6.0, 8.0], [5.0, 0.0], [0.0, -10.0]]))
    assert torch.equal(classifier.bias, bias)


def test_aligning_twice_is_aligning_once():
    classifier = nn.Linear(8, 6, dtype=torch.float64)
    align_class_weights(classifier, old_classes=4)
    once = classifier.weight.clone()
    assert align_class_weights(classifier, old_classes=4) == pytest.approx(1.0)
    assert_close(classifier.weight, once)


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(SetupError, match="among the 3 classes, got 3"):
        align_class_weights(nn.Linear(2, 3), old_classes=3)
    with pytest.raises(SetupError, match="among the 3 classes, got 0"):
        align_class_weights(nn.Linear(2, 3), old_classes=0)
    classifier = nn.Linear(2, 3)
    nn.init.zeros_(classifier.weight[2:])
    with pytest.raises(SetupError, match="new classes' weights are all zero"):
        align_class_weights(classifier, old_classes=2)
    with pytest.raises(SetupError, match="`classes` must be more than the 3 that there are, got 3"):
        extend_classifier(nn.Linear(2, 3), 3)
