"""Claims about the table of families: taps that fire, at the strides and in the order they should."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError
from lightning_kd.families import FAMILIES, family_of, last_map_tap, stage_taps, stages_of
from lightning_kd.families.stages import block_indices
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Tap, resolve_module

PIXELS = 64


def timm_net(name, **settings):
    return timm.create_model(name, num_classes=10, **settings)


def torchvision_net(name, **settings):
    return torchvision.models.get_model(name, num_classes=10, **settings)


def segformer(name):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 32, 64], decoder_hidden_size=16, num_labels=10)
    return getattr(transformers, name)(config)


STAGED = {
    "resnet": [
        lambda: timm_net("resnet18"),
        lambda: timm_net("wide_resnet50_2", layers=(1, 1, 1, 1)),
        lambda: timm_net("resnext50_32x4d"),
        lambda: timm_net("test_resnet"),
        lambda: torchvision_net("resnet18"),
    ],
    "convnext": [lambda: timm_net("convnext_atto"), lambda: torchvision_net("convnext_tiny")],
    "efficientnet": [
        lambda: timm_net("mobilenetv1_100"),
        lambda: timm_net("mobilenetv2_050"),
        lambda: timm_net("efficientnet_b0"),
        lambda: timm_net("efficientnetv2_rw_t"),
        lambda: torchvision_net("mobilenet_v2"),
        lambda: torchvision_net("efficientnet_b0"),
        lambda: torchvision_net("efficientnet_v2_s"),
    ],
    "mobilenetv3": [
        lambda: timm_net("mobilenetv3_small_050"),
        lambda: timm_net("mobilenetv3_large_100"),
        lambda: timm_net("mobilenetv4_conv_small"),
        lambda: torchvision_net("mobilenet_v3_small"),
        lambda: torchvision_net("mobilenet_v3_large"),
    ],
    "regnet": [
        lambda: timm_net("regnetx_002"),
        lambda: timm_net("regnety_002"),
        lambda: torchvision_net("regnet_x_400mf"),
    ],
    "swin": [
        lambda: timm_net("swin_tiny_patch4_window7_224", img_size=PIXELS, embed_dim=24),
        lambda: timm_net("swinv2_tiny_window8_256", img_size=PIXELS, embed_dim=24),
        lambda: torchvision_net("swin_t"),
    ],
    "pvt_v2": [lambda: timm_net("pvt_v2_b0")],
    "mit": [
        lambda: segformer("SegformerModel"),
        lambda: segformer("SegformerForImageClassification"),
        lambda: segformer("SegformerForSemanticSegmentation"),
    ],
}
PLAIN = {
    "vit": [
        lambda: timm_net("vit_tiny_patch16_224", img_size=PIXELS),
        lambda: timm_net("deit_tiny_patch16_224", img_size=PIXELS),
        lambda: timm_net("deit_tiny_distilled_patch16_224", img_size=PIXELS),
        lambda: timm_net("vit_small_patch16_224", img_size=PIXELS, reg_tokens=4, global_pool="avg"),
        lambda: timm_net("beit_base_patch16_224", img_size=PIXELS, embed_dim=48, num_heads=3),
        lambda: timm_net("eva02_tiny_patch14_224", img_size=56),
        lambda: torchvision.models.VisionTransformer(PIXELS, 16, 6, 3, 48, 96, num_classes=10),
    ],
    "mixer": [
        lambda: timm_net("mixer_s32_224", img_size=PIXELS),
        lambda: timm_net("resmlp_12_224", img_size=PIXELS),
    ],
}


def cases(table):
    return [pytest.param(name, make, id=f"{name}-{i}") for name, makes in table.items() for i, make in enumerate(makes)]


def probe(model, taps, pixels=PIXELS):
    recorder = TapRecorder(model.eval(), taps)
    with torch.no_grad(), recorder.recording(copy_overwritten=True) as calls:
        model(torch.zeros(1, 3, pixels, pixels))
    recorder.detach()
    return Probe(model, calls[0])


@pytest.mark.parametrize(("name", "make"), cases(STAGED))
def test_stages_have_the_strides_4_to_32(name, make):
    model = make()
    assert family_of(model).name == name
    taps = (*stage_taps(model), last_map_tap(model))
    seen = probe(model, taps)
    grids = [seen.geometry(tap).grid for tap in taps]
    assert grids == [(16, 16), (8, 8), (4, 4), (2, 2), (2, 2)]


@pytest.mark.parametrize(("name", "make"), cases(PLAIN))
def test_stages_of_plain_networks_are_blocks_of_one_grid_and_width(name, make):
    model = make()
    assert family_of(model).name == name
    taps = (*stage_taps(model), last_map_tap(model))
    seen = probe(model, taps, pixels=56 if "eva" in type(model).__module__ else PIXELS)
    geometries = [seen.geometry(tap) for tap in taps]
    assert len({(geometry.grid, geometry.width) for geometry in geometries}) == 1
    assert len(geometries[0].grid) == 2
    assert len(set(taps)) == 5


@pytest.mark.parametrize(("name", "make"), cases(STAGED | PLAIN))
def test_the_named_parts_are_there_and_run(name, make):
    model = make()
    family = family_of(model)
    parts = [part for part in (family.embedding, family.norm, family.classifier) if part is not None]
    ran = set()
    for part in parts:
        resolve_module(model, part).register_forward_hook(lambda *_, part=part: ran.add(part))
    probe(model, (), pixels=56 if "eva" in type(model).__module__ else PIXELS)
    assert ran == set(parts)
    if family.classifier is not None:
        last = resolve_module(model, family.classifier)
        assert isinstance(last, nn.Linear | nn.Conv2d)
        assert len(last.weight) == 10


def test_the_last_map_of_resnets_is_what_the_classifier_pools():
    model = timm_net("test_resnet")
    seen = probe(model, [last_map_tap(model)])
    pooled = seen.observation.features[last_map_tap(model)].mean((2, 3))
    assert_close(resolve_module(model, family_of(model).classifier)(pooled), seen.observation.output)


def test_every_family_is_tested():
    assert {family.name for family in FAMILIES} == STAGED.keys() | PLAIN.keys()


def test_a_class_is_in_one_row_only():
    classes = [name for family in FAMILIES for name in family.classes]
    assert len(classes) == len(set(classes))


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(12, (1, 3, 9, 11)), (24, (3, 7, 19, 23)), (8, (0, 2, 6, 7)), (4, (0, 1, 2, 3)), (3, ())],
)
def test_blocks_keep_the_relative_depth_of_the_published_ones(depth, expected):
    assert block_indices(depth) == expected


@pytest.mark.parametrize("depth", range(4, 50))
def test_blocks_are_four_in_order_and_end_with_the_last(depth):
    indices = block_indices(depth)
    assert len(indices) == len(set(indices)) == 4
    assert list(indices) == sorted(indices)
    assert indices[-1] == depth - 1


def test_a_compiled_network_is_of_the_family_it_was():
    model = torch.compile(timm_net("test_vit", img_size=PIXELS))
    assert family_of(model).name == "vit"
    assert stages_of(model) == ("blocks.0", "blocks.1", "blocks.4", "blocks.5")


def test_prefix_tokens_are_declared_where_the_network_does_not_tell():
    model = torchvision.models.VisionTransformer(PIXELS, 16, 12, 3, 48, 96)
    assert stage_taps(model)[0] == Tap("encoder.layers.encoder_layer_1", prefix_tokens=1)


def test_an_unknown_network_has_no_family_and_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    assert family_of(model) is None
    with pytest.raises(SetupError, match=r"the student \(Sequential\) is of no known family .*CKAKD\.matched\(\)"):
        stages_of(model, "student")
    with pytest.raises(SetupError, match=r"the model \(Sequential\) is of no known family"):
        last_map_tap(model)


def test_a_network_with_fewer_stages_says_which_it_has():
    shallow = timm_net("vit_tiny_patch16_224", img_size=PIXELS, depth=3)
    with pytest.raises(SetupError, match=r"four stages .* teacher \(VisionTransformer\), found \[\]: name the"):
        stages_of(shallow, "teacher")
    dilated = torchvision_net("mobilenet_v2", inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]])
    with pytest.raises(SetupError, match=r"found \['features\.3'\]"):
        stages_of(dilated)


def test_a_network_without_its_stages_says_which_are_missing():
    model = timm_net("test_resnet")
    del model.layer4
    with pytest.raises(SetupError, match=r"without modules at \['layer4'\]"):
        stages_of(model)
