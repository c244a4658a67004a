"""Claims about reading queries, keys and values from outside."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.adapters import Probe
from lightning_kd.attention import AttentionPair, AttentionReader, attention_paths, block_of
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.losses.attention import token_relations
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Tap

SMALL = {"img_size": 64, "num_classes": 10, "depth": 2, "embed_dim": 48, "num_heads": 3}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small_swin(**settings):
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        **{"img_size": 64, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4), "window_size": 16} | settings,
    )


def with_qk_norm():
    return timm.create_model("vit_tiny_patch16_224", qk_norm=True, **SMALL)


def beit_with_biases():
    model = timm.create_model("beit_base_patch16_224", **SMALL)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_bias", "v_bias")):
            nn.init.normal_(parameter)
    return model


def plain_transformer(batch_first=True):
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=batch_first), 2, enable_nested_tensor=False
    ).train()


def transformers_vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=64, patch_size=16
    )
    return ViTModel(config)


def transformers_bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64))


def transformers_hubert():
    from transformers import HubertConfig
    from transformers.models.hubert.modeling_hubert import HubertEncoder

    return HubertEncoder(
        HubertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )


NETWORKS = {
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", **SMALL),
    "vit with normalised queries and keys": with_qk_norm,
    "distilled deit": lambda: timm.create_model("deit_tiny_distilled_patch16_224", **SMALL),
    "beit": beit_with_biases,
    "eva without rotary embeddings": lambda: timm.create_model(
        "eva02_tiny_patch14_224", use_rot_pos_emb=False, patch_size=16, **SMALL
    ),
}


def observed(model, taps, *inputs):
    recorder = TapRecorder(model, taps)
    with torch.no_grad(), recorder.recording() as calls:
        model(*inputs)
    recorder.detach()
    return calls[0]


def attended(reader, qkv):
    """Output of plain attention before the output projection."""
    attention = token_relations(qkv.query, qkv.key, heads=reader.heads).softmax(-1)
    values = qkv.value.reshape(*qkv.value.shape[:2], reader.heads, -1).transpose(1, 2)
    return (attention @ values).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_read_gives_the_modules_own_output(name):
    model = NETWORKS[name]().eval()
    reader = AttentionReader.of(model, "blocks.1.attn")
    call = observed(model, (*reader.taps, Tap("blocks.1.attn.proj", at="input")), IMAGES)
    expected = call.features[Tap("blocks.1.attn.proj", at="input")]
    qkv = reader.read(call)
    attention = attended(reader, qkv)
    norm = dict(model.get_submodule("blocks.1.attn").named_children()).get("norm", nn.Identity())
    assert_close(norm(attention), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_reads_torchs_own_attention(batch_first):
    model = plain_transformer(batch_first)
    tokens = torch.randn(2, 5, 16) if batch_first else torch.randn(5, 2, 16)
    reader = AttentionReader.of(model, "layers.1.self_attn")
    module = model.layers[1].self_attn
    call = observed(model, reader.taps, tokens)
    qkv = reader.read(call)
    inputs = call.features[reader.taps[0]]
    weights = module(inputs, inputs, inputs, average_attn_weights=False)[1]
    assert_close(token_relations(qkv.query, qkv.key, heads=4).softmax(-1), weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "inputs", "path"),
    [
        (transformers_vit, IMAGES, "layers.1.attention"),
        (transformers_bert, torch.arange(10).reshape(2, 5), "encoder.layer.1.attention.self"),
        (transformers_hubert, torch.randn(2, 9, 32), "layers.1.attention"),
    ],
)
def test_reads_the_attention_of_transformers(make, inputs, path):
    model = make().eval()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    else:
        model.config._attn_implementation = "eager"
    reader = AttentionReader.of(model, path)
    weights = []
    handle = model.get_submodule(path).register_forward_hook(lambda _, __, output: weights.append(output[1]))
    qkv = reader.read(observed(model, reader.taps, inputs))
    handle.remove()
    assert reader.heads == 4
    assert path in attention_paths(model)
    assert_close(token_relations(qkv.query, qkv.key, heads=4).softmax(-1), weights[0], rtol=1e-4, atol=1e-5)


def test_finds_the_attention_of_every_block_in_order():
    assert attention_paths(timm.create_model("test_vit")) == tuple(f"blocks.{i}.attn" for i in range(6))
    assert attention_paths(small_swin()) == ("layers.0.blocks.0.attn", "layers.1.blocks.0.attn")
    assert attention_paths(transformers_vit()) == ("layers.0.attention", "layers.1.attention")
    assert attention_paths(plain_transformer()) == ("layers.0.self_attn", "layers.1.self_attn")


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_convnext",
        "swinv2_tiny_window8_256",
        "levit_128s",
        "tiny_vit_5m_224",
        "xcit_nano_12_p16_224",
    ],
)
def test_refuses_networks_whose_attention_is_none_or_of_another_kind(name):
    with pytest.raises(SetupError, match=r"no attention module .* is known in the student .*FeatureKD"):
        attention_paths(timm.create_model(name), "student")


def test_refuses_a_module_that_is_no_attention():
    model = timm.create_model("test_vit", depth=1)
    with pytest.raises(SetupError, match=r"teacher's 'blocks\.0\.mlp' \(Mlp\) .* are \['blocks\.0\.attn'\]"):
        AttentionReader.of(model, "blocks.0.mlp", "teacher")
    with pytest.raises(TapError, match=r"`blocks\.9\.attn` names no module"):
        AttentionReader.of(model, "blocks.9.attn")


def test_reads_windows_as_samples():
    model = small_swin(window_size=4)
    reader = AttentionReader.of(model, "layers.0.blocks.0.attn")
    # 16x16 cells are 16 windows of 4x4.
    assert reader.read(observed(model, reader.taps, IMAGES)).query.shape == (2 * 16, 16, 24)


def test_keeps_evenly_spaced_tokens():
    model = timm.create_model("test_vit", img_size=64)
    reader = AttentionReader.of(model, "blocks.0.attn")
    call = observed(model, reader.taps, IMAGES)
    every, some = reader.read(call), reader.read(call, skip=1, max_tokens=6)
    assert every.query.shape[1] == 17
    assert_close(some.value, every.value[:, [1, 4, 7, 10, 13, 16]], rtol=0.0, atol=0.0)


def test_gradient_reaches_the_projection_whose_linear_layer_is_not_called():
    model = beit_with_biases()
    reader = AttentionReader.of(model, "blocks.1.attn")
    recorder = TapRecorder(model, reader.taps)
    with recorder.recording() as calls:
        model(IMAGES)
    sum(x.sum() for x in reader.read(calls[0])).backward()
    attention = model.blocks[1].attn
    assert attention.qkv.weight.grad.abs().sum() > 0
    assert attention.q_bias.grad.abs().sum() > 0
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_a_copy_of_the_reader_still_reads_the_same_module():
    model = timm.create_model("test_vit")
    reader = AttentionReader.of(model, "blocks.0.attn")
    assert copy.deepcopy(reader).module.module is model.blocks[0].attn


def pair_of(student, teacher, **settings):
    readers = [AttentionReader.of(model, place) for model, place in (student, teacher)]
    calls = [
        observed(model, reader.taps, IMAGES) for (model, _), reader in zip((student, teacher), readers, strict=True)
    ]
    probes = [Probe(model, call) for (model, _), call in zip((student, teacher), calls, strict=True)]
    pair = AttentionPair(*readers, **settings)
    skip = pair.skip(*probes)
    return skip, [qkv.query.shape[1] for qkv in pair.read(*calls, skip=skip)]


def test_leaves_prefix_tokens_out_where_their_numbers_differ():
    vit, deit = NETWORKS["vit"](), NETWORKS["distilled deit"]()
    assert pair_of((vit, "blocks.1.attn"), (deit, "blocks.1.attn")) == ((1, 2), [16, 16])


def test_keeps_prefix_tokens_where_their_numbers_agree():
    vit, beit = NETWORKS["vit"](), NETWORKS["beit"]()
    assert pair_of((vit, "blocks.1.attn"), (beit, "blocks.1.attn"), max_tokens=9) == ((0, 0), [9, 9])


def test_declared_prefix_tokens_are_believed():
    vit, other = NETWORKS["vit"](), transformers_vit()
    pair = (vit, "blocks.1.attn"), (other, Tap("layers.1.attention", prefix_tokens=1))
    assert pair_of(*pair) == ((0, 0), [17, 17])


def test_refuses_to_pair_different_numbers_of_tokens():
    fine, coarse = timm.create_model("test_vit", img_size=64, patch_size=8), timm.create_model("test_vit", img_size=64)
    with pytest.raises(ShapeError, match=r"over \(2, 65\) samples .* over \(2, 17\): .* one patch size"):
        pair_of((fine, "blocks.0.attn"), (coarse, "blocks.0.attn"))


def test_the_block_ends_at_the_last_number():
    assert block_of("visual.layers.1.blocks.0.attn") == "visual.layers.1.blocks.0"
    with pytest.raises(SetupError, match=r"'trunk\.attn' is in no numbered block"):
        block_of("trunk.attn")
