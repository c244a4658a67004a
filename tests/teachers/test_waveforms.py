"""Waveforms reach a teacher at its sample rate, or as its features."""

import math

import numpy as np
import pytest
import torch

from exporters.preprocessing import LogMelPreprocessing, from_transformers
from exporters.preprocessing.modules import LogMel
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.teachers import WaveformView
from lightning_kd.teachers.waveforms import resample


def tone(hz, rate, seconds=0.25):
    return torch.sin(2 * math.pi * hz * torch.arange(int(rate * seconds), dtype=torch.float64) / rate)[None]


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16000), (16000, 8000), (16000, 22050), (44100, 16000)])
def test_a_tone_keeps_its_pitch_and_its_height(from_hz, to_hz):
    heard, expected = resample(tone(1000, from_hz), from_hz, to_hz), tone(1000, to_hz)
    assert abs(heard.shape[1] - expected.shape[1]) <= 1
    inside = slice(200, 1500)  # away from the ends, where the tone begins and stops
    torch.testing.assert_close(heard[:, inside], expected[:, inside], rtol=0, atol=2e-3)


def test_what_the_lower_rate_cannot_hold_is_filtered_out():
    heard = resample(tone(6000, 16000), 16000, 8000)[:, 100:-100]
    assert heard.abs().max() < 0.01


def test_a_constant_stays_one():
    heard = resample(torch.ones(1, 4000, dtype=torch.float64), 8000, 16000)[:, 200:-200]
    torch.testing.assert_close(heard, torch.ones_like(heard), rtol=0, atol=2e-3)


def test_equal_rates_pass_the_very_waveform_on():
    waveform = torch.randn(2, 100)
    assert resample(waveform, 8000, 8000) is waveform


def test_features_are_those_of_the_teachers_extractor():
    from transformers import ASTFeatureExtractor

    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    waveform = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours = WaveformView(16000, 16000, features=from_transformers(extractor))(waveform)
    theirs = extractor(waveform[0].numpy().astype(np.float32), sampling_rate=16000, return_tensors="pt").input_values
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_waveform_is_cut_or_filled_to_the_length_that_the_features_ask_for():
    options = LogMelPreprocessing(samples=4000)
    view = WaveformView(16000, 16000, features=options)
    short, long = torch.randn(1, 3000), torch.randn(1, 5000)
    padded = torch.cat([short, torch.zeros(1, 1000)], dim=1)
    assert torch.equal(view(short), LogMel(options)(padded))
    assert torch.equal(view(long), LogMel(options)(long[:, :4000]))


def test_autocast_does_not_make_it_coarse():
    waveform = torch.randn(1, 800)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heard = WaveformView(8000, 16000)(waveform)
    assert torch.equal(heard, WaveformView(8000, 16000)(waveform))


def test_wrong_rates_and_shapes_are_refused():
    with pytest.raises(SetupError, match="at least 1 Hz, got 0 and 16000"):
        WaveformView(0, 16000)
    with pytest.raises(SetupError, match="must be the rate of the features, 16000 Hz, got 8000"):
        WaveformView(8000, 8000, features=LogMelPreprocessing())
    with pytest.raises(ShapeError, match=r"must have shape \(N, samples\), got \(2, 1, 100\)"):
        WaveformView(8000, 16000)(torch.zeros(2, 1, 100))
