"""Claims about `TinyBERTKD`."""

import copy

import pytest
import timm
import torch
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import attention_score_mse
from lightning_kd.objectives import TinyBERTKD, TinyBERTLogitKD
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap

VIT = {"img_size": 64, "num_classes": 10}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vit(**settings):
    return timm.create_model("test_vit", **VIT | {"num_heads": 2} | settings)


def deit(**settings):
    settings = {"depth": 4, "embed_dim": 48, "num_heads": 2} | settings
    return timm.create_model("deit_tiny_distilled_patch16_224", **VIT | settings)


def beit(**settings):
    settings = {"depth": 4, "embed_dim": 48, "num_heads": 2} | settings
    return timm.create_model("beit_base_patch16_224", **VIT | settings)


def built(student, teacher, *, places=None, **settings):
    return Distiller(student, teacher, [TinyBERTKD(None, places, **settings)]).build([IMAGES])


def term(distiller):
    with distiller.watch() as calls:
        distiller.student(IMAGES)
    return distiller.losses(torch.zeros(()), calls).terms["tinybert"]


@pytest.mark.parametrize("teacher", [deit, beit])
@pytest.mark.parametrize("depth", [2, 4])
def test_trains_pairs_of_transformer_families(train_three_steps, teacher, depth):
    result = train_three_steps(vit(depth=depth), teacher(), [TinyBERTKD()])
    assert result.metrics["kd/tinybert"] > 0


def test_trains_a_beit_on_a_vit(train_three_steps):
    train_three_steps(beit(depth=2), vit(depth=6), [TinyBERTKD(max_tokens=8)])


def test_block_m_learns_from_the_last_of_its_group():
    distiller = built(vit(depth=2), vit(depth=6))
    objective = distiller.objectives["tinybert"]
    assert [pair.teacher.tap.path for pair in objective.pairs] == ["blocks.2.attn", "blocks.5.attn"]
    assert [(s.path, s.at, t.path, t.at) for s, t in objective.hidden] == [
        ("blocks.0", "input", "blocks.0", "input"),
        ("blocks.0", "output", "blocks.2", "output"),
        ("blocks.1", "output", "blocks.5", "output"),
    ]


def test_equals_the_sum_of_its_parts_by_hand():
    student, teacher = vit(depth=1).double(), vit(depth=2, embed_dim=48).double()
    images = IMAGES.double()
    distiller = Distiller(student, teacher, [TinyBERTKD()]).build([images])
    projection = distiller.objectives["tinybert"].projection.double()
    hidden, scores = [], []
    for model, blocks in ((student, [0]), (teacher, [1])):
        tokens = model._pos_embed(model.patch_embed(images))
        states = [tokens]
        for index, block in enumerate(model.blocks):
            query, key, _ = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            tokens = block(tokens)
            if index in blocks:
                scores.append(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5)
                states.append(tokens)
        hidden.append(states)
    expected = (scores[0] - scores[1]).square().mean()
    expected = expected + sum((projection(s) - t).square().mean() for s, t in zip(*hidden, strict=True))
    with distiller.watch() as calls:
        student(images)
    assert_close(distiller.losses(images.new_zeros(()), calls).terms["tinybert"], expected, rtol=1e-9, atol=1e-12)


def test_one_linear_layer_serves_all_hidden_states():
    distiller = built(vit(depth=2), deit())
    assert {name: tuple(p.shape) for name, p in distiller.adapters.named_parameters()} == {
        "tinybert.projection.weight": (48, 64),
        "tinybert.projection.bias": (48,),
    }


def test_hidden_states_of_other_tokens_meet_on_the_common_grid():
    distiller = built(vit(depth=2), deit(), max_tokens=4)
    assert distiller.objectives["tinybert"].skips == [(1, 2), (1, 2)]
    assert term(distiller) > 0


def test_gradient_reaches_scores_and_embedding(student_gradient):
    student = vit(depth=2)
    reached = student_gradient(built(student, deit()), IMAGES)
    assert {"blocks.1.attn.qkv.weight", "blocks.1.mlp.fc2.weight", "patch_embed.proj.weight"} <= reached
    assert "head.weight" not in reached


def test_is_finite_under_bfloat16_autocast():
    distiller = built(vit(depth=2), beit())
    expected = term(distiller)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term(distiller)
    value.backward()
    assert_close(value, expected, rtol=0.1, atol=0.0)
    assert all(p.grad.isfinite().all() for p in distiller.student.parameters() if p.grad is not None)


def test_reads_transformers_with_declared_prefix_tokens():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    teacher = ViTForImageClassification(config)
    places = [Tap(f"vit.layers.{index}.attention", prefix_tokens=1) for index in range(4)]
    assert term(built(vit(depth=2), teacher, places=places)) > 0


def test_refuses_at_setup_what_cannot_be_compared():
    with pytest.raises(ShapeError, match=r"has 2 heads and the teacher's 'blocks\.1\.attn' 3: .*MiniLMKD"):
        built(vit(depth=2), deit(num_heads=3))
    with pytest.raises(SetupError, match=r"got 3 blocks of the student and 4 of the teacher: .*MiniLMKD"):
        built(vit(depth=3), deit())
    with pytest.raises(SetupError, match=r"got 6 blocks of the student and 4 of the teacher"):
        built(vit(depth=6), deit())
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, embed_dim=24, depths=(1, 1), num_heads=(2, 4), window_size=4
    )
    with pytest.raises(ShapeError, match=r"must be of one width, got \[24, 48\]"):
        built(swin, copy.deepcopy(swin))


@pytest.mark.parametrize(("student", "teacher"), [("test_vit", "test_resnet"), ("test_convnext", "test_vit")])
def test_predictions_train_pairs_of_families(train_three_steps, net, student, teacher):
    result = train_three_steps(net(student), net(teacher), [TinyBERTLogitKD()])
    assert result.metrics["kd/tinybert_logit"] > 0


def test_predictions_equal_the_published_value():
    student = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
    calls = [Observation(Inputs(), logits) for logits in (student, teacher)]
    assert TinyBERTLogitKD()(*calls, Step()).item() == pytest.approx(0.2001039181, rel=1e-9)


def test_predictions_leave_out_ignored_pixels():
    student, teacher = torch.randn(2, 1, 3, 4, 4).unbind()
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 2:] = 255
    objective = TinyBERTLogitKD(ignore_index=255)
    halves = [Observation(Inputs(), logits[:, :, :2]) for logits in (student, teacher)]
    calls = [Observation(Inputs(), logits) for logits in (student, teacher)]
    assert_close(objective(*calls, Step(batch=(None, labels))), TinyBERTLogitKD()(*halves, Step()))


def test_predictions_refuse_a_temperature_of_zero():
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0\.0"):
        TinyBERTLogitKD(temperature=0.0)


def test_without_a_projection_outputs_of_attention_are_added_by_hand():
    student, teacher = vit(depth=2).double(), vit(depth=2).double()
    images = IMAGES.double()
    objectives = [
        TinyBERTKD(projection="none", name="plain"),
        TinyBERTKD(projection="none", attention_outputs=True, name="all"),
    ]
    distiller = Distiller(student, teacher, objectives).build([images])
    assert not list(distiller.adapters.parameters())
    with distiller.watch() as calls:
        student(images)
    terms = distiller.losses(images.new_zeros(()), calls).terms
    expected = 0
    states = [model._pos_embed(model.patch_embed(images)) for model in (student, teacher)]
    for blocks in zip(student.blocks, teacher.blocks, strict=True):
        s, t = (block.attn(block.norm1(state)) for block, state in zip(blocks, states, strict=True))
        expected += (s - t).square().mean()
        states = [block(state) for block, state in zip(blocks, states, strict=True)]
    assert_close(terms["all"] - terms["plain"], expected, rtol=1e-9, atol=1e-12)


def test_scores_of_padded_keys_count_as_zero():
    from lightning_kd.objectives.tinybert import _hiding

    scores = torch.full((1, 1, 2, 2), 3.0)
    call = Observation(Inputs(kwargs={"attention_mask": torch.tensor([[1, 0]])}))
    assert attention_score_mse(_hiding(scores, call), torch.zeros(1, 1, 2, 2)) == 4.5  # 9 and 0, twice
    assert attention_score_mse(_hiding(scores, Observation(Inputs())), torch.zeros(1, 1, 2, 2)) == 9


def test_without_a_projection_widths_must_be_equal():
    with pytest.raises(ShapeError, match="got student 64 and teacher 48"):
        built(vit(depth=2), vit(depth=2, embed_dim=48), projection="none")
    with pytest.raises(ValueError, match=r"`projection` must be one of .* got 'auto'"):
        TinyBERTKD(projection="auto")
