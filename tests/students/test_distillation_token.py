"""Claims about `with_distillation_token`, and about what DeiT and DeiT-LT do with it."""

import copy

import onnxruntime
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.students import with_distillation_token

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vit():
    return timm.create_model("test_vit", img_size=64, num_classes=10)


@pytest.fixture
def student(vit):
    return with_distillation_token(vit)


def test_keeps_every_weight_that_was_there(vit, student):
    positions = student.pos_embed
    assert torch.equal(torch.cat([positions[:, :1], positions[:, 2:]], dim=1), vit.pos_embed)
    state = student.state_dict()
    for name, value in vit.state_dict().items():
        assert name == "pos_embed" or torch.equal(state[name], value), name
    new = state.keys() - vit.state_dict().keys()
    assert new == {"dist_token", "head_dist.weight", "head_dist.bias"}


def test_leaves_the_given_network_alone(vit):
    before = copy.deepcopy(vit.state_dict())
    student = with_distillation_token(vit)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())
    assert vit(IMAGES).shape == (2, 10)


def test_draws_the_new_weights_with_the_published_spread():
    wide = with_distillation_token(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=1000))
    for drawn in (wide.dist_token, wide.pos_embed[:, 1:2], wide.head_dist.weight):
        assert drawn.std().item() == pytest.approx(0.02, rel=0.25)
        assert drawn.mean().abs().item() < 0.006
    assert wide.head_dist.bias.count_nonzero() == 0
    assert not torch.equal(wide.head_dist.weight, wide.head.weight)


def test_returns_both_predictions_in_training_and_their_mean_in_evaluation(student):
    of_class, of_distillation = student(IMAGES)
    assert not torch.equal(of_class, of_distillation)
    assert_close(student.eval()(IMAGES), (of_class + of_distillation) / 2)


def test_orders_the_tokens_class_distillation_patches(vit, student):
    embedded = vit.patch_embed(IMAGES).reshape(2, 16, 64)
    positions = student.pos_embed
    expected = torch.cat(
        [
            (vit.cls_token + positions[:, :1]).expand(2, -1, -1),
            (student.dist_token + positions[:, 1:2]).expand(2, -1, -1),
            embedded + positions[:, 2:],
        ],
        dim=1,
    )
    seen = []
    student.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    student(IMAGES)
    assert_close(seen[0], expected)


def test_heads_read_the_normalised_tokens(student):
    tokens = student.forward_features(IMAGES)
    of_class, of_distillation = student(IMAGES)
    assert_close(of_class, student.head(tokens[:, 0]))
    assert_close(of_distillation, student.head_dist(tokens[:, 1]))


def test_excludes_the_token_from_weight_decay(student):
    assert {"dist_token", "cls_token", "pos_embed"} <= student.no_weight_decay()


def test_loads_a_distilled_checkpoint_of_timm():
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, num_classes=10)
    plain = timm.create_model("deit_tiny_patch16_224", img_size=64, num_classes=10)
    student = with_distillation_token(plain)
    student.load_state_dict(distilled.state_dict())
    assert_close(student.eval()(IMAGES), distilled.eval()(IMAGES))


def test_keeps_the_token_of_a_distilled_network():
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", img_size=64, num_classes=10)
    student = with_distillation_token(distilled)
    assert student.state_dict().keys() == distilled.state_dict().keys()
    assert torch.equal(student.dist_token, distilled.dist_token)
    assert len(student(IMAGES)) == 2
    assert distilled(IMAGES).shape == (2, 10), "the given network must not change"


def test_positions_that_do_not_count_the_class_token_stay():
    vit = timm.create_model("deit3_small_patch16_224", img_size=64, num_classes=10, depth=1)
    student = with_distillation_token(vit)
    assert torch.equal(student.pos_embed, vit.pos_embed)
    assert len(student(IMAGES)) == 2


def test_takes_images_of_other_sizes_if_the_network_does():
    vit = timm.create_model("test_vit", img_size=64, num_classes=10, dynamic_img_size=True)
    assert with_distillation_token(vit).eval()(torch.zeros(1, 3, 96, 64)).shape == (1, 10)


def test_patch_dropout_spares_both_tokens():
    vit = timm.create_model("test_vit", img_size=64, num_classes=10, patch_drop_rate=0.5)
    student = with_distillation_token(vit)
    assert student.forward_features(IMAGES).shape[1] == 2 + 8
    assert student.patch_drop.num_prefix_tokens == 2


def test_a_network_without_a_classifier_gets_none():
    student = with_distillation_token(timm.create_model("test_vit", img_size=64, num_classes=0))
    assert isinstance(student.head_dist, nn.Identity)


def test_exports_the_evaluation_path(student, tmp_path):
    student.eval()
    program = torch.export.export(student, (IMAGES,))
    assert_close(program.module()(IMAGES), student(IMAGES))
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    assert_close(torch.from_numpy(logits), student(IMAGES).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("test_resnet", {}, "must be a timm VisionTransformer, got ResNet"),
        ("test_vit2", {}, "got global_pool='avg'"),
        ("test_vit", {"img_size": 64, "reg_tokens": 2}, "no register tokens .* got 2"),
        ("test_vit", {"img_size": 64, "pos_embed": "none"}, "got 0 and None"),
        ("test_vit", {"img_size": 64, "fc_norm": True}, "fc_norm=LayerNorm"),
    ],
)
def test_refuses_a_network_it_cannot_convert(name, settings, message):
    with pytest.raises(SetupError, match=message):
        with_distillation_token(timm.create_model(name, **settings))
