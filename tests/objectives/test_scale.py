"""Claims about `ScaleKD`."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import view_distance
from lightning_kd.objectives import ScaleKD

IMAGES = torch.randn(2, 3, 64, 64)


def built(student, teacher, objective, images=IMAGES):
    return Distiller(student, teacher, [objective]).build([images])


def terms_of(distiller, images=IMAGES):
    with distiller.watch() as calls:
        distiller.student(images)
    return distiller.losses(images.new_zeros(()), calls).terms["scale"], calls[0]


def swin(net):
    return net("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 1, 1), window_size=2)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("test_resnet", "test_vit"),
        ("test_vit", "test_convnext"),
        ("resmlp_12_224", "test_vit"),
        ("mobilenetv3_small_050", "deit_tiny_distilled_patch16_224"),
    ],
)
def test_trains_pairs_of_families(student, teacher, net, train_three_steps):
    train_three_steps(net(student), net(teacher), [ScaleKD()])


@pytest.mark.parametrize("student", ["test_resnet", "test_vit"])
def test_learns_from_swin_whose_last_stage_merges_patches(student, net, train_three_steps):
    train_three_steps(net(student), swin(net), [ScaleKD(heads=(3, 6))])


def test_the_term_is_the_weighted_sum_of_four_distances(net):
    student, teacher = net("test_resnet").eval(), swin(net).eval()
    objective = ScaleKD(heads=(4, 8), spatial_weights=(1.0, 2.0), frequency_weights=(3.0, 4.0))
    distiller = built(student, teacher, objective)
    objective.eval()
    value, call = terms_of(distiller)
    third, fourth = (call.features[tap] for tap in objective.student_taps)
    with torch.no_grad():
        goal = teacher.norm(teacher.layers(teacher.patch_embed(IMAGES))).movedim(-1, 1)
    expected = 0.0
    for view, (a, b) in {"spatial": (1.0, 2.0), "frequency": (3.0, 4.0)}.items():
        entering = objective.third[view](third).movedim(1, -1)
        perceived = teacher.norm(teacher.layers[3](entering)).movedim(-1, 1)
        expected = expected + a * view_distance(perceived, goal, view=view)
        expected = expected + b * view_distance(objective.fourth[view](fourth, perceived), goal, view=view)
    assert_close(value, expected)


def test_a_transformers_own_prefix_tokens_go_with_the_patches(net):
    student, teacher = net("test_resnet").eval(), net("test_vit").eval()
    objective = ScaleKD(spatial_weights=(1.0, 0.0), frequency_weights=(0.0, 0.0))
    distiller = built(student, teacher, objective)
    objective.eval()
    value, call = terms_of(distiller)
    with torch.no_grad():
        tokens = teacher.forward_intermediates(
            IMAGES, indices=[3, 5], return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
        )
    prefix = tokens[0][1]
    patches = objective.third["spatial"](call.features[objective.student_taps[0]]).flatten(2).transpose(1, 2)
    x = teacher.norm(teacher.blocks[5](teacher.blocks[4](torch.cat([prefix, patches], dim=1))))
    goal = teacher.norm(torch.cat([tokens[1][1], tokens[1][0]], dim=1))[:, 1:]
    assert_close(value, view_distance(x[:, 1:].transpose(1, 2), goal.transpose(1, 2)))


def test_the_last_stages_term_trains_the_third_stages_projector(net):
    weights = {"spatial_weights": (0.0, 0.08), "frequency_weights": (0.0, 0.0)}
    distiller = built(net("test_resnet"), net("test_vit"), ScaleKD(**weights))
    terms_of(distiller)[0].backward()
    assert all(parameter.grad.ne(0).any() for parameter in distiller.adapters["scale"].third.parameters())


def test_with_self_query_each_projector_has_its_own_queries(net):
    distiller = built(net("test_resnet"), net("test_vit"), ScaleKD(self_query=True))
    objective = distiller.objectives["scale"]
    assert all(p.queries is not None for p in (*objective.third.values(), *objective.fourth.values()))
    assert ScaleKD().self_query is False


def test_every_projector_is_as_sharp_as_asked(net):
    objective = ScaleKD(heads=(4, 8), sharpness=0.2)
    built(net("test_resnet"), net("test_vit"), objective)
    # Over the root of the heads' widths, 16 and 8 of 64.
    for projectors, width in ((objective.third, 16), (objective.fourth, 8)):
        assert [p.scale for p in projectors.values()] == pytest.approx([0.2 / width**0.5] * 2)
    with pytest.raises(ValueError, match=r"`sharpness` must be .* got 0"):
        ScaleKD(sharpness=0.0)


def test_projectors_without_weight_are_not_made(net):
    # Swin-S: no frequency view at the last stage.
    distiller = built(net("test_resnet"), net("test_vit"), ScaleKD(frequency_weights=(0.06, 0.0)))
    objective = distiller.objectives["scale"]
    assert (list(objective.third), list(objective.fourth)) == (["spatial", "frequency"], ["spatial"])
    alone = ScaleKD(self_query=True, spatial_weights=(0.0, 0.08), frequency_weights=(0.0, 0.0))
    built(net("test_resnet"), net("test_vit"), alone)
    assert (list(alone.third), list(alone.fourth)) == ([], ["spatial"])


def test_the_teacher_gets_no_gradient_and_the_student_gets_one_through_it(net, student_gradient):
    teacher = swin(net)
    weights = {"spatial_weights": (0.08, 0.0), "frequency_weights": (0.06, 0.0)}
    distiller = built(net("test_resnet"), teacher, ScaleKD(heads=(3, 6), **weights))
    reached = student_gradient(distiller, IMAGES)
    assert any(name.startswith("layer3") for name in reached)
    assert not any(name.startswith("layer4") for name in reached)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_copy_shares_the_teacher_and_not_the_projectors(net):
    distiller = built(net("test_resnet"), net("test_vit"), ScaleKD())
    objective = distiller.objectives["scale"]
    copied = copy.deepcopy(objective)
    assert copied._tail._chain[0].module is objective._tail._chain[0].module
    assert copied.third["spatial"].positions is not objective.third["spatial"].positions
    teachers = {id(parameter) for parameter in distiller.teacher.parameters()}
    assert not any(id(parameter) in teachers for parameter in objective.parameters())


@pytest.mark.parametrize(("student", "teacher"), [("test_resnet", "test_vit"), ("test_vit", "test_resnet")])
def test_one_sample_and_a_thousand_classes_are_finite_under_bfloat16(student, teacher, net):
    student, teacher = net(student, classes=1000).eval(), net(teacher, classes=1000)
    distiller = built(student, teacher, ScaleKD(), IMAGES[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = terms_of(distiller, IMAGES[:1])
    value.backward()
    assert value.isfinite()
    assert value.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in distiller.adapters.parameters())


class Rolling(timm.models.VisionTransformer):
    """A vision transformer that does more between its blocks than its class tells."""

    def forward_features(self, x, **_):
        x = self._pos_embed(self.patch_embed(x))
        for block in self.blocks:
            x = block(x).roll(1, dims=-1)
        return self.norm(x)


def test_refuses_a_teacher_whose_last_stage_does_something_else_alone(net):
    teacher = Rolling(img_size=64, patch_size=16, embed_dim=64, depth=4, num_heads=2, num_classes=10)
    with pytest.raises(SetupError, match=r"run alone from 'blocks\.1', does not give its last map"):
        built(net("test_resnet"), teacher, ScaleKD())


def test_refuses_networks_and_places_that_do_not_fit(net):
    with pytest.raises(SetupError, match=r"the teacher \(Sequential\) is of no known family"):
        built(net("test_resnet"), nn.Sequential(nn.Conv2d(3, 8, 3)), ScaleKD())
    with pytest.raises(SetupError, match=r"`scale` needs two places in the student, .* got 1"):
        built(net("test_resnet"), net("test_vit"), ScaleKD("layer4"))
    with pytest.raises(ShapeError, match=r"`heads` must divide the teacher's width of 64, got 12"):
        built(net("test_resnet"), net("test_vit"), ScaleKD(heads=(12, 8)))


def test_refuses_weights_that_are_negative_or_all_zero():
    with pytest.raises(ValueError, match=r"`frequency_weights` must be a finite number of at least 0, got -1\.0"):
        ScaleKD(frequency_weights=(0.0, -1.0))
    with pytest.raises(ValueError, match="must hold a number above 0, got zeros only"):
        ScaleKD(spatial_weights=(0.0, 0.0), frequency_weights=(0.0, 0.0))
