"""Speech students in every runtime: encoders of any audio length, and keyword spotters from waveform to class."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.coreml import CoreMLExporter
from lightning_kd.speech import MFCC, LogMel
from lightning_kd.students import BCResNet, KeywordTransformer, MatchboxNet

SECOND = 16000
# Shortest, tuned for, longest; the others are no multiple of a frame's 320 samples, or a prime number of samples.
SHORTEST, OPTIMUM, LONGEST = 1600, 8000, 16000
LENGTHS = (SHORTEST, 1601, 4999, OPTIMUM, 12345, LONGEST)
FIRST_FRAME, FRAME = 400, 320


class Runtime(NamedTuple):
    to: object
    suffix: str
    largest_error: float  # relative L2; float32 everywhere


RUNTIMES = {
    "onnx": Runtime("onnx", ".onnx", 1e-5),
    "openvino": Runtime("openvino", ".xml", 1e-5),
    "coreml": Runtime("coreml", ".mlpackage", 1e-5),
    "executorch": Runtime("executorch", ".pte", 1e-5),
}


class Encoder(nn.Module):
    """A HuBERT of the real front's geometry, narrow and two layers deep, as distillation leaves it."""

    def __init__(self, norm):
        from transformers import HubertConfig, HubertModel

        super().__init__()
        self.hubert = HubertModel(
            HubertConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                conv_dim=(16,) * 7,
                feat_extract_norm=norm,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4,
                feat_proj_layer_norm=norm == "layer",
            )
        )

    def forward(self, waveform):
        return self.hubert(waveform).last_hidden_state


def spec(**sizes):
    time = exporters.DimensionRange(**{"minimum": SHORTEST, "maximum": LONGEST, "optimum": OPTIMUM} | sizes)
    waveform = exporters.TensorSpec("waveform", (1, "time"), "float32", value_range=(-1.0, 1.0))
    return exporters.ExportSpec(inputs=(waveform,), dimensions={"time": time})


def speech(samples, seed=0):
    """Noise in syllables, shape ``(1, samples)``."""
    noise = np.random.default_rng(seed).normal(size=(1, samples))
    return (0.2 * noise * np.sin(np.arange(samples) / 700) ** 2).astype(np.float32)


def error(session, network, waveform):
    (found,) = session.run({session.inputs[0].name: waveform}).values()
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(waveform)).numpy()
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.fixture(params=["group"])
def encoder(request):
    torch.manual_seed(0)
    return Encoder(request.param).eval()


# Group norm asks PyTorch for the size of the batch, and Core ML takes a trace.
TRACED = pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")


@TRACED
@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "runtime"),
    [("layer", "onnx"), ("group", "openvino"), ("group", "coreml"), ("group", "executorch")],
    indirect=["encoder"],
)
def test_an_encoder_takes_audio_of_any_length(encoder, runtime, tmp_path):
    to, suffix, largest = RUNTIMES[runtime]
    artifact = exporters.export(encoder, spec(), to=to, path=tmp_path / f"n{suffix}")
    session = exporters.load(artifact, threads=1)
    for samples in LENGTHS:
        waveform = speech(samples)
        assert error(session, encoder, waveform) <= largest, samples
        (frames,) = session.run({"waveform": waveform}).values()
        assert frames.shape[1] == (samples - FIRST_FRAME) // FRAME + 1
    with pytest.raises(exporters.InputError, match=f"got .*{LONGEST + 1}"):
        session.run({"waveform": speech(LONGEST + 1)})


@TRACED
@pytest.mark.slow
def test_an_encoder_takes_the_lengths_that_core_ml_enumerates(encoder, tmp_path):
    step = 3200
    artifact = exporters.export(
        encoder,
        spec(minimum=step, optimum=step, multiple=step),
        to=CoreMLExporter(sizes="enumerated"),
        path=tmp_path / "n.mlpackage",
    )
    session = exporters.load(artifact)
    for samples in range(step, LONGEST + 1, step):
        assert error(session, encoder, speech(samples)) <= 1e-5, samples
    with pytest.raises(exporters.InputError, match=r"got .*8000"):
        session.run({"waveform": speech(8000)})


def spotters(randomise_batch_norm):
    torch.manual_seed(0)
    return {
        "bc-resnet on log-mel features": randomise_batch_norm(nn.Sequential(LogMel(), BCResNet())),
        "kwt on cepstra": nn.Sequential(MFCC(), KeywordTransformer(depth=2, distilled=True)),
        "matchboxnet on cepstra": randomise_batch_norm(nn.Sequential(MFCC(coefficients=64), MatchboxNet())),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        *product(("bc-resnet on log-mel features", "kwt on cepstra"), RUNTIMES),
        ("matchboxnet on cepstra", "executorch"),
    ],
)
def test_a_keyword_spotter_takes_a_second_of_sound(name, runtime, randomise_batch_norm, tmp_path):
    network = spotters(randomise_batch_norm)[name]
    to, suffix, _ = RUNTIMES[runtime]
    artifact = exporters.export(network, torch.from_numpy(speech(SECOND)), to=to, path=tmp_path / f"n{suffix}")
    assert [(each.shape, each.dtype) for each in artifact.inputs] == [((1, SECOND), "float32")]
    session = exporters.load(artifact, threads=1)
    stream = exporters.SlidingWindow(size=SECOND, hop=SECOND // 2)
    windows = list(stream.push(speech(2 * SECOND, seed=1)[0]))
    assert len(windows) == 3
    assert max(error(session, network, window) for window in windows) <= 1e-4
