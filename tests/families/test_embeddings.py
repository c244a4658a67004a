"""Patch embeddings of the known families."""

import pytest
import timm

from lightning_kd.families import patch_embedding_paths


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnext_atto", ("stem", "stages.1.downsample", "stages.2.downsample", "stages.3.downsample")),
        ("pvt_v2_b0", ("patch_embed", "stages.1.downsample", "stages.2.downsample", "stages.3.downsample")),
        ("vit_tiny_patch16_224", ("patch_embed",)),
        ("mixer_s32_224", ("stem",)),
        ("resnet18", ("maxpool", "layer2.0", "layer3.0", "layer4.0")),
    ],
)
def test_patch_embeddings_of_known_families_are_found(name, expected):
    assert patch_embedding_paths(timm.create_model(name)) == expected
