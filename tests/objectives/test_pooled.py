"""Claims about `PooledCosineKD`; with a HuBERT as teacher, and its mask: tests/recipes/test_keywords.py."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller, Tap
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses.frames import mean_of_frames
from lightning_kd.objectives import PooledCosineKD

WAVEFORM = torch.randn(3, 80, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """Frames of ``stride`` samples, and class scores of their mean."""

    def __init__(self, width, stride):
        super().__init__()
        self.frames = nn.Conv1d(1, width, stride, stride=stride)
        self.last = nn.Identity()
        self.head = nn.Linear(width, 2)

    def forward(self, waveform):
        return self.head(self.last(self.frames(waveform[:, None]).transpose(1, 2)).mean(1))


def term(student, teacher, objective):
    distiller = Distiller(student, teacher, [objective], allow=("zero",)).build([WAVEFORM])
    with distiller.watch() as calls:
        student(WAVEFORM)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name]


def test_compares_the_means_of_frames_of_different_rates():
    student, teacher = Encoder(6, 8), Encoder(6, 5)
    means = [network.frames(WAVEFORM[:, None]).mean(2) for network in (student, teacher)]
    expected = 1 - torch.cosine_similarity(*means).mean()
    assert_close(term(student, teacher, PooledCosineKD("last", "last")), expected)


def test_takes_the_input_of_a_classifier_as_it_is():
    student, teacher = Encoder(6, 8), Encoder(6, 5)
    pooled = Tap("head", at="input")
    assert_close(
        term(student, teacher, PooledCosineKD(pooled, pooled)), term(student, teacher, PooledCosineKD("last", "last"))
    )


def test_is_zero_when_student_equals_teacher():
    student = Encoder(6, 8)
    teacher = Encoder(6, 8)
    teacher.load_state_dict(student.state_dict())
    assert term(student, teacher, PooledCosineKD("last", "last")).item() == pytest.approx(0.0, abs=1e-6)


def test_projects_the_student_to_the_width_of_the_teacher():
    student, teacher = Encoder(6, 8), Encoder(4, 5)
    distiller = Distiller(student, teacher, [PooledCosineKD("last", "last")]).build([WAVEFORM])
    assert [tuple(p.shape) for p in distiller.adapters.parameters()] == [(4, 6), (4,)]
    with pytest.raises(ShapeError, match="equal widths, got student 6 and teacher 4: use projection='auto'"):
        term(student, teacher, PooledCosineKD("last", "last", projection="none"))


def test_frames_that_do_not_count_reach_neither_value_nor_gradient():
    frames = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    spoilt = torch.where(mask[..., None], frames, torch.nan)
    mean_of_frames(spoilt, mask).square().sum().backward()
    alone = torch.stack([frames[0, :2].mean(0), frames[1].mean(0)])
    assert_close(mean_of_frames(spoilt, mask), alone)
    expected = torch.autograd.grad(alone.square().sum(), frames)[0]
    assert_close(frames.grad, expected)


def test_no_frames_give_zeros_and_all_give_the_mean():
    frames = torch.randn(1, 4, 3)
    assert torch.equal(mean_of_frames(frames, torch.zeros(1, 4, dtype=torch.bool)), torch.zeros(1, 3))
    assert_close(mean_of_frames(frames, torch.ones(1, 4, dtype=torch.bool)), mean_of_frames(frames, None))


def test_means_of_many_half_frames_do_not_overflow():
    frames = torch.full((1, 2000, 2), 60.0, dtype=torch.float16)  # their sum is 120,000, float16 ends at 65,504
    mask = torch.ones(1, 2000, dtype=torch.bool)
    assert torch.equal(mean_of_frames(frames, mask), torch.full((1, 2), 60.0, dtype=torch.float16))


def test_refuses_an_unknown_projection_and_unequal_numbers_of_places():
    with pytest.raises(ValueError, match="`projection` must be one of 'auto', 'always', 'none', got 'mlp'"):
        PooledCosineKD("a", "b", projection="mlp")
    with pytest.raises(SetupError, match="got 1 and 2: list a teacher tap for each"):
        PooledCosineKD("a", ["b", "c"])
