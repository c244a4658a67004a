"""Claims about every objective on class scores: outputs, label sets, positions without a class, real training."""

import json

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.dense import labels_on
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import (
    class_correlation,
    class_mean_kl,
    decoupled_kl,
    hard_target_cross_entropy,
    interpolated_cross_entropy,
    jensen_shannon,
    normalized_cross_entropy,
    skew_kl,
    skew_reverse_kl,
    soft_target_kl,
    standardize_logits,
    symmetric_kl,
)
from lightning_kd.objectives import (
    CTKD,
    DISTKD,
    DKD,
    JSKD,
    NKD,
    TAIDKD,
    DeiTKD,
    LogitKD,
    Objective,
    SkewKLKD,
    SymmetricKLKD,
)
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation

IGNORED = 255

# Each objective, and its loss of student, teacher and class indices.
EACH = {
    "logit": (
        lambda **o: LogitKD(temperature=2.0, **o),
        lambda s, t, y, **m: soft_target_kl(s, t, temperature=2.0, **m),
    ),
    "lskd": (
        lambda **o: LogitKD(temperature=2.0, standardize=True, **o),
        lambda s, t, y, **m: soft_target_kl(standardize_logits(s), standardize_logits(t), temperature=2.0, **m),
    ),
    "dkd": (lambda **o: DKD(weight=1.0, **o), decoupled_kl),
    "nkd": (NKD, normalized_cross_entropy),
    "dist": (DISTKD, lambda s, t, y, **m: class_correlation(s, t, **m)),
    "ctkd": (
        lambda **o: CTKD(reversal=1.0, **o),
        lambda s, t, y, **m: soft_target_kl(s, t, temperature=1 + 20 / (1 + torch.exp(torch.tensor(-1.0))), **m),
    ),
    "taid": (
        lambda **o: TAIDKD(total_steps=10, **o),
        lambda s, t, y, **m: interpolated_cross_entropy(s, t, mix=0.4, **m),
    ),
    "symmetric": (SymmetricKLKD, lambda s, t, y, **m: symmetric_kl(s, t, **m)),
    "js": (JSKD, lambda s, t, y, **m: jensen_shannon(s, t, **m)),
    "skew": (SkewKLKD, lambda s, t, y, **m: skew_kl(s, t, **m)),
    "reverse": (lambda **o: SkewKLKD(reverse=True, **o), lambda s, t, y, **m: skew_reverse_kl(s, t, **m)),
    "hard": (
        lambda **o: DeiTKD(**{"student_output": None} | o),
        lambda s, t, y, **m: hard_target_cross_entropy(s, t, **m),
    ),
    "soft": (
        lambda **o: DeiTKD(**{"kind": "soft", "temperature": 3.0, "student_output": None} | o),
        lambda s, t, y, **m: class_mean_kl(s, t, temperature=3.0, **m),
    ),
}
every_objective = pytest.mark.parametrize("name", EACH)


def call(output):
    return Observation(Inputs(), output)


def labelled(labels):
    return Step(Progress(), (None, labels))


@every_objective
def test_computes_its_loss_from_outputs_and_labels(name):
    make, loss = EACH[name]
    student, teacher, labels = torch.randn(6, 5), torch.randn(6, 5), torch.randint(5, (6,))
    assert_close(make()(call(student), call(teacher), labelled(labels)), loss(student, teacher, labels))


@every_objective
def test_reads_outputs_wherever_they_are(name):
    make, loss = EACH[name]
    student, teacher, labels = torch.randn(6, 5), torch.randn(6, 5), torch.randint(5, (6,))
    expected = loss(student, teacher, labels)
    objective = make(student_output=1, teacher_output="scores")
    term = objective(call((teacher, student)), call({"scores": teacher, "logits": student}), labelled(labels))
    assert_close(term, expected)
    usual = make()(call({"logits": student}), call((teacher, None)), labelled(labels))
    assert_close(usual, expected)


@every_objective
def test_mixed_labels_count_as_their_largest_class(name):
    make, loss = EACH[name]
    student, teacher, mixed = torch.randn(6, 5), torch.randn(6, 5), torch.rand(6, 5)
    term = make()(call(student), call(teacher), labelled(mixed / mixed.sum(dim=1, keepdim=True)))
    assert_close(term, loss(student, teacher, mixed.argmax(dim=1)))


@every_objective
def test_dense_predictions_have_their_classes_on_axis_one(name):
    make, loss = EACH[name]
    student, teacher, labels = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3), torch.randint(5, (2, 8, 6))
    # Labels at twice the resolution: the nearest pixel is every other one.
    expected = loss(student.movedim(1, -1), teacher.movedim(1, -1), labels[:, ::2, ::2])
    assert_close(make()(call(student), call(teacher), labelled(labels)), expected)


@every_objective
@pytest.mark.parametrize("shape", [(6,), (2, 8, 6)])
def test_leaves_out_positions_without_a_class(name, shape):
    make, loss = EACH[name]
    grid = (4, 3) if len(shape) > 1 else ()
    student, teacher = torch.randn(shape[0], 5, *grid), torch.randn(shape[0], 5, *grid)
    labels = torch.randint(5, shape)
    labels[..., :2] = IGNORED
    student.requires_grad_()
    term = make(ignore_index=IGNORED)(call(student), call(teacher), labelled(labels))
    term.backward()
    nearest = labels_on(labels, grid)
    kept = nearest != IGNORED
    s, t = (z.detach().movedim(1, -1)[kept] for z in (student, teacher))
    assert_close(term.detach(), loss(s, t, nearest[kept]))
    assert student.grad.movedim(1, -1)[~kept].eq(0).all()
    assert student.grad.movedim(1, -1)[kept].ne(0).any()


@every_objective
def test_a_batch_without_any_class_gives_a_zero_that_keeps_the_graph(name):
    student = torch.randn(6, 5, requires_grad=True)
    step = labelled(torch.full((6,), IGNORED))
    term = EACH[name][0](ignore_index=IGNORED)(call(student), call(torch.randn(6, 5)), step)
    term.backward()
    assert term.item() == 0.0
    assert student.grad.eq(0).all()


@every_objective
def test_refuses_a_teacher_of_other_classes(name):
    with pytest.raises(ShapeError, match="`teacher` tells 4 classes apart and the student 5"):
        EACH[name][0]()(call(torch.randn(6, 5)), call(torch.randn(6, 4)), labelled(torch.zeros(6).long()))


@pytest.mark.parametrize("name", ["dkd", "nkd"])
def test_asks_for_labels_where_it_needs_them(name):
    with pytest.raises(SetupError, match="`labels`: 1 is not in the batch"):
        EACH[name][0]()(call(torch.randn(6, 5)), call(torch.randn(6, 5)), Step(Progress(), (torch.zeros(6),)))


def test_asks_for_labels_to_leave_out_positions_only():
    outputs = call(torch.randn(6, 5)), call(torch.randn(6, 5))
    assert LogitKD()(*outputs, Step()).isfinite()
    with pytest.raises(SetupError, match="`labels`: 1 is not in the batch"):
        LogitKD(ignore_index=IGNORED)(*outputs, Step())


@every_objective
def test_works_without_lightning_and_at_batch_one_where_it_can(name):
    student, teacher = nn.Linear(4, 5), nn.Linear(4, 5)
    allow = ("zero",) if name == "dist" else ()
    distiller = Distiller(student, teacher, [EACH[name][0]()], allow=allow)
    x, y = torch.randn(1, 4), torch.tensor([2])
    with distiller.watch() as calls:
        task = nn.functional.cross_entropy(student(x), y)
    losses = distiller.losses(task, calls, batch=(x, y))
    losses.total.backward()
    assert losses.total.isfinite()
    assert (losses.terms[distiller.objectives.popitem()[0]].item() == 0.0) == (name == "dist")


@pytest.mark.parametrize(("student", "teacher"), [("test_resnet", "test_vit"), ("test_vit", "test_resnet")])
def test_all_train_together_across_families(train_three_steps, net, student, teacher):
    objectives = [make(name=name) for name, (make, _) in EACH.items()]
    trained = train_three_steps(net(student), net(teacher), objectives)
    for name in EACH:
        assert trained.metrics[f"kd/{name}"] > 0


@every_objective
def test_reaches_the_student_alone(name, student_gradient):
    student, teacher = nn.Linear(4, 5), nn.Linear(4, 5)
    distiller = Distiller(student, teacher, [EACH[name][0]()], task_weight=0.0)
    reached = student_gradient(distiller, torch.randn(6, 4), batch=(None, torch.randint(5, (6,))))
    assert reached == {"weight", "bias"}
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("kind", [CTKD, DISTKD, DKD, JSKD, NKD, TAIDKD, DeiTKD, LogitKD, SkewKLKD, SymmetricKLKD])
def test_can_be_named_in_yaml_with_its_defaults(kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objectives", type=list[Objective])
    options = parser.parse_args(
        ["--objectives", json.dumps([{"class_path": f"lightning_kd.objectives.{kind.__name__}"}])]
    )
    (objective,) = parser.instantiate(options).objectives
    assert type(objective) is kind
    assert repr(objective) == repr(kind())
    assert f"weight={getattr(kind().weight, '__name__', kind().weight)}" in repr(objective)
