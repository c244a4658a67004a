"""Networks of families that need something of their own, small, in Core AI's interpreter."""

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2d
from torch import nn

import exporters

# Depthwise convolutions and hard activations; restated strides behind a channels-last layout; attention.
NAMES = {
    "mobilenetv3_small_050": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 48},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_images_agree_within_1e_5(name, randomise_batch_norm, tmp_path):
    network = randomise_batch_norm(timm.create_model(name, pretrained=False, **NAMES[name]))
    for module in network.modules():
        # Branches are scaled by 1e-6 before training, so that a wrong one would not show.
        for scale in (getattr(module, "gamma", None), getattr(module, "scale", None)):
            if isinstance(scale, nn.Parameter):
                scale.data.uniform_(0.5, 1.0)
    images = torch.randn(2, 3, 64, 64)
    artifact = exporters.export(network, images, to="coreai", path=tmp_path / "n.aimodel", dynamic_batch=(1, 2))
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5


@pytest.mark.slow
def test_weights_that_are_standardised_in_the_graph_agree(tmp_path):
    network = nn.Sequential(ScaledStdConv2d(3, 8, 3, padding=1), nn.SiLU(), ScaledStdConv2d(8, 4, 3))
    artifact = exporters.export(network.eval(), torch.randn(1, 3, 16, 16), to="coreai", path=tmp_path / "n.aimodel")
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5


@pytest.mark.slow
def test_a_speech_encoder_takes_any_length(tmp_path):
    from transformers import HubertConfig, HubertModel

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.hubert = HubertModel(
                HubertConfig(
                    hidden_size=32,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=64,
                    conv_dim=(16, 16, 16),
                    conv_stride=(5, 4, 4),
                    conv_kernel=(10, 8, 8),
                    num_feat_extract_layers=3,
                    num_conv_pos_embeddings=16,
                    num_conv_pos_embedding_groups=4,
                )
            )

        def forward(self, waveform):
            return self.hubert(waveform).last_hidden_state

    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("waveform", ("batch", "time"), "float32", value_range=(-1.0, 1.0)),),
        dimensions={
            "batch": exporters.DimensionRange(1, 2),
            "time": exporters.DimensionRange(1600, 4800, multiple=80),
        },
    )
    artifact = exporters.export(Encoder(), spec, to="coreai", path=tmp_path / "n.aimodel")
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5
