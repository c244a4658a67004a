"""Claims about CTKD and TAIDKD beyond those of test_logits.py."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.losses import interpolated_cross_entropy
from lightning_kd.objectives import CTKD, TAIDKD
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation


def observed(*shape):
    return Observation(Inputs(), torch.randn(*shape))


def at(step=0, epoch=0, total=None):
    return Step(Progress(step=step, epoch=epoch, total_steps=total))


def test_the_temperature_starts_at_the_published_value():
    # The sigmoid of 1 is 0.731059.
    assert CTKD().temperature.item() == pytest.approx(15.6212, rel=1e-5)


def test_the_temperature_climbs_what_the_student_descends():
    student, teacher = observed(8, 10), observed(8, 10)
    objective = CTKD(reversal=1.0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=100.0)
    before = objective(student, teacher, at())
    before.backward()
    optimizer.step()
    assert objective(student, teacher, at()).item() > before.item()


# Epochs are published from 1: the first has (1 - cos 18°) / 2 = sin² 9°.
@pytest.mark.parametrize(
    ("epoch", "strength"), [(0, math.sin(math.pi / 20) ** 2), (4, 0.5), (9, 1.0), (10, 1.0), (100, 1.0)]
)
def test_the_reversal_grows_as_half_a_cosine_over_ten_epochs(epoch, strength):
    student, teacher = observed(8, 10), observed(8, 10)
    objective, full = CTKD(), CTKD(reversal=1.0)
    objective(student, teacher, at(epoch=epoch)).backward()
    full(student, teacher, at()).backward()
    assert full.theta.grad.item() != 0.0
    assert_close(objective.theta.grad, strength * full.theta.grad)


def test_the_gradient_includes_the_squared_temperature():
    # d/dT of T² KL(T) by finite differences, times the sigmoid's slope, times the span, with the sign reversed.
    objective = CTKD(reversal=1.0).double()
    student, teacher = (Observation(Inputs(), torch.randn(4, 6, dtype=torch.float64)) for _ in range(2))
    objective(student, teacher, at()).backward()
    values = []
    for moved in (1e-5, -1e-5):
        nudged = CTKD().double()
        nudged.theta.data += moved
        values.append(nudged(student, teacher, at()).item())
    assert objective.theta.grad.item() == pytest.approx(-(values[0] - values[1]) / 2e-5, rel=1e-6)


def test_the_students_gradient_is_not_reversed():
    logits = torch.randn(8, 10, requires_grad=True)
    objective = CTKD(reversal=1.0)
    teacher = observed(8, 10)
    term = objective(Observation(Inputs(), logits), teacher, at())
    (gradient,) = torch.autograd.grad(term, logits)
    assert objective(Observation(Inputs(), logits - 0.1 * gradient), teacher, at()) < term


def test_the_temperature_is_an_adapter_from_the_start():
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3), [CTKD()])
    assert [name for name, _ in distiller.adapters.named_parameters()] == ["ctkd.theta"]
    assert not distiller.needs_examples


def test_ctkd_refuses_options_out_of_range():
    with pytest.raises(ValueError, match=r"`span` must be .* got 0"):
        CTKD(span=0)
    with pytest.raises(ValueError, match=r"`lowest` must be .* got -1"):
        CTKD(lowest=-1)
    with pytest.raises(ValueError, match=r"`reversal` must be .* got -1\.0"):
        CTKD(reversal=-1.0)


def test_the_target_moves_as_the_schedule_says():
    objective, teacher = TAIDKD(rate=0.0), observed(4, 5)
    shares = []
    for step in range(5):
        objective(observed(4, 5), teacher, at(step=step, total=10))
        shares.append(objective.mix.item())
    # The first call only remembers its loss; then 0.4 + 0.6 * step / 10.
    assert shares == pytest.approx([0.4, 0.46, 0.52, 0.58, 0.64], rel=1e-6)


def test_a_step_uses_the_share_of_the_steps_before_it():
    objective, student, teacher = TAIDKD(total_steps=10), observed(4, 5), observed(4, 5)
    for step in range(4):
        share = objective.mix.clone()
        term = objective(student, teacher, at(step=step))
        assert_close(term, interpolated_cross_entropy(student.output, teacher.output, mix=share))


def test_the_state_survives_a_checkpoint():
    first, second, teacher = TAIDKD(total_steps=10), TAIDKD(total_steps=10), observed(4, 5)
    for step in range(3):
        first(observed(4, 5), teacher, at(step=step))
    second.load_state_dict(first.state_dict())
    student = observed(4, 5)
    assert_close(second(student, teacher, at(step=3)), first(student, teacher, at(step=3)), rtol=0.0, atol=0.0)
    assert second.mix == first.mix > 0.4


def test_a_number_of_steps_that_is_given_wins():
    objective, teacher = TAIDKD(total_steps=4, rate=0.0), observed(4, 5)
    for step in (0, 2):
        objective(observed(4, 5), teacher, at(step=step, total=1000))
    assert objective.mix.item() == pytest.approx(0.7, rel=1e-6)


def test_asks_for_the_number_of_steps_outside_a_trainer():
    with pytest.raises(SetupError, match=r"pass TAIDKD\(total_steps=\.\.\.\)"):
        TAIDKD()(observed(4, 5), observed(4, 5), at())


def test_takes_the_number_of_steps_from_the_trainer(train_three_steps, net):
    trained = train_three_steps(net("test_resnet"), net("test_vit"), [TAIDKD(rate=0.0)])
    # Steps 0, 1, 2 of 3: 0.4 + 0.6 * 2 / 3
    assert trained.kd._distiller.objectives["taid"].mix.item() == pytest.approx(0.8, rel=1e-6)


def test_taid_refuses_options_out_of_range():
    for option in ("start", "end", "decay", "rate", "total_steps"):
        with pytest.raises(ValueError, match=rf"`{option}` must be .* got -1"):
            TAIDKD(**{option: -1})
