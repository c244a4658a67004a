"""Claims about the objectives by which exits learn from the end of their network."""

import numpy as np
import pytest
import timm
import torch
from scipy.special import log_softmax
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.losses import channel_distribution_kl, channel_gram_mse, exit_cross_entropy, soft_target_kl
from lightning_kd.objectives import LGViTKD, MultiExitKD
from lightning_kd.objectives.exits import _map_mse
from lightning_kd.step import Step
from lightning_kd.students import EarlyExits, Exit
from lightning_kd.taps import Inputs, Observation

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
NOTHING = Observation(Inputs())
LOCAL_AND_GLOBAL = [
    Exit("blocks.0"),
    Exit("blocks.1"),
    Exit("blocks.2"),
    Exit("blocks.3", "global", 2),
    Exit("blocks.4", "global", 3),
]


def exits_of(name="test_vit", exits=LOCAL_AND_GLOBAL, final="norm"):
    size = {"img_size": 64} if "vit" in name else {}
    return EarlyExits(timm.create_model(name, num_classes=10, **size), exits, final=final, example=IMAGES)


def saying(*logits):
    return Observation(Inputs(), output=logits)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.1231441658), (4.0, 0.2451207613)])
def test_an_exit_learns_the_final_prediction(temperature, expected):
    term = MultiExitKD(temperature=temperature)(saying(ZS, ZT), NOTHING, Step())
    assert term.item() == pytest.approx(expected, rel=1e-9)


def test_final_teaches_every_exit_and_next_the_one_before():
    a, b, c = torch.randn(3, 2, 5, dtype=torch.float64)
    of_final = (soft_target_kl(a, c, temperature=3.0) + soft_target_kl(b, c, temperature=3.0)) / 2
    of_next = (soft_target_kl(a, b, temperature=3.0) + soft_target_kl(b, c, temperature=3.0)) / 2
    assert_close(MultiExitKD()(saying(a, b, c), NOTHING, Step()), of_final)
    assert_close(MultiExitKD(target="next")(saying(a, b, c), NOTHING, Step()), of_next)


def test_the_ensemble_teaches_all():
    a, b = ZS.float(), ZT.float()
    mean = (a + b) / 2
    expected = (soft_target_kl(a, mean, temperature=2.0) + soft_target_kl(b, mean, temperature=2.0)) / 2
    assert_close(MultiExitKD(target="ensemble", temperature=2.0)(saying(a, b), NOTHING, Step()), expected)


@pytest.mark.parametrize(("target", "learns"), [("final", False), ("next", False), ("ensemble", True)])
def test_the_end_learns_from_the_ensemble_only(target, learns):
    exit_, final = torch.randn(2, 2, 5).unbind()
    final = final.clone().requires_grad_()
    exit_ = exit_.clone().requires_grad_()
    MultiExitKD(target=target)(saying(exit_, final), NOTHING, Step()).backward()
    assert exit_.grad.count_nonzero() > 0
    assert (final.grad is not None and final.grad.count_nonzero() > 0) == learns


@pytest.mark.parametrize("target", ["final", "next", "ensemble"])
def test_is_zero_when_all_agree(target):
    assert MultiExitKD(target=target)(saying(ZS, ZS, ZS), NOTHING, Step()).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("target", ["final", "next", "ensemble"])
def test_classes_of_dense_predictions_are_on_axis_one(target):
    exit_, final = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64)
    rows = [z.movedim(1, -1).flatten(0, 2) for z in (exit_, final)]
    objective = MultiExitKD(target=target)
    assert_close(objective(saying(exit_, final), NOTHING, Step()), objective(saying(*rows), NOTHING, Step()))


@pytest.mark.parametrize("output", [ZS, (ZS,), {"logits": ZS}, (ZS, "text")])
def test_refuses_an_output_that_is_no_exits(output):
    with pytest.raises(TapError, match="a sequence of at least two tensors, got"):
        MultiExitKD()(Observation(Inputs(), output=output), NOTHING, Step())


def test_refuses_exits_of_other_label_sets():
    with pytest.raises(ShapeError, match=r"\(2, 3\), \(2, 2\)"):
        MultiExitKD()(saying(ZS, ZT[:, :2]), NOTHING, Step())


def term_and_calls(objective, student):
    distiller = Distiller(student, None, [objective])
    distiller.attach()
    with distiller.watch() as calls:
        student(IMAGES)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name], calls[0]


def only(**weights):
    return {"prediction_weight": 0.0, "heterogeneous_weight": 0.0, "homogeneous_weight": 0.0} | weights


def test_predictions_are_compared_by_the_mean_over_all_elements():
    term, call = term_and_calls(LGViTKD(**only(prediction_weight=0.3)), exits_of())
    *exits, final = (z.detach().double().numpy() / 2 for z in call.output)
    log_p = log_softmax(final, axis=1)
    each = [4 * (np.exp(log_p) * (log_p - log_softmax(z, axis=1))).mean() for z in exits]
    assert term.item() == pytest.approx(0.3 * sum(each), rel=1e-5)


def test_first_and_last_exit_of_each_kind_learn_the_final_features():
    student = exits_of()
    objective = LGViTKD(**only(heterogeneous_weight=1.0))
    term, call = term_and_calls(objective, student)
    locals_, globals_ = call_features(call, objective)
    tokens = call.features[objective.student_taps[-1]][:, 1:]
    final = tokens.transpose(1, 2).reshape(2, 64, 4, 4)
    coarse = final.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
    expected = sum(channel_distribution_kl(s, final) for s in (locals_[0], locals_[2]))
    expected = expected + sum(channel_distribution_kl(s, coarse) for s in globals_)
    assert_close(term, expected)


def call_features(call, objective):
    maps = [call.features[tap] for tap in objective.student_taps[:-1]]
    return maps[:3], maps[3:]


def test_exits_of_one_kind_learn_from_the_last():
    objective = LGViTKD(**only(homogeneous_weight=1.0))
    term, call = term_and_calls(objective, exits_of())
    locals_, globals_ = call_features(call, objective)
    expected = sum((s - locals_[2]).square().mean() for s in locals_[:2]) + channel_gram_mse(*globals_)
    assert_close(term, expected)


@pytest.mark.parametrize("detach", [True, False])
def test_only_the_form_of_the_code_moves_the_last_exit(detach):
    student = exits_of()
    term, _ = term_and_calls(LGViTKD(detach_exits=detach, **only(homogeneous_weight=1.0)), student)
    term.backward()
    moved = [any(p.grad is not None and p.grad.any() for p in head.features.parameters()) for head in student.exits]
    assert moved == [True, True, not detach, True, not detach]


def test_both_forms_have_the_same_value():
    student = exits_of()
    values = [term_and_calls(LGViTKD(detach_exits=detach), student)[0] for detach in (True, False)]
    assert_close(*values)


def test_the_form_of_the_code_has_the_gradient_of_the_plain_error():
    a, b = torch.randn(2, 1, 3, 2, 2, dtype=torch.float64).unbind()
    a.requires_grad_()
    b.requires_grad_()
    objective = LGViTKD(detach_exits=False)
    objective._drawn(_map_mse, a, b).backward()
    expected = (2 / a.numel()) * (a - b).detach()
    assert_close(a.grad, expected)
    assert_close(b.grad, -expected)


def test_the_end_of_the_network_gets_no_gradient():
    student = exits_of()
    term, _ = term_and_calls(LGViTKD(), student)
    term.backward()
    assert student.backbone.head.weight.grad is None
    assert student.backbone.norm.weight.grad is None
    assert student.backbone.blocks[5].attn.qkv.weight.grad is None
    assert student.backbone.blocks[4].attn.qkv.weight.grad.count_nonzero() > 0


def test_a_frozen_backbone_leaves_the_exits_to_learn():
    student = exits_of()
    student.backbone.requires_grad_(False)
    distiller = Distiller(student, None, [LGViTKD()], allow=("frozen",))
    distiller.attach()
    with distiller.watch() as calls:
        student(IMAGES)
    distiller.losses(torch.zeros(()), calls).total.backward()
    learnt = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {name for name, _ in student.exits.named_parameters(prefix="exits")}


def test_one_exit_has_nobody_of_its_kind_to_learn_from():
    term, _ = term_and_calls(LGViTKD(), exits_of(exits=[Exit("blocks.2")]))
    assert term.item() > 0


def test_is_finite_under_bfloat16_autocast_at_batch_one():
    student = exits_of()
    distiller = Distiller(student, None, [LGViTKD(), MultiExitKD()])
    distiller.attach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with distiller.watch() as calls:
            student(IMAGES[:1])
        losses = distiller.losses(torch.zeros(()), calls)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)


CONVOLUTIONAL = [Exit("layer1"), Exit("layer2"), Exit("layer3", "global", 2)]


@pytest.mark.parametrize("objective", [LGViTKD, MultiExitKD])
@pytest.mark.parametrize(
    ("name", "exits", "final"), [("test_vit", LOCAL_AND_GLOBAL, "norm"), ("test_resnet", CONVOLUTIONAL, "layer4")]
)
def test_trains_without_a_teacher(train_three_steps, objective, name, exits, final):
    student = exits_of(name, exits, final)
    result = train_three_steps(student, None, [objective()])
    assert result.metrics[f"kd/{objective().name}"] > 0


def test_exit_cross_entropy_is_the_task_of_the_published_recipe():
    student = exits_of()
    distiller = Distiller(student, None, [LGViTKD()], task_weight=0.7)
    distiller.attach()
    with distiller.watch() as calls:
        outputs = student(IMAGES)
    task = exit_cross_entropy(outputs[:-1], torch.tensor([1, 2]))
    losses = distiller.losses(task, calls)
    assert_close(losses.total, 0.7 * task + losses.terms["lgvit"])


def test_refuses_a_student_without_exits():
    with pytest.raises(SetupError, match="exactly one EarlyExits, found 0: wrap the network"):
        Distiller(timm.create_model("test_vit", img_size=64), None, [LGViTKD()]).attach()


@pytest.mark.parametrize("option", ["prediction_weight", "heterogeneous_weight", "homogeneous_weight"])
def test_refuses_a_negative_factor(option):
    with pytest.raises(ValueError, match=f"`{option}` must be .* got -1"):
        LGViTKD(**{option: -1.0})


def test_refuses_unknown_targets_and_temperatures():
    with pytest.raises(ValueError, match="got 'deepest'"):
        MultiExitKD(target="deepest")
    for objective in (MultiExitKD, LGViTKD):
        with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, got 0"):
            objective(temperature=0)
