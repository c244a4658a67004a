"""The table of methods that the benchmarks share says something about every objective."""

import importlib
from pathlib import Path

import pytest
import torch

from lightning_kd import objectives
from lightning_kd.objectives import Objective, PairedObjective

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ABSTRACT = {Objective, PairedObjective}


@pytest.fixture
def methods(monkeypatch):
    """The table."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_methods")


@pytest.fixture
def settings(methods):
    """Makes networks of every kind of pair: both directions across architectures, and two equal transformers."""
    pairs = importlib.import_module("_pairs").PAIRS
    makers = [(pair.make_teacher, pair.make_student) for pair in pairs.values()]
    makers.append((pairs["cnn_to_vit"].make_student, pairs["cnn_to_vit"].make_student))
    images, labels = torch.randn(2, 1, 28, 28), torch.arange(20) % 10

    def make(teacher, student):
        return methods.Setting(teacher=teacher(), student=student(), images=images, labels=labels)

    return lambda: [make(*pair) for pair in makers]


def test_every_objective_is_in_a_method_or_has_a_reason_not_to_be(methods, settings):
    used = set()
    for method in methods.METHODS.values():
        fitting = [setting for setting in settings() if method.obstacle(setting) is None]
        used |= {type(objective) for setting in fitting for objective in method.recipe(setting).objectives}
    public = {getattr(objectives, name) for name in objectives.__all__}
    concrete = {cls for cls in public if issubclass(cls, Objective)} - ABSTRACT

    assert used | methods.ELSEWHERE.keys() == concrete
    assert not used & methods.ELSEWHERE.keys()


def test_every_method_fits_a_pair_and_says_why_it_fits_no_other(methods, settings):
    for name, method in methods.METHODS.items():
        reasons = [method.obstacle(setting) for setting in settings()]
        assert None in reasons, name
        assert all(reason.startswith("needs ") for reason in reasons if reason is not None)
