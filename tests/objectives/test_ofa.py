"""Claims about `OFAKD`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.adapters.branches import MapBranch, TokenBranch
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.losses import one_for_all
from lightning_kd.objectives import OFAKD
from lightning_kd.taps import Tap

IMAGES = torch.randn(2, 3, 64, 64)
LABELS = torch.tensor([3, 1])


def term(student, teacher, objective, *, labels=LABELS, images=IMAGES):
    """The term, and the call it was computed from."""
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    return distiller.losses(images.new_zeros(()), calls, batch=(images, labels)).terms["ofa"], calls[0], distiller


PAIRS = [
    ("test_resnet", "test_vit"),
    ("test_vit", "test_resnet"),
    ("test_convnext", "deit_tiny_distilled_patch16_224"),
    ("mobilenetv3_small_050", "test_vit"),
    ("resmlp_12_224", "test_efficientnet"),
    ("pvt_v2_b0", "test_resnet"),
]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_trains_pairs_of_families(student, teacher, net, train_three_steps):
    train_three_steps(net(student), net(teacher), [OFAKD()])


def test_trains_a_swin_student_at_every_stage(net, train_three_steps):
    student = net("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 1, 1), window_size=4)
    trained = train_three_steps(student, net("test_resnet"), [OFAKD()])
    assert [len(branch.merge) for branch in trained.kd._distiller.objectives["ofa"].branches] == [3, 2, 1, 0]


def test_trains_a_segformer_whose_output_is_a_mapping(net):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 32, 64], num_labels=10)
    student = transformers.SegformerForImageClassification(config)
    value, _, distiller = term(student, net("test_resnet"), OFAKD())
    value.backward()
    branches = distiller.objectives["ofa"].branches
    assert [len(branch.merge) for branch in branches] == [3, 2, 1, 0]
    assert all(parameter.grad.ne(0).any() for parameter in branches.parameters())
    assert any(parameter.grad is not None and parameter.grad.ne(0).any() for parameter in student.parameters())


def test_branches_follow_the_family(net):
    _, _, distiller = term(net("test_resnet"), net("test_vit"), OFAKD())
    branches = distiller.objectives["ofa"].branches
    assert [type(branch) for branch in branches] == [MapBranch] * 4
    assert [len(branch.convolutions) for branch in branches[:3]] == [3, 2, 1]
    # Widths 96 of the student and 64 of the teacher.
    assert {branch.classifier.in_features for branch in branches} == {96}
    _, _, distiller = term(net("test_vit"), net("test_resnet"), OFAKD())
    branches = distiller.objectives["ofa"].branches
    assert [type(branch) for branch in branches] == [TokenBranch] * 4
    # Stride 16 to stride 32 is one merging; the student's own width.
    assert {(len(branch.merge), branch.classifier.in_features) for branch in branches} == {(1, 64)}


def test_the_last_branch_reads_what_widens_the_last_stage(net):
    student = net("mobilenetv2_035")
    _, _, distiller = term(student, net("test_vit"), OFAKD())
    objective = distiller.objectives["ofa"]
    assert [tap.path for tap in objective.student_taps] == ["blocks.1", "blocks.2", "blocks.4", "bn2"]
    # The width that the student's own classifier reads, which no stage has.
    assert {branch.classifier.in_features for branch in objective.branches} == {student.classifier.in_features}


def test_branches_of_maps_end_in_the_teachers_width_if_that_is_larger(net):
    _, _, distiller = term(net("test_resnet"), net("vit_tiny_patch16_224", depth=4), OFAKD())
    assert {branch.classifier.in_features for branch in distiller.objectives["ofa"].branches} == {192}


def test_the_term_is_the_sum_over_the_branches_and_the_students_own_scores(net):
    student, teacher = net("test_resnet").eval(), net("test_vit").eval()
    exponents, weights = (1.0, 1.2, 1.4, 1.6, 1.8), (1.0, 2.0, 3.0, 4.0, 5.0)
    objective = OFAKD(exponent=exponents, term_weights=weights, temperature=2.0, variant="paper")
    value, call, _ = term(student, teacher, objective.eval())
    features = [call.features[tap] for tap in objective.student_taps]
    scores = [branch(feature) for branch, feature in zip(objective.branches, features, strict=True)] + [call.output]
    expected = sum(
        weight * one_for_all(z, teacher(IMAGES), LABELS, exponent=exponent, temperature=2.0, variant="paper")
        for z, exponent, weight in zip(scores, exponents, weights, strict=True)
    )
    assert_close(value, expected)


def test_mixed_labels_count_as_their_largest_class(net):
    student, teacher = net("test_resnet").eval(), net("test_vit").eval()
    objective = OFAKD().eval()
    expected = term(student, teacher, objective)[0]
    mixed = 0.7 * F.one_hot(LABELS, 10) + 0.3 * F.one_hot(LABELS.roll(1), 10)
    distiller = Distiller(student, teacher, [objective])
    distiller._example = IMAGES
    with distiller.watch() as calls:
        student(IMAGES)
    assert_close(distiller.losses(torch.zeros(()), calls, batch=(IMAGES, mixed)).terms["ofa"], expected)


@pytest.mark.parametrize(("student", "teacher"), PAIRS[:2])
def test_a_thousand_classes_and_one_sample_are_finite_under_bfloat16(student, teacher, net):
    student, teacher = net(student, classes=1000), net(teacher, classes=1000)
    if student.__class__.__name__ == "ResNet":
        student.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _, distiller = term(student, teacher, OFAKD(), labels=torch.tensor([999]), images=IMAGES[:1])
    value.backward()
    assert value.isfinite()
    assert value.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in distiller.adapters.parameters())


def test_other_places_than_stages_can_be_named(net):
    _, _, distiller = term(net("test_resnet"), net("test_vit"), OFAKD(["layer2", Tap("layer4")]))
    branches = distiller.objectives["ofa"].branches
    assert [len(branches[0].convolutions), type(branches[1].convolutions)] == [1, nn.Conv2d]


class Plain(nn.Sequential):
    """A network of no family."""

    def __init__(self):
        pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1), *pooling, nn.Linear(12, 10))


def test_a_student_of_no_family_is_distilled_at_the_places_named():
    _, _, distiller = term(Plain(), Plain(), OFAKD(["0", "1"]))
    assert [type(branch) for branch in distiller.objectives["ofa"].branches] == [MapBranch, MapBranch]


def test_a_student_of_no_family_says_what_to_do():
    with pytest.raises(SetupError, match=r"the student \(Plain\) is of no known family"):
        term(Plain(), Plain(), OFAKD())


def test_refuses_what_has_no_grid():
    with pytest.raises(LayoutError, match=r"`ofa` needs maps or patch tokens, got grid \(\) at '3'"):
        term(Plain(), Plain(), OFAKD(["0", "3"]))


def test_refuses_as_many_numbers_as_there_are_no_terms_for(net):
    with pytest.raises(SetupError, match=r"`exponent` must be one number, or .* 5 in all, got 4"):
        term(net("test_resnet"), net("test_vit"), OFAKD(exponent=(1.0,) * 4))
    with pytest.raises(SetupError, match=r"`term_weights` must be one number, or .* 3 in all, got 2"):
        term(net("test_resnet"), net("test_vit"), OFAKD(["layer3", "layer4"], term_weights=(1.0, 2.0)))


def test_a_final_grid_that_cannot_be_reached_names_the_option(net):
    with pytest.raises(SetupError, match=r"patch grid \(4, 4\) to \(3, 3\): .*final_grid="):
        term(net("test_vit"), net("test_resnet"), OFAKD(final_grid=(3, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponent": 0.0}, r"`exponent` must be a finite number above 0, got 0\.0"),
        ({"exponent": (1.0, -1.0)}, r"`exponent` must be a finite number above 0, got -1\.0"),
        ({"term_weights": -1.0}, r"`term_weights` must be a finite number of at least 0, got -1\.0"),
        ({"temperature": 0.0}, r"`temperature` must be a finite number above 0, got 0\.0"),
        ({"variant": "text"}, r"`variant` must be one of 'code', 'paper', got 'text'"),
    ],
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        OFAKD(**options)
