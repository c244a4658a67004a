"""Claims that hold for every objective over pairs of feature maps, between networks of different families."""

import pytest
import torch

from lightning_kd import Distiller, Tap
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.objectives import ATKD, CWDKD, FRDKD, MGDKD, VIDKD, FitNetKD, ReviewKD, ViTKD

CNN, VIT = ["layer2", "layer3"], ["blocks.1", "blocks.5"]
OBJECTIVES = [
    pytest.param(FitNetKD, id="fitnet"),
    pytest.param(ATKD, id="at"),
    pytest.param(VIDKD, id="vid"),
    pytest.param(ReviewKD, id="review"),
    pytest.param(MGDKD, id="mgd"),
    pytest.param(lambda s, t: MGDKD(s, t, hides="positions", ratio=0.5, name="mgd"), id="mgd-positions"),
    pytest.param(CWDKD, id="cwd"),
    pytest.param(ViTKD, id="vitkd"),
    pytest.param(FRDKD, id="frd"),
]


@pytest.mark.parametrize("make", OBJECTIVES)
def test_a_cnn_learns_from_a_transformer(make, net, train_three_steps):
    run = train_three_steps(net("test_resnet"), net("test_vit"), [make(CNN, VIT)])
    assert any(name.startswith("kd/") for name in run.metrics)


@pytest.mark.parametrize("make", OBJECTIVES)
def test_a_transformer_learns_from_a_cnn(make, net, train_three_steps):
    train_three_steps(net("test_vit"), net("test_convnext"), [make(VIT, ["stages.1", "stages.2"])])


def distilled(objective, student, teacher, images, **settings):
    distiller = Distiller(student, teacher, [objective], **settings)
    distiller.build([images])
    with distiller.watch() as calls:
        student(images)
    return distiller, distiller.losses(images.new_zeros(()), calls)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("make", OBJECTIVES)
def test_terms_and_gradients_are_finite_under_bfloat16_autocast(make, samples, net):
    # The student is in evaluation mode: its own BatchNorm has no value for one sample.
    student, teacher = net("test_resnet").eval(), net("test_vit")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distiller, losses = distilled(make(CNN, VIT), student, teacher, torch.randn(samples, 3, 64, 64))
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert losses.total.isfinite()
    gradients = [p.grad for p in (*student.parameters(), *distiller.adapters.parameters()) if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert next(student.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("make", OBJECTIVES)
def test_the_teacher_stops_after_its_last_tap(make, net):
    teacher = net("test_vit")
    distiller = Distiller(net("test_resnet").eval(), teacher, [make(CNN, ["blocks.0", "blocks.1"])])
    distiller.build([torch.randn(2, 3, 64, 64)])
    runs = []
    teacher.blocks[2].register_forward_hook(lambda *_: runs.append(1))
    with distiller.watch() as calls:
        distiller.student(torch.randn(2, 3, 64, 64))
    distiller.losses(torch.zeros(()), calls)
    assert not runs


@pytest.mark.parametrize("make", OBJECTIVES)
def test_places_must_pair_up(make):
    with pytest.raises(SetupError, match=r"one to one, got 2 and 1"):
        make(CNN, VIT[:1])


@pytest.mark.parametrize("make", [FitNetKD, ATKD, VIDKD, ReviewKD, MGDKD, CWDKD, ViTKD])
def test_without_places_there_is_nothing_to_build(make, net):
    with pytest.raises(SetupError, match="needs at least one pair of places, got none"):
        Distiller(net("test_resnet"), net("test_vit"), [make([], [])]).build([torch.randn(2, 3, 64, 64)])


@pytest.mark.parametrize("make", [FitNetKD, ATKD, VIDKD, ReviewKD, MGDKD, CWDKD, ViTKD])
def test_a_map_and_frames_do_not_pair(make, net):
    objective = make("layer2", Tap("blocks.1", axes="NTD"))
    with pytest.raises(LayoutError, match=r"no common grid: student \(8, 8\), teacher \(17,\)"):
        Distiller(net("test_resnet"), net("test_vit"), [objective]).build([torch.randn(2, 3, 64, 64)])
