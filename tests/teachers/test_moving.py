"""Teachers that follow the student, and one that never knew anything."""

import copy

import pytest
import torch
from torch import nn

from lightning_kd import Distiller, LogitKD, Progress, Ramp, Tap
from lightning_kd.errors import SetupError
from lightning_kd.taps import Inputs
from lightning_kd.teachers import EMATeacher, PastTeacher, random_teacher


def network(value=0.0):
    """One weight, and a BatchNorm whose statistics are buffers."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(net[0].weight, value)
    return net


def step(student, value, mean):
    nn.init.constant_(student[0].weight, value)
    student[1].running_mean.fill_(mean)
    student[1].num_batches_tracked += 1


@pytest.mark.parametrize(("buffers", "means"), [("copy", (8.0, 16.0)), ("average", (2.0, 5.5))])
def test_the_average_moves_by_one_minus_the_momentum(buffers, means):
    student, teacher = network(), EMATeacher(0.75, buffers=buffers)
    teacher.prepare(student)
    teacher.on_fit_start(student)
    # 0.75 * 0 + 0.25 * 4 = 1, then 0.75 * 1 + 0.25 * 9 = 3; means likewise 2 and 0.75 * 2 + 0.25 * 16 = 5.5.
    for taken, (value, mean, average) in enumerate([(4.0, 8.0, 1.0), (9.0, 16.0, 3.0)], start=1):
        step(student, value, mean)
        teacher.on_step_end(student, Progress(step=taken))
        assert teacher.module[0].weight.item() == pytest.approx(average)
        assert teacher.module[1].running_mean.item() == pytest.approx(means[taken - 1])
        assert teacher.module[1].num_batches_tracked == taken


def test_momentum_may_follow_a_schedule():
    student, teacher = network(), EMATeacher(Ramp(0.0, 1.0, over=2, unit="step"))
    teacher.prepare(student)
    for taken, expected in [(1, 2.0), (2, 2.0)]:  # half of 4, then nothing
        step(student, 4.0, 0.0)
        teacher.on_step_end(student, Progress(step=taken))
        assert teacher.module[0].weight.item() == expected


def test_the_copy_is_no_part_of_the_student_and_cannot_train():
    student, teacher = network(1.0), EMATeacher()
    assert teacher.module is None
    teacher.prepare(student)
    assert not {id(p) for p in student.parameters()} & {id(p) for p in teacher.module.parameters()}
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert not teacher.module.train().training or not teacher.observe(Inputs.of(torch.ones(2, 1))).output.requires_grad
    assert all(p.requires_grad for p in student.parameters())


def test_it_starts_with_the_weights_that_the_student_starts_with():
    student, teacher = network(1.0), EMATeacher()
    teacher.prepare(student)
    step(student, 5.0, 2.0)  # what DDP or a checkpoint did in between
    teacher.on_fit_start(student)
    assert teacher.module[0].weight.item() == 5.0
    assert teacher.module[1].running_mean.item() == 2.0
    step(student, 7.0, 2.0)
    teacher.on_fit_start(student)  # a second fit goes on
    assert teacher.module[0].weight.item() == 5.0


def test_the_past_is_renewed_every_so_many_epochs():
    student, teacher = network(1.0), PastTeacher(every=2)
    teacher.prepare(student)
    teacher.on_fit_start(student)
    seen = []
    for epoch in range(1, 5):
        step(student, float(epoch), 0.0)
        teacher.on_step_end(student, Progress(step=epoch))
        teacher.on_epoch_end(student, Progress(epoch=epoch))
        seen.append(teacher.module[0].weight.item())
    assert seen == [1.0, 2.0, 2.0, 4.0]


@pytest.mark.parametrize("make", [EMATeacher, PastTeacher])
def test_the_state_is_tensors_that_restore_the_teacher(make):
    student, teacher = network(1.0), make()
    teacher.prepare(student)
    teacher.on_fit_start(student)
    step(student, 3.0, 4.0)
    teacher.on_step_end(student, Progress(step=1))
    teacher.on_epoch_end(student, Progress(epoch=1))
    state = copy.deepcopy(teacher.training_state())
    other = make()
    other.prepare(network())
    other.load_training_state(state)
    other.on_fit_start(network(9.0))  # resuming: the student's weights are not taken again
    for name, value in teacher.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name]), name


def test_taps_are_places_in_the_student():
    student, teacher = network(2.0), EMATeacher()
    teacher.prepare(student)
    teacher.tap([Tap("0")])
    assert teacher.observe(Inputs.of(torch.ones(3, 1)), stop=True).features[Tap("0")].flatten().tolist() == [2.0] * 3
    teacher.untap()
    assert not teacher.module[0]._forward_hooks


def test_a_bare_loop_tells_the_teacher_of_each_step():
    torch.manual_seed(0)
    student = nn.Linear(4, 3)
    distiller = Distiller(student, EMATeacher(0.5), [LogitKD(temperature=1.0)], allow=("zero",))
    distiller.start()
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    average = student.weight.detach().clone()
    for taken in range(1, 4):
        x, y = torch.randn(8, 4), torch.randint(3, (8,))
        with distiller.watch(Progress(step=taken - 1)) as calls:
            task = nn.functional.cross_entropy(student(x), y)
        optimizer.zero_grad()
        distiller.losses(task, calls).total.backward()
        optimizer.step()
        distiller.end_step(Progress(step=taken))
        average = average * 0.5 + student.weight.detach() * 0.5
        torch.testing.assert_close(distiller.teacher.module.weight, average)


def test_random_teachers_are_equal_everywhere_and_leave_the_generators_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (random_teacher(lambda: nn.Linear(3, 2), seed=seed).module.weight for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"`momentum` must be from 0 to 1, .* got 1\.5"):
        EMATeacher(1.5)
    with pytest.raises(ValueError, match="`buffers` must be one of 'copy', 'average', got 'none'"):
        EMATeacher(buffers="none")
    with pytest.raises(ValueError, match=r"`every` .* got 0"):
        PastTeacher(every=0)
    with pytest.raises(SetupError, match="EMATeacher has no student yet"):
        EMATeacher().observe(Inputs.of(torch.zeros(1)))
    teacher = EMATeacher(lambda progress: 2.0)
    teacher.prepare(network())
    with pytest.raises(ValueError, match=r"`momentum` .* got 2\.0"):
        teacher.on_step_end(network(), Progress(step=1))
    with pytest.raises(SetupError, match="holds no state of a EMATeacher"):
        teacher.load_training_state({})
    with pytest.raises(SetupError, match=r"of another student: .0\.weight."):
        teacher.load_training_state({"weights": {}})
