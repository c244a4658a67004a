"""Compressed speech encoders in real runtimes: pruned, cut out of a supernet, and in fixed-width mode."""

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from lightning_kd.compression import EncoderGates, EncoderShape, prune_encoder
from lightning_kd.students import (
    SearchSpace,
    SpeechSupernet,
    fix_learners,
    set_lengths,
    supernet_encoder,
    with_adaptive_computation,
    with_length_adaptation,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:openvino")]
SPACE = SearchSpace(widths=(8, 16), heads=(1, 2), ratios=(1.5,), depths=(2,), head_width=8, convolutions=(8,) * 7)
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


class Features(nn.Module):
    """What is deployed of an encoder: waveform in, frames out."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform):
        return self.encoder(waveform).last_hidden_state


def pruned(speech_net):
    model = speech_net(feat_extract_norm="group", num_hidden_layers=2)
    gates = EncoderGates(model)
    for gate in gates.gates.values():
        nn.init.normal_(gate.log_alpha, -1.0, 2.0)
    nn.init.constant_(gates.gates["heads_1"].log_alpha, -20.0)
    return prune_encoder(model, gates)


def extracted(speech_net):
    plain = speech_net()
    supernet = SpeechSupernet(supernet_encoder(type(plain), plain.config, SPACE), SPACE)
    return supernet.extract(
        EncoderShape(width=8, head_width=8, heads=(2, 1), intermediate=(12, 12), convolutions=(8,) * 7)
    )


def adaptive(speech_net):
    student = with_adaptive_computation(speech_net(num_hidden_layers=2), places=("feed_forward", "attention"))
    fix_learners(student, 2)
    return student


def shortened(speech_net):
    student = with_length_adaptation(speech_net(num_hidden_layers=2))
    set_lengths(student, (0.7, 0.5), fixed_frames=4)
    return student


@pytest.mark.parametrize(
    ("make", "to"),
    [
        (pruned, "onnx"),
        (extracted, "onnx"),
        (adaptive, "onnx"),
        (shortened, "onnx"),
        (shortened, "openvino"),
    ],
)
def test_runs_as_in_pytorch(make, to, speech_net, tmp_path):
    network = Features(make(speech_net)).eval()
    waveform = torch.randn(2, 1600)
    path = tmp_path / f"student{SUFFIXES[to]}"
    artifact = exporters.export(network, {"waveform": waveform}, to=to, path=path)
    other = torch.randn(2, 1600)
    (output,) = exporters.load(artifact).run({"waveform": other.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(output, network(other).numpy(), rtol=1e-3, atol=1e-4)
