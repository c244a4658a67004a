"""Claims about students that end in their teacher's classifier, and about `SimKD`."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.objectives import SimKD
from lightning_kd.students import with_teacher_classifier

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
AVERAGING = {"class_token": False, "global_pool": "avg", "fc_norm": False}


@pytest.fixture
def backbone(net):
    return lambda name: net(name, classes=0, global_pool="")


@pytest.mark.parametrize(
    ("student", "teacher", "last_map", "settings"),
    [
        ("test_vit", "test_resnet", "layer4", {}),
        ("test_resnet", "test_vit", "norm", AVERAGING),
        ("test_convnext", "test_byobnet", "stages.3", {}),
    ],
)
def test_trains_on_the_last_map_alone(student, teacher, last_map, settings, net, backbone, train_three_steps):
    teacher = net(teacher, **settings)
    reused = with_teacher_classifier(backbone(student), teacher, IMAGES, last_map=last_map)
    kept = copy.deepcopy(reused.classifier.state_dict())
    run = train_three_steps(reused, teacher, [SimKD(last_map)], task_weight=0.0)
    assert run.metrics["kd/simkd"] > 0
    assert all(torch.equal(value, kept[key]) for key, value in reused.classifier.state_dict().items())


def test_scores_are_the_teachers_classifier_on_the_average_of_the_projected_map(net, backbone):
    teacher = net("test_resnet")
    student = with_teacher_classifier(backbone("test_byobnet"), teacher, IMAGES, last_map="layer4").eval()
    projected = student.projector(student.backbone(IMAGES))
    expected = projected.mean((2, 3)) @ teacher.fc.weight.T + teacher.fc.bias
    assert_close(student(IMAGES), expected)


def test_a_perfect_projection_gives_the_teachers_scores_and_a_term_of_zero(net, backbone):
    teacher = net("test_resnet").eval()
    student = with_teacher_classifier(backbone("test_byobnet"), teacher, IMAGES, last_map="layer4").eval()

    class Perfect(nn.Module):
        def forward(self, _):
            return teacher.forward_features(IMAGES)

    student.projector = Perfect()
    distiller = Distiller(student, copy.deepcopy(teacher), [SimKD("layer4")], allow=("zero", "frozen"))
    distiller.build([IMAGES])
    with distiller.watch() as calls:
        scores = student(IMAGES)
    assert_close(scores, teacher(IMAGES))
    assert distiller.losses(torch.zeros(()), calls).terms["simkd"].item() == pytest.approx(0.0, abs=1e-12)


def test_a_finer_student_is_averaged_to_the_teachers_grid_before_the_projector(net):
    teacher = net("test_resnet")
    fine = nn.Sequential(nn.Conv2d(3, 6, 4, stride=8))
    student = with_teacher_classifier(fine, teacher, IMAGES, last_map="layer4").eval()
    seen = []
    student.projector.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    student(IMAGES)
    assert_close(seen[0], F.adaptive_avg_pool2d(fine(IMAGES), (2, 2)))


def test_a_finer_teacher_is_averaged_to_the_students_grid():
    teacher = nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    backbone = nn.Conv2d(3, 6, 16, stride=16)
    student = with_teacher_classifier(backbone, teacher, IMAGES, last_map="1", classifier=teacher[4]).eval()
    distiller = Distiller(student, teacher, [SimKD("1")])
    distiller.build([IMAGES])
    with distiller.watch() as calls:
        student(IMAGES)
    term = distiller.losses(torch.zeros(()), calls).terms["simkd"]
    projected = student.projector(student.backbone(IMAGES))
    assert_close(term, (projected - F.avg_pool2d(teacher[:2](IMAGES), 2)).square().mean())


def test_the_classifier_is_a_frozen_copy(net, backbone):
    teacher = net("test_resnet")
    student = with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="layer4")
    assert not any(p.requires_grad for p in student.classifier.parameters())
    assert {id(p) for p in student.parameters()}.isdisjoint({id(p) for p in teacher.parameters()})


def test_dropout_and_batch_norm_of_the_classifier_do_not_train(net, backbone):
    teacher = net("test_resnet").eval()
    nn.init.zeros_(teacher.fc.bias)
    rest = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(96, eps=0.0), teacher.fc)
    student = with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="layer4", classifier=rest)
    student.train()
    assert student.projector.training
    assert [module.training for module in student.classifier] == [False, False, True]


def test_what_follows_the_average_can_be_given(net, backbone):
    teacher = net("test_convnext")
    with pytest.raises(SetupError, match="not its classifier applied to the average of `last_map`"):
        with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="stages.3")
    rest = nn.Sequential(nn.Unflatten(1, (64, 1, 1)), teacher.head.norm, nn.Flatten(), teacher.head.fc)
    student = with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="stages.3", classifier=rest)
    assert student(IMAGES).shape == (2, 10)


def test_the_last_relu_is_there_where_the_teachers_map_allows_it(net, backbone):
    rectified = with_teacher_classifier(backbone("test_vit"), net("test_resnet"), IMAGES, last_map="layer4")
    signed = with_teacher_classifier(backbone("test_resnet"), net("test_vit", **AVERAGING), IMAGES, last_map="norm")
    forced = with_teacher_classifier(backbone("test_vit"), net("test_resnet"), IMAGES, last_map="layer4", rectify=False)
    assert [isinstance(s.projector[-1], nn.ReLU) for s in (rectified, signed, forced)] == [True, False, False]


def test_can_be_captured_for_export(net, backbone):
    student = with_teacher_classifier(backbone("test_resnet"), net("test_byobnet"), IMAGES, last_map="stages.3").eval()
    program = torch.export.export(student, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))
    for samples in (1, 2, 5):
        images = torch.randn(samples, 3, 64, 64)
        assert_close(program.module()(images), student(images))


def test_refuses_a_teacher_that_reads_a_class_token(net, backbone):
    with pytest.raises(SetupError, match=r"averages its tokens \(timm: global_pool='avg'\)"):
        with_teacher_classifier(backbone("test_resnet"), net("test_vit"), IMAGES, last_map="norm")


def test_refuses_a_teacher_that_does_not_name_its_classifier(backbone):
    teacher = torchvision.models.resnet18(num_classes=10)
    with pytest.raises(SetupError, match=r"\(ResNet\) does not say what its classifier is: pass classifier="):
        with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="layer4")
    assert (
        with_teacher_classifier(
            backbone("test_vit"), teacher, IMAGES, last_map="layer4", classifier=teacher.fc
        ).classifier.out_features
        == 10
    )


def test_refuses_a_place_of_another_width(net, backbone):
    teacher = net("test_resnet")
    student = with_teacher_classifier(backbone("test_vit"), teacher, IMAGES, last_map="layer4")
    with pytest.raises(SetupError, match="must have the teacher's 192 channels, got 96"):
        Distiller(student, teacher, [SimKD("layer3")]).build([IMAGES])


def test_refuses_a_factor_of_zero(net, backbone):
    with pytest.raises(ValueError, match="`factor` must be at least 1, got 0"):
        with_teacher_classifier(backbone("test_vit"), net("test_resnet"), IMAGES, last_map="layer4", factor=0)
