"""UNIC: ladders from all blocks, standardised tokens, teachers left out by sample, resumable."""

import math

import pytest
import timm
import torch
from torch import nn

from lightning_kd import Distiller, EnsembleTeacher, Progress, Tap
from lightning_kd.errors import SetupError
from lightning_kd.losses import cosine_smooth_l1, dropped_mean
from lightning_kd.objectives import UNICKD
from lightning_kd.objectives.unic import Ladder, Standardisation, standardisation_rate
from lightning_kd.step import Step

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BLOCKS = ["blocks.0", "blocks.1"]
PLACES = {"one": "one.norm", "two": "two.norm"}
NOW = Progress(step=3, total_steps=10)


def vit(seed):
    torch.manual_seed(seed)
    return timm.create_model("test_vit", img_size=64, num_classes=0)


def setting(**options):
    student = vit(0)
    teacher = EnsembleTeacher({"one": vit(1), "two": vit(2)})
    term = UNICKD(BLOCKS, PLACES, hidden=8, last_hidden=16, **options)
    distiller = Distiller(student, teacher, [term], task_weight=0.0).build([IMAGES])
    return student, term, distiller


def look(student, distiller):
    with distiller.watch(NOW) as calls:
        student(IMAGES)
    return distiller.teacher.observe(calls[0].inputs, stop=True), calls


def test_the_share_of_a_batch_falls_along_a_cosine():
    rates = [standardisation_rate(Progress(step, 0, 8)) for step in (0, 2, 4, 8, 9)]
    expected = [0.001 + 0.999 * (1 + math.cos(math.pi * done)) / 2 for done in (0, 0.25, 0.5, 1, 1)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 1.0
    assert rates[-1] == 0.001
    with pytest.raises(SetupError, match="give the Trainer max_epochs or max_steps"):
        standardisation_rate(Progress(step=1))


def test_tokens_are_normalised_by_the_statistics_before_they_are_updated():
    layer = Standardisation(2)
    first, second = torch.randn(4, 3, 2) * 3 + 1, torch.randn(4, 3, 2)
    torch.testing.assert_close(layer(first, 1.0), first)  # mean 0, deviation 1
    rows = first.flatten(0, 1)
    expected = (second - rows.mean(0)) / (rows.std(0) + 2e-6)
    torch.testing.assert_close(layer(second, 0.25), expected)
    torch.testing.assert_close(layer.mean, 0.75 * rows.mean(0) + 0.25 * second.flatten(0, 1).mean(0))


def test_a_ladder_adds_up_the_projections_of_all_blocks():
    ladder = Ladder(4, 5, (8, 16))
    blocks = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    torch.testing.assert_close(ladder(blocks), ladder.rungs[0](blocks[0]) + ladder.rungs[1](blocks[1]))
    assert [rung[0].out_features for rung in ladder.rungs] == [8, 16]
    assert all(bool((m.bias == 0).all()) for m in ladder.modules() if isinstance(m, nn.Linear))


def test_the_term_is_the_one_written_out():
    student, term, distiller = setting(drop=0.0)
    teacher, calls = look(student, distiller)
    losses = []
    for name in PLACES:
        tokens, of_kinds = teacher.features[Tap(f"{name}.norm")], []
        for kind, part in (("class", slice(0, 1)), ("patch", slice(1, None))):
            # Nothing was seen before: mean 0, deviation 1.
            target = tokens[:, part] / (1 + 1e-6)
            predicted = term.ladders[f"{name}_{kind}"]([calls[0].features[Tap(block)][:, part] for block in BLOCKS])
            of_kinds.append(cosine_smooth_l1(predicted, target, reduction="none").mean(1))
        losses.append((of_kinds[0] + of_kinds[1]) / 2)
    value = distiller.losses(torch.zeros(()), calls, NOW).terms["unic"]
    torch.testing.assert_close(value, torch.stack(losses).mean())


def test_the_same_step_makes_the_same_choice_and_another_one_another():
    losses = torch.rand(2, 64)

    def choose(step):
        from lightning_kd.objectives.unic import _generator

        return dropped_mean(losses, generator=_generator(Progress(step=step)))

    assert choose(5) == choose(5)
    assert choose(5) != choose(6)


def test_all_ladders_and_the_student_learn_and_the_statistics_are_saved():
    student, term, distiller = setting(drop=0.0)
    _, calls = look(student, distiller)
    distiller.losses(torch.zeros(()), calls, NOW).total.backward()
    assert all(bool(p.grad.ne(0).any()) for p in term.ladders.parameters())
    assert bool(student.blocks[0].attn.qkv.weight.grad.ne(0).any())
    saved = distiller.state_dict()["adapters"]
    assert bool(saved["unic.standardisations.one_patch.mean"].ne(0).any())


def test_only_the_teachers_tokens_are_needed():
    student, term, distiller = setting()
    teacher, _ = look(student, distiller)
    assert teacher.output is None
    assert not term.needs_teacher_output
    assert term(*(look(student, distiller)[1][0], teacher, Step(progress=NOW))).ndim == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(SetupError, match="must name a place each at least"):
        UNICKD([], PLACES)
    with pytest.raises(ValueError, match=r"`drop` must be a number from 0 to 1, got 2"):
        UNICKD(BLOCKS, PLACES, drop=2)
    with pytest.raises(ValueError, match=r"`hidden` .* got 0"):
        UNICKD(BLOCKS, PLACES, hidden=0)
    cnn = EnsembleTeacher({"one": timm.create_model("test_resnet")})
    with pytest.raises(SetupError, match=r"`one\.layer4` must give tokens with a class token first, got layout NCHW"):
        Distiller(vit(0), cnn, [UNICKD(BLOCKS, {"one": "one.layer4"})]).build([IMAGES])
    other = timm.create_model("test_vit", img_size=96, num_classes=0)
    large = EnsembleTeacher({"one": other})
    large.members["one"].input_transform = lambda x: nn.functional.interpolate(x, size=(96, 96))
    with pytest.raises(SetupError, match=r"compares patch by patch, got grids \[\(4, 4\), \(6, 6\)\]"):
        Distiller(vit(0), large, [UNICKD(BLOCKS, {"one": "one.norm"})]).build([IMAGES])
