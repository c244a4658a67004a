"""Claims about `HybridKD`."""

import pytest
import timm
import torch
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import ShapeError
from lightning_kd.losses import standardized_smooth_l1, token_relation_kl
from lightning_kd.objectives import HybridKD
from lightning_kd.schedules import Progress, Ramp
from lightning_kd.students.peers import Peers

VIT = {"img_size": 64, "num_classes": 10, "depth": 3, "num_heads": 2}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
PLACES = ("blocks.1.attn", "a.blocks.2.attn", "norm", "b.norm")


def vit():
    return timm.create_model("test_vit", **VIT)


def two_teachers():
    return Peers(
        timm.create_model("beit_base_patch16_224", embed_dim=48, **VIT),
        timm.create_model("deit_tiny_distilled_patch16_224", embed_dim=32, **VIT),
    )


def built(objective, student=None, teacher=None):
    return Distiller(student or vit(), teacher or two_teachers(), [objective]).build([IMAGES])


def term(distiller, epoch=0):
    with distiller.watch() as calls:
        distiller.student(IMAGES)
    return distiller.losses(torch.zeros(()), calls, Progress(epoch=epoch)).terms["hybrid"]


def test_trains_on_two_teachers_of_other_families(train_three_steps):
    result = train_three_steps(vit(), two_teachers(), [HybridKD(*PLACES, drop=0.5)])
    assert result.metrics["kd/hybrid"] > 0


def test_gradient_reaches_relations_and_features(student_gradient):
    reached = student_gradient(built(HybridKD(*PLACES)), IMAGES)
    assert {"blocks.1.attn.qkv.weight", "blocks.2.mlp.fc2.weight", "norm.weight"} <= reached


def test_without_dropping_it_is_the_sum_of_both_terms_over_all_patches():
    student, teacher = vit(), two_teachers()
    distiller = built(HybridKD(*PLACES), student, teacher)
    seen = {}
    student.blocks[1].attn.qkv.register_forward_hook(lambda _, __, output: seen.update(student=output[:, 1:]))
    teacher.a.blocks[2].attn.register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0][:, 1:]))
    value = term(distiller)
    attention = teacher.a.blocks[2].attn
    bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    qkv = torch.nn.functional.linear(seen["tokens"], attention.qkv.weight, bias).chunk(3, -1)
    relations = token_relation_kl(seen["student"].chunk(3, -1), qkv, relation_heads=2, relations=("qk", "vv"))
    projection = distiller.objectives["hybrid"].projection
    features = standardized_smooth_l1(
        projection(student.forward_features(IMAGES)[:, 1:]), teacher.b.eval().forward_features(IMAGES)[:, 2:]
    )
    assert_close(value, relations + features, rtol=1e-5, atol=1e-6)


def test_leaves_out_a_growing_share_of_the_patches():
    objective = HybridKD(*PLACES, drop=Ramp(0.0, 0.5, over=4))
    distiller = built(objective)
    lengths = []
    counting = objective._count
    objective._count = lambda *args: lengths.append(counting(*args)) or lengths[-1]
    for epoch in (0, 1, 2, 4, 9):
        term(distiller, epoch)
    assert lengths == [16, 14, 12, 8, 8]


def test_keeps_at_least_one_patch():
    assert term(built(HybridKD(*PLACES, drop=0.99))).isfinite()


def test_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"`drop` must be a share of the patches in \[0, 1\), .* got 1\.0"):
        HybridKD(*PLACES, drop=1.0)
    with pytest.raises(ShapeError, match=r"has 2 heads and the teacher's 'blocks\.2\.attn' 3: .* relation_heads="):
        built(
            HybridKD("blocks.1.attn", "blocks.2.attn", "norm", "norm"),
            teacher=timm.create_model("beit_base_patch16_224", embed_dim=48, **VIT | {"num_heads": 3}),
        )
    with pytest.raises(ShapeError, match="`relation_heads` must divide the width 64, got 5"):
        built(HybridKD(*PLACES, relation_heads=5))
    with pytest.raises(ShapeError, match="relations are over 16 patches and final features over 4"):
        built(
            HybridKD("blocks.1.attn", "a.blocks.2.attn", "norm", "b.layer4"),
            teacher=Peers(two_teachers().a, timm.create_model("resnet18")),
        )
