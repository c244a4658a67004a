"""Front ends against transformers' and SciPy's features, which are computed by fast transforms in float64."""

import numpy as np
import pytest
import scipy.fft
import torch

from exporters.preprocessing import LogMelPreprocessing
from lightning_kd.errors import ShapeError
from lightning_kd.speech import MFCC, LogMel
from lightning_kd.speech.frontends import BC_RESNET_LOG_MEL, KWT_LOG_MEL, cosine_transform

# The conventions that docs/keywords.md states, by the library whose defaults they are.
LIBROSA = LogMelPreprocessing(
    fft_size=2048,
    hop=512,
    mel_bins=128,
    mel_scale="slaney",
    normalized_filters=True,
    padding="zeros",
    logarithm="log10",
    dynamic_range=8.0,
    std=0.1,
)
TORCHAUDIO = LogMelPreprocessing(
    fft_size=512, window_size=400, hop=160, mel_bins=40, logarithm="log10", dynamic_range=8.0, std=0.1
)


@pytest.fixture(scope="module")
def waveform():
    """A rising tone in a little noise, two seconds."""
    time = np.arange(32000) / 16000
    noise = 0.02 * np.random.default_rng(0).normal(size=time.size)
    return (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + noise).astype(np.float32)


def reference(waveform, options, **settings):
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(
        options.fft_size // 2 + 1,
        options.mel_bins,
        options.minimum_hz,
        options.top_hz,
        options.sample_rate,
        norm="slaney" if options.normalized_filters else None,
        mel_scale=options.mel_scale,
    )
    return spectrogram(
        waveform,
        window_function(options.frame_size, "hann"),
        frame_length=options.frame_size,
        hop_length=options.hop,
        fft_length=options.fft_size,
        power=options.power,
        center=options.center,
        mel_filters=filters,
        **settings,
    )


def run(module, waveform):
    return module(torch.from_numpy(waveform)[None])[0].numpy()


def test_bc_resnet_features_are_logarithms_of_energies_with_an_offset(waveform):
    # torchaudio's MelSpectrogram of these sizes, then log(x + 1e-6).
    expected = np.log(reference(waveform, BC_RESNET_LOG_MEL, mel_floor=0.0) + 1e-6)
    found = run(LogMel(), waveform)
    assert found.shape == (40, 201)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("options", "pad_mode"), [(LIBROSA, "constant"), (TORCHAUDIO, "reflect")])
def test_decibels_have_the_range_and_padding_of_the_libraries(waveform, options, pad_mode):
    # power_to_db and AmplitudeToDB: 10 log10(max(x, 1e-10)), no more than 80 dB below the largest value.
    expected = reference(waveform, options, pad_mode=pad_mode, log_mel="dB", db_range=80.0)
    found = run(LogMel(options), waveform)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert found.max() - found.min() <= 80.0 + 1e-4


@pytest.mark.parametrize(
    ("options", "coefficients", "pad_mode"), [(LIBROSA, 20, "constant"), (TORCHAUDIO, 40, "reflect")]
)
def test_cepstra_are_the_orthogonal_cosine_transform_of_decibels(waveform, options, coefficients, pad_mode):
    decibels = reference(waveform, options, pad_mode=pad_mode, log_mel="dB", db_range=80.0).astype(np.float64)
    expected = scipy.fft.dct(decibels, axis=0, norm="ortho")[:coefficients]
    found = run(MFCC(options, coefficients=coefficients), waveform)
    np.testing.assert_allclose(found, expected, atol=2e-2)  # decibels reach 80, their sum over 128 filters 900


def test_kwt_has_98_frames_of_a_second_with_40_coefficients_of_80_filters(waveform):
    decided = reference(waveform[:16000], KWT_LOG_MEL, mel_floor=1e-12, log_mel="log").astype(np.float64)
    found = run(MFCC(), waveform[:16000])
    assert found.shape == (40, 98)
    np.testing.assert_allclose(found, scipy.fft.dct(decided, axis=0, norm="ortho")[:40], atol=2e-3)


def test_scalings_differ_in_the_first_coefficient_only():
    orthogonal, htk = (cosine_transform(5, 9, scaling=scaling) for scaling in ("ortho", "htk"))
    assert torch.allclose(htk[0], orthogonal[0] * 2**0.5, rtol=1e-12)
    assert torch.equal(htk[1:], orthogonal[1:])
    # TensorFlow's: the plain sum of cosines, twice, over the root of twice the number of filters.
    values = np.random.default_rng(0).normal(size=9)
    np.testing.assert_allclose(htk.numpy() @ values, scipy.fft.dct(values)[:5] / np.sqrt(18), atol=1e-12)


def test_time_may_come_first(waveform):
    options = LogMelPreprocessing(mel_bins=20, time_first=True)
    found = run(MFCC(options, coefficients=7), waveform)
    assert found.shape == (201, 7)
    np.testing.assert_allclose(
        found.T, run(MFCC(LogMelPreprocessing(mel_bins=20), coefficients=7), waveform), atol=1e-5
    )


def test_silence_is_finite():
    assert bool(LogMel()(torch.zeros(1, 16000)).isfinite().all())
    assert bool(MFCC()(torch.zeros(1, 16000)).isfinite().all())


@pytest.mark.parametrize("front_end", [LogMel(), MFCC()])
@pytest.mark.parametrize("shape", [(479,), (1, 479), (1, 1, 16000)])
def test_audio_shorter_than_a_window_is_refused(front_end, shape):
    with pytest.raises(ShapeError, match=r"`waveform` must have shape \(N, samples\) with at least 480 samples"):
        front_end(torch.zeros(shape))


def test_more_coefficients_than_filters_are_refused():
    with pytest.raises(ValueError, match="`coefficients` must be from 1 to the number of mel filters, 80, got 81"):
        MFCC(coefficients=81)
    with pytest.raises(ValueError, match="`scaling` must be one of 'ortho', 'htk', got 'kaldi'"):
        MFCC(scaling="kaldi")
