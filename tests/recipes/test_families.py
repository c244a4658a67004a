"""Recipes on a network of every family, and on networks of none."""

import itertools

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from lightning_kd import Distiller, recipes
from lightning_kd.errors import SetupError
from lightning_kd.families import FAMILIES, family_of
from lightning_kd.students import Peers
from lightning_kd.teachers import FrozenTeacher

PIXELS = 64
IMAGES = torch.randn(2, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 1])
SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}


def of_timm(name, **settings):
    return lambda: timm.create_model(name, num_classes=10, **settings)


def of_torchvision(name, **settings):
    return lambda: getattr(torchvision.models, name)(num_classes=10, **settings)


def segformer(name):
    def make():
        transformers = pytest.importorskip("transformers")
        config = transformers.SegformerConfig(
            num_labels=10, depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16
        )
        return getattr(transformers, name)(config)

    return make


# By the first class of their row in the table.
STUDENTS = {
    "timm.models.resnet.ResNet": of_timm("test_resnet"),
    "timm.models.convnext.ConvNeXt": of_timm("test_convnext"),
    "torchvision.models.convnext.ConvNeXt": of_torchvision(
        "ConvNeXt", block_setting=[CNBlockConfig(8 * 2**i, 16 * 2**i if i < 3 else None, 1) for i in range(4)]
    ),
    "timm.models.efficientnet.EfficientNet": of_timm("mobilenetv2_050"),
    "torchvision.models.efficientnet.EfficientNet": of_torchvision("mobilenet_v2", width_mult=0.25),
    "timm.models.mobilenetv3.MobileNetV3": of_timm("mobilenetv3_small_050"),
    "torchvision.models.mobilenetv3.MobileNetV3": of_torchvision("mobilenet_v3_small", width_mult=0.25),
    "timm.models.regnet.RegNet": of_timm("regnetx_002"),
    "torchvision.models.regnet.RegNet": of_torchvision("regnet_x_400mf"),
    "timm.models.swin_transformer.SwinTransformer": of_timm(
        "swin_tiny_patch4_window7_224", img_size=PIXELS, window_size=2, **SWIN
    ),
    "torchvision.models.swin_transformer.SwinTransformer": of_torchvision(
        "SwinTransformer", patch_size=[4, 4], window_size=[2, 2], **SWIN
    ),
    "timm.models.pvt_v2.PyramidVisionTransformerV2": of_timm("pvt_v2_b0", depths=(1, 1, 1, 1)),
    "transformers.models.segformer.modeling_segformer.SegformerModel": segformer("SegformerModel"),
    "transformers.models.segformer.modeling_segformer.SegformerForImageClassification": segformer(
        "SegformerForImageClassification"
    ),
    "transformers.models.segformer.modeling_segformer.SegformerForSemanticSegmentation": segformer(
        "SegformerForSemanticSegmentation"
    ),
    "timm.models.vision_transformer.VisionTransformer": of_timm("test_vit", img_size=PIXELS),
    "timm.models.eva.Eva": of_timm("eva02_tiny_patch14_224", img_size=PIXELS, patch_size=16, depth=4),
    "torchvision.models.vision_transformer.VisionTransformer": of_torchvision(
        "VisionTransformer", image_size=PIXELS, patch_size=16, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64
    ),
    "timm.models.mlp_mixer.MlpMixer": of_timm("resmlp_12_224", img_size=PIXELS),
}
WITHOUT_CLASS_SCORES = ("SegformerModel", "SegformerForSemanticSegmentation")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.classes[0])
def test_a_student_of_every_family_learns_from_another_one(family, net):
    student = STUDENTS[family.classes[0]]()
    assert family_of(student) == family
    teacher = net("test_vit" if family.kind == "cnn" else "test_resnet")
    kds = [recipes.review_kd(teacher, student), recipes.attention_transfer(teacher, student)]
    if type(student).__name__ not in WITHOUT_CLASS_SCORES:
        kds.append(recipes.ofa_kd(teacher))
    distiller = Distiller(student, teacher, list(itertools.chain(*(kd.objectives for kd in kds)))).build([IMAGES])
    with distiller.watch() as calls:
        student(IMAGES)
    losses = distiller.losses(torch.zeros(()), calls, batch=(IMAGES, LABELS))
    assert len(losses.terms) == len(kds)
    losses.total.backward()
    learnt = [name for name, p in distiller.adapters.named_parameters() if p.grad is not None and p.grad.any()]
    assert learnt == [name for name, _ in distiller.adapters.named_parameters()]
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())


@pytest.mark.parametrize(
    ("student", "levels"), [("SegformerForImageClassification", 4), ("SegformerModel", 3)], ids=["classifier", "none"]
)
def test_review_reads_what_is_classified_if_both_networks_classify_images(student, levels, net):
    student = segformer(student)()
    for pair in ((net("test_resnet"), student), (student, net("test_resnet"))):
        (review,) = recipes.review_kd(*pair).objectives
        assert len(review.student_taps) == len(review.teacher_taps) == levels


class Unknown(nn.Module):
    """A network whose class says nothing, with a head that gives vectors."""

    def __init__(self):
        super().__init__()
        widths = itertools.pairwise((3, 8, 16, 32, 64))
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in widths
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        for layers in self.body:
            x = layers(x)
        return self.head(x.mean((2, 3)))


PAIRS = {
    **dict.fromkeys(("fitnet", "mgd", "cka", "sp", "rkd", "pkt", "cc", "ickd", "patch_similarity"), 1),
    **dict.fromkeys(("attention_transfer", "vid", "review_kd", "vitkd"), 3),
    "feature_recalibration": 4,
}


@pytest.mark.parametrize("recipe", PAIRS)
def test_an_unknown_student_is_paired_by_similarity_and_told_so(recipe, net, learn_alone):
    student, pairs = Unknown(), PAIRS[recipe]
    with pytest.warns(UserWarning, match=rf"the student \(Unknown\) is not known, so {pairs} pair.* chosen by CKA"):
        kd = getattr(recipes, recipe)(net("test_resnet"), student, path="net")
    learn_alone(student, [kd])
    chosen = kd._distiller.objectives[kd.objectives[0].name]
    assert len(chosen.student_taps) == len(chosen.teacher_taps) == pairs


@pytest.mark.parametrize("recipe", ["attention_transfer", "review_kd"])
def test_an_unknown_teacher_is_paired_by_similarity_too(recipe, net, learn_alone):
    student, teacher = net("test_vit"), FrozenTeacher(Unknown())
    with pytest.warns(UserWarning, match=r"the teacher \(Unknown\) is not known"):
        kd = getattr(recipes, recipe)(teacher, student, path="net")
    learn_alone(student, [kd])


def test_two_unknown_networks_are_named_in_one_warning(learn_alone):
    student = Unknown()
    with pytest.warns(UserWarning, match=r"the student \(Unknown\) and the teacher \(Sequential\) is not known"):
        kd = recipes.cka(nn.Sequential(Unknown()), student, path="net")
    learn_alone(student, [kd])


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        (
            lambda net, no: recipes.crd(net, no, LABELS),
            r"the student \(Unknown\) .* CRDKD\(student_layer, teacher_layer",
        ),
        (
            lambda net, no: recipes.simkd(no),
            r"the teacher \(Unknown\) is of no known family .* name the teacher's taps",
        ),
        (lambda net, no: recipes.hybrid(net, net, no), r"no attention module .* is known in the student \(Unknown\)"),
        (lambda net, no: recipes.collaborative(Peers(net, no)), r"the b \(Unknown\) is of no known family"),
    ],
    ids=["crd", "simkd", "hybrid", "collaborative"],
)
def test_recipes_that_need_a_family_say_what_to_do(recipe, match, net):
    with pytest.raises(SetupError, match=match):
        recipe(net("test_vit"), Unknown())


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        (recipes.ofa_kd, r"the student \(Unknown\) is of no known family"),
        (recipes.scalekd, r"the student \(Unknown\) is of no known family"),
        (recipes.minilm, r"no attention module .* is known in the student \(Unknown\)"),
        (recipes.tinybert, r"no attention module .* is known in the student \(Unknown\)"),
    ],
)
def test_recipes_that_look_at_the_student_in_fit_say_what_to_do_there(recipe, match, net):
    distiller = Distiller(Unknown(), net("test_vit"), recipe(net("test_vit")).objectives)
    with pytest.raises(SetupError, match=match):
        distiller.build([IMAGES])


def test_stages_are_counted_from_0_to_3(net):
    with pytest.raises(SetupError, match=r"four stages 0 to 3, got \(4,\)"):
        recipes.fitnet(net("test_resnet"), net("test_vit"), stage=4)
    with pytest.raises(SetupError, match=r"four stages 0 to 3, got \(\)"):
        recipes.attention_transfer(net("test_resnet"), net("test_vit"), stages=())
