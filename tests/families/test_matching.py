"""Claims about objectives whose layers are matched by similarity, over the networks of every family."""

import pytest
import timm
import torch

from lightning_kd import Distiller
from lightning_kd.families import FAMILIES, family_of
from lightning_kd.objectives import CKAKD, FeatureKD

PIXELS = 64


def timm_net(name, **settings):
    return lambda: timm.create_model(name, num_classes=10, **settings)


def segformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 32, 64], num_labels=10)
    return transformers.SegformerForImageClassification(config)


STUDENTS = {
    "resnet": timm_net("test_resnet"),
    "convnext": timm_net("test_convnext"),
    "efficientnet": timm_net("test_efficientnet"),
    "mobilenetv3": timm_net("mobilenetv3_small_050"),
    "regnet": timm_net("regnetx_002"),
    "swin": timm_net("swin_tiny_patch4_window7_224", img_size=PIXELS, embed_dim=24, depths=(2, 2, 2, 2)),
    "pvt_v2": timm_net("pvt_v2_b0"),
    "mit": segformer,
    "vit": timm_net("test_vit", img_size=PIXELS),
    "mixer": timm_net("resmlp_12_224", img_size=PIXELS),
}


@pytest.mark.parametrize("kind", [CKAKD, FeatureKD])
@pytest.mark.parametrize("family", STUDENTS)
def test_a_student_of_any_family_is_matched_and_distilled(family, kind):
    student, objective = STUDENTS[family](), kind.matched(top=2, samples=8)
    teacher = timm_net("test_vit", img_size=PIXELS)() if family != "vit" else timm_net("test_resnet")()
    assert family_of(student).name == family
    images = torch.randn(8, 3, PIXELS, PIXELS)
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    losses = distiller.losses(torch.zeros(()), calls)
    losses.total.backward()
    assert len(objective.student_taps) == 2
    assert losses.total.isfinite()
    assert any(p.grad is not None and bool(p.grad.ne(0).any()) for p in student.parameters())
    assert all(bool(p.grad.ne(0).any()) for p in distiller.adapters.parameters())


def test_every_family_is_tested():
    assert STUDENTS.keys() == {family.name for family in FAMILIES}
