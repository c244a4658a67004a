"""Claims about data sets of audio files: which there are, and what is refused."""

import json

import numpy as np
import pytest
import soundfile

from lightning_kd.errors import AudioError, SetupError
from lightning_kd.speech.clips import Clip, find_clips, read_clip


def write(path, samples=None, rate=16000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(800, dtype=np.float32) if samples is None else samples, rate, **options)
    return str(path)


def test_a_folder_is_searched_in_a_fixed_order(tmp_path):
    for name in ("b.wav", "sub/a.flac", "a.WAV"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    assert [clip.id for clip in find_clips(str(tmp_path))] == ["a.WAV", "b.wav", "sub/a.flac"]


def test_a_manifest_has_ids_and_texts(tmp_path):
    lines = [{"audio": "x.wav", "text": "hello"}, {"audio": "y.wav", "id": "second"}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert find_clips(str(tmp_path / "data.jsonl")) == [
        Clip("x.wav", str(tmp_path / "x.wav"), "hello"),
        Clip("second", str(tmp_path / "y.wav")),
    ]


def test_what_is_no_data_set_is_an_error(tmp_path):
    with pytest.raises(SetupError, match=r"a folder of audio files or a \.jsonl manifest, got 'nowhere'"):
        find_clips("nowhere")
    with pytest.raises(SetupError, match=r"must hold audio files .*, got none"):
        find_clips(str(tmp_path))
    manifest = tmp_path / "data.jsonl"
    manifest.write_text('{"audio": "x.wav"}\nnothing\n')
    with pytest.raises(SetupError, match=r'line 2 of the manifest must be JSON with "audio", got \'nothing\''):
        find_clips(str(manifest))
    manifest.write_text('{"audio": "x.wav"}\n{"audio": "x.wav"}\n')
    with pytest.raises(SetupError, match=r"an id of its own, got 'x\.wav' twice"):
        find_clips(str(manifest))


def test_samples_are_read_as_they_are(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 800).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    found = read_clip(path, sample_rate=16000)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, samples)


def test_bad_audio_is_refused_by_name(tmp_path):
    with pytest.raises(AudioError, match=r"8k\.wav.* 16000 samples per second, got 8000"):
        read_clip(write(tmp_path / "8k.wav", rate=8000), sample_rate=16000)
    with pytest.raises(AudioError, match=r"short\.wav.* at least 400 samples, got 10"):
        read_clip(write(tmp_path / "short.wav", np.zeros(10)), sample_rate=16000)
    with pytest.raises(AudioError, match=r"stereo\.wav` must have one channel, got 2"):
        read_clip(write(tmp_path / "stereo.wav", np.zeros((800, 2))), sample_rate=16000)
    broken = np.zeros(800, dtype=np.float32)
    broken[5] = np.nan
    with pytest.raises(AudioError, match=r"nan\.wav.* finite, got 1 samples"):
        read_clip(write(tmp_path / "nan.wav", broken, subtype="FLOAT"), sample_rate=16000)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"text\.wav` must be an audio file"):
        read_clip(str(tmp_path / "text.wav"), sample_rate=16000)
