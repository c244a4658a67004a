"""Claims about `MiniLMKD`."""

import pytest
import timm
import torch
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import token_relation_kl
from lightning_kd.objectives import MiniLMKD

VIT = {"img_size": 64, "num_classes": 10}
SMALL = VIT | {"depth": 2, "embed_dim": 48, "num_heads": 3}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vit(**settings):
    return timm.create_model("test_vit", **VIT | settings)


def deit():
    return timm.create_model("deit_tiny_distilled_patch16_224", **SMALL)


def beit():
    return timm.create_model("beit_base_patch16_224", **SMALL)


def one_window_swin():
    """Its second stage is one window of 4x4."""
    settings = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4, "patch_size": 8}
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=10, **settings)


def terms(student, teacher, objective):
    distiller = Distiller(student, teacher, [objective]).build([IMAGES])
    with distiller.watch() as calls:
        student(IMAGES)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name], distiller


@pytest.mark.parametrize("student", [vit, beit, one_window_swin])
@pytest.mark.parametrize("teacher", [deit, beit, one_window_swin])
def test_trains_pairs_of_transformer_families(train_three_steps, student, teacher):
    result = train_three_steps(student(), teacher(), [MiniLMKD(relation_heads=4)])
    assert result.metrics["kd/minilm"] > 0


def test_trains_on_attention_itself_with_version_one(train_three_steps):
    result = train_three_steps(vit(num_heads=3, embed_dim=48), deit(), [MiniLMKD(version=1, max_tokens=8)])
    assert result.metrics["kd/minilm"] > 0


@pytest.mark.parametrize("teacher", [deit, beit])
def test_gradient_reaches_the_projections_and_all_below(student_gradient, teacher):
    student = beit()
    distiller = Distiller(student, teacher(), [MiniLMKD(relation_heads=4)]).build([IMAGES])
    reached = student_gradient(distiller, IMAGES)
    assert {"blocks.1.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "patch_embed.proj.weight"} <= reached
    assert "head.weight" not in reached


def test_equals_the_loss_on_the_last_blocks_projections():
    student, teacher = vit(), vit(depth=3, embed_dim=96, num_heads=3)
    seen = {}
    for name, model in (("student", student), ("teacher", teacher)):
        model.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    term, _ = terms(student, teacher, MiniLMKD(relation_heads=16))
    expected = token_relation_kl(*(seen[name].chunk(3, dim=-1) for name in ("student", "teacher")), relation_heads=16)
    assert_close(term, expected)


def test_version_one_is_attention_and_values_over_the_own_heads():
    student, teacher = vit(num_heads=4), vit(depth=3, embed_dim=96, num_heads=4)
    seen = {}
    for name, model in (("student", student), ("teacher", teacher)):
        model.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    term, _ = terms(student, teacher, MiniLMKD(version=1))
    expected = 0.0
    for left, right in ((0, 1), (2, 2)):
        log_q, log_p = (
            torch.log_softmax(
                torch.einsum(
                    "nlhd,nmhd->nhlm", *(seen[name].double().unflatten(-1, (3, 4, -1))[:, :, i] for i in (left, right))
                )
                / (seen[name].shape[-1] / 12) ** 0.5,
                dim=-1,
            )
            for name in ("student", "teacher")
        )
        expected += (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    assert term.item() == pytest.approx(expected.item(), rel=1e-4)


def test_several_pairs_give_their_mean():
    student, teacher = vit(), vit(depth=3)
    places = ["blocks.1.attn", "blocks.2.attn"]
    both = terms(student, teacher, MiniLMKD(places, places, relation_heads=4))[0]
    each = [terms(student, teacher, MiniLMKD(place, place, relation_heads=4))[0] for place in places]
    assert_close(both, torch.stack(each).mean())


def test_a_named_side_pairs_with_the_last_block_of_the_other():
    _, distiller = terms(vit(), vit(depth=3), MiniLMKD(teacher="blocks.1.attn", relation_heads=4))
    pair = distiller.objectives["minilm"].pairs[0]
    assert (pair.student.tap.path, pair.teacher.tap.path) == ("blocks.5.attn", "blocks.1.attn")


def test_the_teacher_stops_after_the_last_tap():
    teacher = vit(depth=4)
    objective = MiniLMKD(teacher="blocks.1.attn", relation_heads=4)
    student = vit()
    distiller = Distiller(student, teacher, [objective]).build([IMAGES])
    ran = []
    teacher.blocks[2].register_forward_pre_hook(lambda *_: ran.append(True))
    with distiller.watch() as calls:
        student(IMAGES)
    distiller.losses(torch.zeros(()), calls)
    assert not ran


def test_attaching_anew_keeps_what_was_built():
    student, teacher = vit(), deit()
    first, distiller = terms(student, teacher, MiniLMKD(relation_heads=4))
    distiller.detach()
    with distiller.watch() as calls:
        student(IMAGES)
    assert_close(distiller.losses(torch.zeros(()), calls).terms["minilm"], first)


def test_refuses_at_setup_what_cannot_be_compared():
    with pytest.raises(ShapeError, match=r"`relation_heads` must divide the width 64, got 48"):
        terms(vit(), deit(), MiniLMKD())
    with pytest.raises(
        ShapeError, match=r"has 2 heads and the teacher's 'blocks\.1\.attn' 3: .* MiniLMKD\(version=2\)"
    ):
        terms(vit(), deit(), MiniLMKD(version=1))
    with pytest.raises(SetupError, match=r"no attention module .* in the teacher"):
        terms(vit(), timm.create_model("test_resnet"), MiniLMKD())
    with pytest.raises(SetupError, match="one to one, got 2 of the student and 1 of the teacher"):
        terms(vit(), deit(), MiniLMKD(["blocks.0.attn", "blocks.1.attn"]))
    with pytest.raises(ShapeError, match=r"over \(2, 65\) samples .* over \(2, 17\)"):
        terms(vit(patch_size=8), vit(), MiniLMKD(relation_heads=4))


def test_refuses_options_of_the_other_version():
    with pytest.raises(ValueError, match="belong to version 2, got 4 and None"):
        MiniLMKD(version=1, relation_heads=4)
    with pytest.raises(ValueError, match="`version` must be one of 1, 2, got 3"):
        MiniLMKD(version=3)
    with pytest.raises(ValueError, match="`max_tokens` must be a finite number above 0, got 0"):
        MiniLMKD(max_tokens=0)
