"""Claims about inheriting the front of a larger network."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.students.inherit import inherit_weights

VIT = {"img_size": 32, "num_classes": 10, "num_heads": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(**settings):
    return timm.create_model("test_vit", **VIT | settings)


class TwoTowers(nn.Module):
    """Named as CLIP's towers are."""

    def __init__(self, width, depth, heads):
        super().__init__()
        self.visual = vit(embed_dim=width, depth=depth, num_heads=heads)
        self.text = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(16, width),
                "blocks": nn.ModuleList(
                    nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True) for _ in range(depth)
                ),
            }
        )
        self.text.positional_embedding = nn.Parameter(torch.randn(6, width))
        self.logit_scale = nn.Parameter(torch.randn(()))


def transformers_vit(*, heads, head_dim=8, intermediate=32):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        image_size=32,
        patch_size=16,
    )
    return ViTModel(config).eval()


def test_a_network_of_the_same_size_becomes_its_teacher():
    student, teacher = vit().eval(), vit().eval()
    sources = inherit_weights(student, teacher)
    assert sources == {name: name for name in student.state_dict()}
    assert_close(student(IMAGES), teacher(IMAGES), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("depth", "blocks"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_takes_every_block_at_the_whole_ratio_of_depths_from_the_first(depth, blocks):
    sources = inherit_weights(vit(depth=depth), vit(depth=6))
    assert [sources[f"blocks.{index}.norm1.weight"] for index in range(depth)] == [
        f"blocks.{block}.norm1.weight" for block in blocks
    ]


def test_without_the_blocks_that_do_nothing_the_output_stays():
    student, teacher = vit(depth=2).eval(), vit(depth=4).eval()
    for block in (teacher.blocks[1], teacher.blocks[3]):
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    inherit_weights(student, teacher)
    assert_close(student(IMAGES), teacher(IMAGES), rtol=1e-5, atol=1e-6)


def test_takes_the_front_of_each_head_of_queries_keys_and_values():
    student, teacher = vit(embed_dim=32, num_heads=2), vit(embed_dim=96, num_heads=3)
    inherit_weights(student, teacher)
    small, large = (model.blocks[0].attn for model in (student, teacher))
    # 2 of 3 heads, 16 of 32 values per head, 32 of 96 inputs.
    expected = torch.cat([part[head : head + 16, :32] for part in large.qkv.weight.chunk(3) for head in (0, 32)])
    assert_close(small.qkv.weight, expected, rtol=0.0, atol=0.0)
    expected = torch.cat([large.proj.weight[:32, head : head + 16] for head in (0, 32)], dim=1)
    assert_close(small.proj.weight, expected, rtol=0.0, atol=0.0)
    assert_close(student.pos_embed, teacher.pos_embed[..., :32], rtol=0.0, atol=0.0)
    assert_close(student.patch_embed.proj.weight, teacher.patch_embed.proj.weight[:32], rtol=0.0, atol=0.0)


def test_without_heads_and_units_that_do_nothing_the_output_stays():
    student, teacher = transformers_vit(heads=2), transformers_vit(heads=4, head_dim=12, intermediate=48)
    queries = [layer.attention.q_proj for layer in teacher.layers]
    kept = torch.arange(4 * 12).reshape(4, 12)[:2, :8].flatten()
    dead = torch.ones(4 * 12, dtype=torch.bool).index_fill(0, kept, value=False)
    with torch.no_grad():
        for layer in teacher.layers:
            layer.attention.o_proj.weight[:, dead] = 0.0
            layer.attention.q_proj.weight[dead] = 0.0
            layer.attention.q_proj.bias[dead] = 0.0
            layer.mlp.fc2.weight[:, 32:] = 0.0
    inherit_weights(student, teacher)
    # Scores are divided by the root of the head's width, 12 in the teacher and 8 in the student.
    with torch.no_grad():
        for query in queries:
            query.weight *= (12 / 8) ** 0.5
            query.bias *= (12 / 8) ** 0.5
    assert_close(student(IMAGES).last_hidden_state, teacher(IMAGES).last_hidden_state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "depth", "heads"), [(32, 2, 2), (64, 3, 4), (64, 6, 4)])
def test_cuts_both_towers_of_a_two_tower_model(width, depth, heads):
    student, teacher = TwoTowers(width, depth, heads), TwoTowers(64, 6, 4)
    sources = inherit_weights(student, teacher)
    last = (depth - 1) * (6 // depth)
    assert sources[f"text.blocks.{depth - 1}.linear1.bias"] == f"text.blocks.{last}.linear1.bias"
    assert sources[f"visual.blocks.{depth - 1}.mlp.fc1.bias"] == f"visual.blocks.{last}.mlp.fc1.bias"
    small, large = student.text["blocks"][depth - 1].self_attn, teacher.text["blocks"][last].self_attn
    expected = large.in_proj_weight.reshape(3, 4, 16, 64)[:, :heads, : width // heads, :width].reshape(-1, width)
    assert_close(small.in_proj_weight, expected, rtol=0.0, atol=0.0)
    assert_close(student.text.positional_embedding, teacher.text.positional_embedding[:, :width], rtol=0.0, atol=0.0)
    assert student.logit_scale == teacher.logit_scale


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        ("test_resnet", {}, {}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4},
            {"img_size": 64, "embed_dim": 48, "depths": (2, 2, 6, 2), "num_heads": (2, 4, 8, 16), "window_size": 4},
        ),
        (
            "convnext_atto",
            {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)},
            {"dims": (16, 16, 32, 48), "depths": (2, 2, 6, 2)},
        ),
        ("beit_base_patch16_224", VIT | {"embed_dim": 32, "depth": 1}, VIT | {"embed_dim": 48, "depth": 2}),
    ],
)
def test_cuts_other_families_stage_by_stage(name, small, large):
    student = timm.create_model(name, **small).eval()
    teacher = timm.create_model(name, **large).eval()
    sources = inherit_weights(student, teacher)
    assert set(sources) == {key for key, value in student.state_dict().items() if value.is_floating_point()}
    for key, value in student.state_dict().items():
        if value.ndim == 1 and "attn" not in key and value.is_floating_point():
            assert torch.equal(value, teacher.state_dict()[sources[key]][: len(value)]), key


def test_keeps_the_halves_of_gated_units_apart():
    settings = {"img_size": 32, "num_classes": 10, "depth": 1, "num_heads": 2}
    from timm.layers import GluMlp

    student, teacher = (
        timm.create_model("test_vit", mlp_layer=GluMlp, mlp_ratio=ratio, **settings) for ratio in (2, 4)
    )
    inherit_weights(student, teacher)
    half = student.blocks[0].mlp.fc1.bias.shape[0] // 2
    values, gates = teacher.blocks[0].mlp.fc1.weight.chunk(2)
    expected = torch.cat([values[:half], gates[:half]])
    assert_close(student.blocks[0].mlp.fc1.weight, expected, rtol=0.0, atol=0.0)


def test_leaves_out_what_is_skipped():
    student, teacher = vit(num_classes=5, depth=2), vit(num_classes=1000)
    before = student.head.weight.clone()
    sources = inherit_weights(student, teacher, skip=("head.*",))
    assert torch.equal(student.head.weight, before)
    assert "head.weight" not in sources


def test_a_student_that_does_not_fit_is_not_changed():
    student, teacher = vit(embed_dim=96), vit(embed_dim=64)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(SetupError, match=r"'cls_token' of sizes \[1, 1, 96\] cannot be cut out .* \[1, 1, 64\]"):
        inherit_weights(student, teacher)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_refuses_what_cannot_be_cut():
    with pytest.raises(SetupError, match=r"list of 8 blocks and the teacher's has only 6"):
        inherit_weights(vit(depth=8), vit(depth=6))
    with pytest.raises(SetupError, match=r"'pos_embed' of sizes \[1, 5, 64\] .* \[1, 17, 64\].* positions equal"):
        inherit_weights(vit(), vit(img_size=64))
    with pytest.raises(SetupError, match=r"'patch_embed\.proj\.weight' of sizes \[64, 3, 8, 8\]"):
        inherit_weights(vit(patch_size=8), vit(img_size=64), skip=("pos_embed",))
    with pytest.raises(SetupError, match=r"no weights for \['0\.bias'\]"):
        inherit_weights(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, bias=False)))
    with pytest.raises(SetupError, match=r"list of 1 modules, the teacher's has 2 of different types"):
        inherit_weights(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(SetupError, match=r"`skip` pattern 'fc\.\*' matches none"):
        inherit_weights(vit(), vit(), skip=("fc.*",))


def test_refuses_heads_of_other_widths_where_the_output_is_at_an_unknown_place():
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    student, teacher = (BertModel(BertConfig(num_attention_heads=heads, **sizes)) for heads in (4, 2))
    with pytest.raises(SetupError, match=r"attention\.self\.query\.weight' of sizes \[4, 8, 32\] .* \[2, 16, 32\]"):
        inherit_weights(student, teacher)
