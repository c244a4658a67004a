"""Which network should teach a task is told by its features and the labels."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import cka
from lightning_kd.teachers import EnsembleTeacher, source_weights, task_similarity

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(40) % 4
NOISE = torch.randn(40, 16, generator=GENERATOR)
MEANS = torch.randn(4, 16, generator=GENERATOR)


def test_parc_is_the_rank_correlation_of_both_distances():
    features, labels = (MEANS[LABELS] + NOISE).numpy().astype(np.float64), np.eye(4)[LABELS.numpy()]
    pairs = np.tril_indices(40, -1)
    distances = [np.round(1 - np.corrcoef(values), 12)[pairs] for values in (features, labels)]
    expected = spearmanr(*distances).statistic
    assert task_similarity(MEANS[LABELS] + NOISE, LABELS) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", ["parc", "cka"])
def test_features_that_separate_the_classes_better_are_more_similar(metric):
    scores = [task_similarity(strength * MEANS[LABELS] + NOISE, LABELS, metric=metric) for strength in (0.0, 0.5, 2.0)]
    assert scores == sorted(scores)
    assert abs(scores[0]) < 0.15
    assert scores[2] > 0.5


def test_names_of_classes_do_not_matter():
    features = MEANS[LABELS] + NOISE
    assert task_similarity(features, LABELS) == pytest.approx(task_similarity(features, 7 - 2 * LABELS), abs=1e-12)


def test_cka_is_that_of_features_and_one_hot_labels():
    one_hot = torch.eye(4, dtype=torch.float64)[LABELS]
    assert task_similarity(NOISE, LABELS, metric="cka") == pytest.approx(cka(NOISE.double(), one_hot).item(), abs=1e-12)


def test_weights_follow_the_power():
    similarities = {"a": 0.2, "b": 0.4, "c": -0.3}
    assert source_weights(similarities, power=2.0) == {"a": 0.2, "b": 0.8, "c": 0.0}  # 0.04 and 0.16
    assert source_weights(similarities, power=0.0) == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert source_weights(similarities, nearest=True) == {"a": 0.0, "b": 1.0, "c": 0.0}


def test_weights_are_those_of_an_ensemble():
    weights = source_weights({"a": 0.1, "b": 0.3})
    teacher = EnsembleTeacher({name: torch.nn.Identity() for name in weights}, weights=list(weights.values()))
    assert list(teacher.members) == ["a", "b"]
    assert teacher.weights == [0.25, 0.75]


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ShapeError, match=r"at least 4 samples of at least 2 classes, .* got \(3, 2\) and \(3,\)"):
        task_similarity(torch.randn(3, 2), torch.tensor([0, 1, 0]))
    with pytest.raises(ShapeError, match="at least 2 classes"):
        task_similarity(NOISE, torch.zeros(40, dtype=torch.long))
    with pytest.raises(ShapeError, match="a constant one has no correlation"):
        task_similarity(torch.ones(40, 3), LABELS)
    with pytest.raises(SetupError, match=r"must have a value above 0, got \{'a': -0\.1\}"):
        source_weights({"a": -0.1})
    with pytest.raises(ValueError, match=r"`power` .* got -1"):
        source_weights({"a": 0.1}, power=-1)
    with pytest.raises(ValueError, match="`metric` must be one of 'parc', 'cka', got 'leep'"):
        task_similarity(NOISE, LABELS, metric="leep")
