import numpy as np
import pytest
import torch

from lightning_kd.errors import ShapeError
from lightning_kd.speech import AddNoise, RandomShift, SpecAugment

MANY = 400


@pytest.mark.parametrize("module", [RandomShift(3), AddNoise(probability=1.0), AddNoise([torch.randn(99)])])
def test_nothing_happens_to_waveforms_in_evaluation(module):
    waveform = torch.randn(4, 50)
    assert torch.equal(module.eval()(waveform), waveform)


def test_shifts_reach_both_ends_and_leave_silence():
    waveform = torch.arange(1.0, 6.0).repeat(MANY, 1)
    moved = RandomShift(2)(waveform)
    rows = {tuple(row) for row in moved.tolist()}
    assert rows == {
        (3.0, 4.0, 5.0, 0.0, 0.0),
        (2.0, 3.0, 4.0, 5.0, 0.0),
        (1.0, 2.0, 3.0, 4.0, 5.0),
        (0.0, 1.0, 2.0, 3.0, 4.0),
        (0.0, 0.0, 1.0, 2.0, 3.0),
    }


def test_a_shift_longer_than_the_clip_leaves_silence_only():
    moved = RandomShift(100)(torch.ones(MANY, 3))
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert bool((moved == 0).all(1).any())


def test_noise_has_the_ratio_that_was_asked_for():
    waveform = 0.1 * torch.randn(MANY, 2000)
    recordings = [3.0 * torch.randn(5000), 0.01 * torch.randn(2000)]
    for source in (None, recordings):
        noise = AddNoise(source, probability=1.0, ratio_db=(7.0, 7.0))(waveform) - waveform
        ratio_db = 10 * (waveform.square().mean(1) / noise.square().mean(1)).log10()
        assert torch.allclose(ratio_db, torch.full((MANY,), 7.0), atol=1e-2)


def test_noise_reaches_the_given_share_of_the_waveforms():
    waveform = torch.randn(MANY, 16)
    changed = (AddNoise(probability=0.25)(waveform) != waveform).any(1)
    # Four standard deviations of the share of 400 draws: 4 sqrt(0.25 * 0.75 / 400) = 0.087.
    assert abs(changed.double().mean().item() - 0.25) < 0.087


def test_silence_stays_silent_and_noise_of_silence_finite():
    assert torch.equal(AddNoise(probability=1.0)(torch.zeros(2, 8)), torch.zeros(2, 8))
    assert bool(AddNoise([torch.zeros(9)], probability=1.0)(torch.ones(2, 8)).isfinite().all())


def test_stripes_have_their_widths_and_hold_the_mean():
    features = torch.randn(MANY, 10, 12)
    hidden = SpecAugment(frequency_masks=1, frequency_width=3, time_masks=0)(features) != features
    widths = hidden.all(2).sum(1)
    assert torch.equal(hidden.any(2), hidden.all(2))  # whole rows
    assert set(widths.tolist()) == {0, 1, 2, 3}
    assert bool(hidden.all(2).any(0).all())  # every frequency is hidden some time
    hidden = SpecAugment(frequency_masks=0, time_masks=2, time_width=4)(features)
    columns = (hidden != features).all(1)
    assert columns.sum(1).max() <= 8
    means = features.mean((1, 2))[:, None, None].expand_as(features)
    where = columns[:, None].expand_as(features)
    assert torch.equal(hidden[where], means[where])


def test_nothing_happens_to_features_in_evaluation():
    features = torch.randn(2, 10, 12)
    assert torch.equal(SpecAugment().eval()(features), features)


def test_the_seed_decides():
    modules = (RandomShift(5), AddNoise([torch.randn(90)]))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        waveform = torch.from_numpy(np.linspace(-1, 1, 160, dtype=np.float32).reshape(2, 80))
        for module in modules:
            waveform = module(waveform)
        results.append(waveform)
    assert torch.equal(*results)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="`samples` must be a finite number of at least 0, got -1"):
        RandomShift(-1)
    with pytest.raises(ValueError, match="`probability` must be a number from 0 to 1, got 2"):
        AddNoise(probability=2)
    with pytest.raises(ValueError, match=r"`ratio_db` must rise, got \(3.0, 1.0\)"):
        AddNoise(ratio_db=(3.0, 1.0))
    with pytest.raises(ShapeError, match=r"at least one, got \[\(2, 9\)\]"):
        AddNoise([torch.zeros(2, 9)])
    with pytest.raises(ShapeError, match="`recordings` must have at least 10 samples, a waveform, got 9"):
        AddNoise([torch.zeros(9)])(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="`time_width` must be a finite number of at least 0, got -3"):
        SpecAugment(time_width=-3)
    with pytest.raises(ShapeError, match=r"`features` must have shape \(N, F, T\), got \(4, 5\)"):
        SpecAugment()(torch.zeros(4, 5))
    for module in (RandomShift(1), AddNoise()):
        with pytest.raises(ShapeError, match=r"`waveform` must have shape \(N, samples\), got \(4,\)"):
            module(torch.zeros(4))
