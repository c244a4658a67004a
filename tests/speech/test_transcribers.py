"""Claims about teachers that write transcripts: Whisper and CTC, from folders that `save_pretrained` wrote."""

import json

import numpy as np
import pytest
import torch

from lightning_kd.errors import AudioError, SetupError
from lightning_kd.speech.scores import token_scores
from lightning_kd.speech.transcribers import (
    CTCTranscriber,
    WhisperOptions,
    WhisperTranscriber,
    load_transcriber,
)


def clips(*seconds):
    generator = np.random.default_rng(0)
    return [generator.standard_normal(int(16000 * s)).astype(np.float32) * 0.1 for s in seconds]


@pytest.mark.parametrize("timestamps", [True, False])
def test_whisper_writes_in_a_batch_what_it_writes_alone_and_scores_it(whisper_parts, whisper_checkpoint, timestamps):
    options = WhisperOptions(language="en", task="transcribe", timestamps=timestamps, max_new_tokens=10)
    teacher = load_transcriber(str(whisper_checkpoint), options=options)
    assert isinstance(teacher, WhisperTranscriber)
    audio = clips(1.0, 0.5, 2.0)
    together = teacher(audio)
    for samples, transcript in zip(audio, together, strict=True):
        (alone,) = teacher([samples])
        assert alone.tokens == transcript.tokens
        assert alone.scores == pytest.approx(transcript.scores, rel=1e-4)
    model, index = teacher.model, whisper_parts.index
    extractor = teacher.processor.feature_extractor
    features = extractor(audio[0], sampling_rate=16000, return_tensors="pt").input_features
    prefix = [index["<|startoftranscript|>"], index["<|en|>"], index["<|transcribe|>"]]
    prefix += [] if timestamps else [index["<|notimestamps|>"]]
    tokens = list(together[0].tokens)
    assert 0 < len(tokens) <= 10
    assert any(token > index["<|notimestamps|>"] for token in tokens) == timestamps
    with torch.no_grad():
        logits = model(input_features=features, decoder_input_ids=torch.tensor([prefix + tokens])).logits[0]
    ended = len(tokens) < 10
    written = torch.tensor(tokens + ([index["<|endoftext|>"]] if ended else []))
    expected = token_scores(logits[len(prefix) - 1 :][: len(written)], written)
    assert together[0].scores["nll"] == pytest.approx(expected.nll, rel=1e-4)
    assert together[0].scores["entropy"] == pytest.approx(expected.entropy, rel=1e-4)
    assert "<|" not in together[0].text


def test_whisper_refuses_what_does_not_fit_its_window(whisper_checkpoint):
    with pytest.raises(AudioError, match=r"at most 2 s long, got 3\.0 s"):
        load_transcriber(str(whisper_checkpoint))(clips(3.0))


@pytest.fixture(scope="module")
def ctc_checkpoint(tmp_path_factory):
    """Folder with a random HuBERT with a CTC head and its processor, like ``facebook/hubert-large-ls960-ft``."""
    from transformers import (
        HubertConfig,
        HubertForCTC,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    folder = tmp_path_factory.mktemp("ctc")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    torch.manual_seed(0)
    config = HubertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
    )
    model = HubertForCTC(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(50.0)
    model.save_pretrained(folder)
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(folder / "vocab.json"))
    processor.save_pretrained(folder)
    return folder


def test_a_ctc_model_writes_its_best_path(ctc_checkpoint):
    teacher = load_transcriber(str(ctc_checkpoint))
    assert isinstance(teacher, CTCTranscriber)
    assert teacher.sample_rate == 16000
    transcripts = teacher(clips(0.5, 0.3))
    assert len(transcripts) == 2
    for transcript in transcripts:
        assert 0 not in transcript.tokens
        assert 0 < transcript.scores["confidence"] <= 1
        assert transcript.scores["confidence"] == pytest.approx(transcript.scores["likelihood"], rel=0.2)
        assert set(transcript.text) <= set("ABC <>unks/")


def test_what_is_no_recogniser_is_refused(ctc_checkpoint, tmp_path):
    from transformers import HubertConfig, HubertModel

    with pytest.raises(SetupError, match=r"must be a checkpoint of transformers with its processor, got '.*nothing'"):
        load_transcriber(str(tmp_path / "nothing"))
    with pytest.raises(SetupError, match=r"apply to Whisper only, got .*beams=4.* for HubertForCTC"):
        load_transcriber(str(ctc_checkpoint), options=WhisperOptions(beams=4))
    config = HubertConfig.from_pretrained(ctc_checkpoint)
    for path in ctc_checkpoint.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    HubertModel(config).save_pretrained(tmp_path)
    with pytest.raises(SetupError, match=r"must be a Whisper or a CTC model, got HubertModel"):
        load_transcriber(str(tmp_path))
