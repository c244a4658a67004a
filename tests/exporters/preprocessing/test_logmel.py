import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.preprocessing import LogMelPreprocessing, from_transformers
from exporters.preprocessing.modules import LogMel

SECONDS = 2


@pytest.fixture(scope="module")
def waveform():
    """A rising tone in a little noise."""
    time = np.arange(SECONDS * 16000) / 16000
    noise = 0.02 * np.random.default_rng(0).normal(size=time.size)
    return (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + noise).astype(np.float32)


def _features(options, waveform):
    return LogMel(options)(torch.from_numpy(waveform)[None]).numpy()


@pytest.mark.slow
def test_features_of_whisper_are_matched(waveform):
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(chunk_length=SECONDS)
    expected = extractor(waveform, sampling_rate=16000, return_tensors="np").input_features
    options = from_transformers(extractor)
    assert options == from_transformers(extractor.to_dict())
    assert options.caller_steps[1] == "pad with zeros at the end, or cut, to 32000 samples"
    np.testing.assert_allclose(_features(options, waveform), expected, atol=1e-4)
    np.testing.assert_allclose(options.filters().T, extractor.mel_filters, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [64, 256])
def test_features_of_the_spectrogram_transformer_are_matched(waveform, frames):
    from transformers import ASTFeatureExtractor

    extractor = ASTFeatureExtractor(max_length=frames, num_mel_bins=32)
    expected = extractor(waveform, sampling_rate=16000, return_tensors="np").input_values
    np.testing.assert_allclose(_features(from_transformers(extractor), waveform), expected, atol=1e-4)


@pytest.mark.slow
def test_other_feature_extractors_are_refused_by_name():
    from transformers import Wav2Vec2FeatureExtractor

    with pytest.raises(ValueError, match="got 'Wav2Vec2FeatureExtractor'"):
        from_transformers(Wav2Vec2FeatureExtractor())


@pytest.mark.parametrize(("window_size", "fft_size"), [(400, 400), (320, 512)])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_energies_are_those_of_the_short_time_fourier_transform(waveform, window_size, fft_size, power):
    options = LogMelPreprocessing(
        fft_size=fft_size, window_size=window_size, power=power, mel_bins=20, logarithm="none", floor=1e-30
    )
    spectrum = torch.stft(
        torch.from_numpy(waveform).double()[None],
        fft_size,
        hop_length=160,
        win_length=window_size,
        window=torch.hann_window(window_size, dtype=torch.float64),
        return_complex=True,
    )
    expected = options.filters() @ (spectrum.abs() ** power).numpy()
    # Frames of torch.stft are as long as the transform, so that those at the ends reflect more of the waveform.
    inner = slice(1, -1)
    actual = _features(options, waveform)[..., inner]
    np.testing.assert_allclose(actual, expected[..., inner], rtol=1e-4, atol=1e-6 * expected.max())


def test_mel_scales_meet_their_definitions():
    # HTK: 1000 Hz are 2595 log10(1 + 1000/700) = 999.99 mel, so that three filters up to twice that peak there.
    options = LogMelPreprocessing(fft_size=16000, mel_bins=1, maximum_hz=3428.7)
    top = 2595 * np.log10(1 + 3428.7 / 700)
    assert options.filters()[0].argmax() == round(700 * (10 ** (top / 2 / 2595) - 1))
    # Slaney: linear below 1000 Hz, so that one filter from 0 to 1000 Hz peaks at 500 Hz with height 1, or 2/1000.
    options = LogMelPreprocessing(fft_size=16000, mel_bins=1, maximum_hz=1000.0, mel_scale="slaney")
    assert options.filters()[0].argmax() == 500
    assert options.filters()[0, 500] == pytest.approx(1.0)
    normalized = LogMelPreprocessing(
        fft_size=16000, mel_bins=1, maximum_hz=1000.0, mel_scale="slaney", normalized_filters=True
    )
    assert normalized.filters()[0, 500] == pytest.approx(2 / 1000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window_size": 500}, "`window_size` must be from 2 to `fft_size`, got 500 and 400"),
        ({"maximum_hz": 9000.0}, "must rise between 0 and half of `sample_rate`, got 0.0, 9000.0 and 16000"),
        ({"mel_scale": "bark"}, r"`mel_scale` must be one of .*, got 'bark'"),
        ({"padding": "ones"}, "got 'ones'"),
        ({"offset": -1e-6}, "`offset` must be a finite number of at least 0, got -1e-06"),
        ({"power": 3.0}, "`power` must be 1 or 2"),
        ({"std": 0.0}, "got 2.0, 1e-10 and 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LogMelPreprocessing(**fields)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("coreai", ".aimodel")])
def test_the_file_takes_waveforms_and_says_so(tmp_path, to, suffix):
    options = LogMelPreprocessing(
        fft_size=64, hop=32, mel_bins=8, drop_last_frame=True, logarithm="log10", dynamic_range=8.0, mean=-4.0, std=4.0
    )
    network = nn.Sequential(nn.Conv1d(8, 4, 3, stride=2), nn.GELU())
    waveform = 0.1 * torch.randn(1, 800)
    path = tmp_path / f"student{suffix}"
    artifact = exporters.export(network, waveform, to=to, path=path, preprocessing=options)
    assert [(spec.name, spec.shape) for spec in artifact.inputs] == [("waveform", (1, 800))]
    output = exporters.load(artifact).run({"waveform": waveform.numpy()})["output"]
    with torch.no_grad():
        expected = network(LogMel(options)(waveform)).numpy()
    assert np.linalg.norm(output - expected) <= 1e-5 * np.linalg.norm(expected)
    metadata = exporters.read_metadata(path)
    assert (metadata.preprocessing, metadata.inputs[0].layout) == (options, "N, samples")
