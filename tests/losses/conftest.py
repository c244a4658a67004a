"""References and random features for the tests of losses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform


def reference_kernel(features, options):
    features = features.numpy()
    if options.get("kernel") != "rbf":
        return features @ features.T
    distances = squareform(pdist(features, "sqeuclidean"))
    return np.exp(-distances / (2 * options.get("bandwidth", 1.0) ** 2 * np.median(distances)))


def reference_hsic(left, right, options):
    """The textbook sums: traces with an explicit centring matrix; Song et al.'s three terms for the unbiased form."""
    n = len(left)
    if not options.get("center", True):
        return np.trace(left @ right)
    if not options["unbiased"]:
        h = np.eye(n) - 1 / n
        return np.trace(left @ h @ right @ h)
    left, right = (kernel - np.diag(np.diag(kernel)) for kernel in (left, right))
    one = np.ones(n)
    totals = (one @ left @ one) * (one @ right @ one) / ((n - 1) * (n - 2))
    return (np.trace(left @ right) + totals - 2 / (n - 2) * (one @ left @ right @ one)) / (n * (n - 3))


def reference_alignment(left, right, options):
    between, of_left, of_right = (
        reference_hsic(*pair, options) for pair in ((left, right), (left, left), (right, right))
    )
    return between / np.sqrt(of_left * of_right)


def reference_cka(student, teacher, options):
    return reference_alignment(reference_kernel(student, options), reference_kernel(teacher, options), options)


def _random_pair(shape, seed=0, dtype=torch.float64):
    n, student_width, teacher_width = shape
    rng = np.random.default_rng(seed)
    student = rng.normal(size=(n, student_width))
    teacher = rng.normal(size=(n, teacher_width)) + student @ rng.normal(size=(student_width, teacher_width))
    return torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype)


@pytest.fixture(scope="session")
def reference():
    """CKA and its parts by their definitions, in NumPy."""
    return SimpleNamespace(
        kernel=reference_kernel, hsic=reference_hsic, alignment=reference_alignment, cka=reference_cka
    )


@pytest.fixture(scope="session")
def random_pair():
    """Function of ``(n, d_s, d_t)`` and a seed: student features, and teacher features that depend on them."""
    return _random_pair


@pytest.fixture(scope="session")
def correlated_gaussians():
    """The 100 samples behind published values."""
    legacy = np.random.RandomState(1337)
    student = legacy.randn(100, 10)
    return torch.from_numpy(student), torch.from_numpy(legacy.randn(100, 10) + student)
