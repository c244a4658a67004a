"""Claims about MIKD; across ranks: tests/test_distributed.py."""

import pytest
import torch
from torch import nn

from lightning_kd import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.objectives import MIKD


def distilled(batch, **options):
    student, teacher = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), nn.Linear(4, 8)
    distiller = Distiller(student, teacher, [MIKD("0", "", **options)], allow=("zero",)).build([batch])
    with distiller.watch() as calls:
        student(batch)
    return distiller, distiller.losses(torch.zeros(()), calls)


@pytest.mark.parametrize(
    ("student", "teacher", "places"),
    [
        ("test_resnet", "test_vit", (["layer2", "layer4"], ["blocks.0", "blocks.1"])),
        ("test_vit", "test_resnet", (["blocks.1"], ["layer4"])),
        ("test_resnet", "test_vit", (["fc"], ["head"])),
    ],
)
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_trains_across_families_on_features_and_logits(train_three_steps, net, student, teacher, places, alpha):
    trained = train_three_steps(net(student), net(teacher), [MIKD(*places, alpha=alpha)])
    assert abs(trained.metrics["kd/mi"]) < 10.0


def test_the_teacher_stops_at_its_last_tap():
    assert not MIKD("0", "").needs_teacher_output


def test_the_bound_grows_while_critic_and_student_learn():
    batch = torch.randn(32, 4)
    distiller, losses = distilled(batch)
    first, optimizer = (
        losses.total.item(),
        torch.optim.Adam([*distiller.student.parameters(), *distiller.adapters.parameters()], lr=0.01),
    )
    for _ in range(30):
        with distiller.watch() as calls:
            distiller.student(batch)
        optimizer.zero_grad()
        loss = distiller.losses(torch.zeros(()), calls).total
        loss.backward()
        optimizer.step()
    assert loss.item() < first - 0.5


def test_a_single_sample_gives_a_zero_that_keeps_the_graph():
    _, losses = distilled(torch.randn(1, 4))
    losses.total.backward()
    assert losses.total.item() == 0.0


def test_is_finite_under_bfloat16_autocast():
    batch = torch.randn(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distiller, losses = distilled(batch, temperature=0.01)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in distiller.adapters.parameters())


def test_without_the_batch_in_its_baseline_the_baseline_learns_and_with_it_alone_it_does_not():
    for alpha, learns in ((0.0, True), (1.0, False)):
        distiller, losses = distilled(torch.randn(8, 4), alpha=alpha)
        losses.total.backward()
        gradients = [p.grad for name, p in distiller.adapters.named_parameters() if "baseline" in name]
        assert all(bool(g.ne(0).any()) == learns for g in gradients)


def test_refuses_options_out_of_range_and_places_that_do_not_pair():
    with pytest.raises(ValueError, match=r"`alpha` must be a number from 0 to 1, got 2"):
        MIKD("0", "", alpha=2)
    with pytest.raises(ValueError, match=r"`width` must be .* got 0"):
        MIKD("0", "", width=0)
    with pytest.raises(ValueError, match=r"`temperature` must be .* got 0"):
        MIKD("0", "", temperature=0)
    with pytest.raises(SetupError, match="got 2 and 1"):
        MIKD(["0", "2"], "")
