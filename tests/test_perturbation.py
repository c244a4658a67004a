"""Claims about images of another distribution."""

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.perturbation import mix_distribution

IMAGES = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = IMAGES * torch.rand(5, 3, 1, 1, dtype=torch.float64) + torch.arange(5.0)[:, None, None, None]


def statistics(images):
    return torch.std_mean(images, dim=(2, 3), correction=0)


def test_what_is_in_an_image_stays():
    mixed = mix_distribution(IMAGES, generator=torch.Generator().manual_seed(1))
    (before, mean), (after, other) = statistics(IMAGES), statistics(mixed)
    standardised = [
        (x - m[..., None, None]) / d[..., None, None] for x, d, m in ((IMAGES, before, mean), (mixed, after, other))
    ]
    assert_close(*standardised, rtol=1e-4, atol=1e-4)


def test_mean_and_deviation_are_one_mixture_of_those_of_two_different_images():
    mixed = mix_distribution(IMAGES, generator=torch.Generator().manual_seed(1))
    deviation, mean = statistics(IMAGES)
    new_deviation, new_mean = statistics(mixed)
    turn = next(t for t in range(1, 5) if _is_mixture(new_mean, mean, mean.roll(t, 0)))
    share = ((new_mean - mean.roll(turn, 0)) / (mean - mean.roll(turn, 0)))[:, 0]
    assert bool(((share >= 0) & (share <= 1)).all())
    expected = share[:, None] * deviation + (1 - share[:, None]) * deviation.roll(turn, 0)
    assert_close(new_deviation, expected, rtol=1e-4, atol=1e-4)


def _is_mixture(new, own, other):
    shares = (new - other) / (own - other)
    return bool((shares - shares[:, :1]).abs().max() < 1e-6)


def test_a_generator_repeats_the_perturbation():
    first, second, third = (mix_distribution(IMAGES, generator=torch.Generator().manual_seed(s)) for s in (2, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_single_image_has_no_partner():
    with pytest.raises(ShapeError, match=r"with N > 1, got \(1, 3, 6, 6\)"):
        mix_distribution(IMAGES[:1])
    with pytest.raises(ShapeError, match=r"with N > 1, got \(5, 3\)"):
        mix_distribution(IMAGES[:, :, 0, 0])
