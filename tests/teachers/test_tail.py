"""Claims about the last stage of a teacher that runs on features from elsewhere."""

import copy

import pytest
import timm
import torch
import torchvision
from torch.testing import assert_close

from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.families import FAMILIES, family_of
from lightning_kd.hidden import Outside
from lightning_kd.layout import Layout
from lightning_kd.recorder import TapRecorder
from lightning_kd.teachers import TeacherTail
from lightning_kd.teachers.tail import with_patches

PIXELS = 64
IMAGES = torch.randn(2, 3, PIXELS, PIXELS)


def timm_net(name, **settings):
    return lambda: timm.create_model(name, num_classes=10, **settings)


def torchvision_net(name, **settings):
    return lambda: torchvision.models.get_model(name, num_classes=10, **settings)


def segformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 32, 64], num_labels=10)
    return transformers.SegformerForImageClassification(config)


TEACHERS = {
    "resnet": timm_net("test_resnet"),
    "resnet, torchvision": torchvision_net("resnet18"),
    "convnext": timm_net("test_convnext"),
    "convnext, torchvision": torchvision_net("convnext_tiny"),
    "regnet": timm_net("regnetx_002"),
    "regnet, torchvision": torchvision_net("regnet_x_400mf"),
    "swin": timm_net("swin_tiny_patch4_window7_224", img_size=PIXELS, embed_dim=24),
    "swin v2": timm_net("swinv2_tiny_window8_256", img_size=PIXELS, embed_dim=24),
    "swin, torchvision": torchvision_net("swin_t"),
    "pvt_v2": timm_net("pvt_v2_b0"),
    "mit": segformer,
    "vit": timm_net("test_vit", img_size=PIXELS),
    "deit": timm_net("deit_tiny_distilled_patch16_224", img_size=PIXELS),
    "registers": timm_net("test_vit", img_size=PIXELS, reg_tokens=4, global_pool="avg"),
    "beit": timm_net("beit_base_patch16_224", img_size=PIXELS, embed_dim=48, num_heads=3),
    "vit, torchvision": lambda: torchvision.models.VisionTransformer(PIXELS, 16, 6, 3, 48, 96, num_classes=10),
    "mixer": timm_net("mixer_s32_224", img_size=PIXELS),
}
every_teacher = pytest.mark.parametrize("make", TEACHERS.values(), ids=TEACHERS)


def tapped(model, tail):
    recorder = TapRecorder(model, [tail.start, tail.end])
    with torch.no_grad(), recorder.recording(copy_overwritten=True):
        model(IMAGES)
    with torch.no_grad(), recorder.recording() as calls:
        model(IMAGES)
    recorder.detach()
    return calls[0].features[tail.start], calls[0].features[tail.end]


@every_teacher
def test_gives_the_teachers_own_last_map_on_the_teachers_own_feature(make):
    teacher = make().eval()
    tail = TeacherTail(teacher)
    start, end = tapped(teacher, tail)
    assert_close(tail(start), end)


@every_teacher
def test_gradients_flow_through_and_the_weights_stay(make):
    teacher = make()
    tail = TeacherTail(teacher)
    feature = tapped(teacher, tail)[0].clone().requires_grad_()
    before = copy.deepcopy(teacher.state_dict())
    teacher.train()
    tail(feature).square().sum().backward()
    # Mixers of random weights pass on little, but every token and every image counts.
    assert feature.grad.flatten(1).ne(0).any(dim=1).all()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_stays_in_evaluation_mode_whatever_the_teacher_does():
    teacher = timm.create_model("test_vit", img_size=PIXELS, proj_drop_rate=0.5, drop_path_rate=0.5).eval()
    tail = TeacherTail(teacher)
    feature = torch.randn(2, 17, 64)
    expected = tail(feature)
    teacher.train()
    assert_close(tail(feature), expected, rtol=0.0, atol=0.0)


def test_begins_two_blocks_before_the_end_of_plain_transformers():
    # Of BEiT-L's 24 blocks, ScaleKD's last stage is 22 and 23.
    teacher = timm.create_model("vit_tiny_patch16_224", img_size=PIXELS, depth=24, embed_dim=24)
    assert TeacherTail(teacher).start.path == "blocks.21"


def test_takes_features_of_another_precision():
    teacher = timm.create_model("test_vit", img_size=PIXELS).bfloat16()
    assert TeacherTail(teacher)(torch.randn(2, 17, 64)).dtype == torch.bfloat16


def test_is_not_copied_with_its_owner():
    tail = TeacherTail(timm.create_model("test_vit", img_size=PIXELS))
    copied = copy.deepcopy(tail)
    assert all(a.module is b.module for a, b in zip(tail._chain, copied._chain, strict=True))
    assert all(isinstance(stage, Outside) for stage in tail._chain)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.tail is not None], ids=lambda f: f.name)
def test_every_family_with_a_tail_is_tested(family):
    assert family.name in {name.partition(",")[0] for name in TEACHERS}


@pytest.mark.parametrize(
    ("name", "network"), [("test_efficientnet", "EfficientNet"), ("eva02_tiny_patch14_224", "Eva")]
)
def test_refuses_a_teacher_whose_last_stage_is_no_chain(name, network):
    teacher = timm.create_model(name)
    assert family_of(teacher).tail is None
    with pytest.raises(SetupError, match=rf"the teacher \({network}\) cannot run alone.*choose a teacher of one of"):
        TeacherTail(teacher)


@pytest.mark.parametrize(
    ("layout", "own"),
    [
        (Layout("NCHW"), torch.randn(2, 3, 4, 5)),
        (Layout("NHWC"), torch.randn(2, 4, 5, 3)),
        (Layout("NLD", prefix_tokens=2, grid=(4, 5)), torch.randn(2, 22, 3)),
    ],
)
def test_patches_put_in_place_are_read_back_and_the_prefix_stays(layout, own):
    patches = torch.randn(2, 3, 4, 5)
    replaced = with_patches(own, patches, layout)
    assert replaced.shape == own.shape
    assert torch.equal(layout.channels_first(replaced), patches)
    assert torch.equal(with_patches(own, layout.channels_first(own), layout), own)


def test_patches_have_no_place_in_a_pooled_feature():
    with pytest.raises(LayoutError, match="a feature of layout 'ND'"):
        with_patches(torch.zeros(2, 3), torch.zeros(2, 3, 1, 1), Layout("ND"))
