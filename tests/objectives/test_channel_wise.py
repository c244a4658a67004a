"""Claims about `CWDKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import channel_wise_kl
from lightning_kd.objectives import CWDKD


class Segmenter(nn.Module):
    """Class scores at a quarter of the resolution."""

    def __init__(self, width, classes=5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        return self.head(self.body(x))


def test_the_published_values_for_class_scores_are_the_defaults():
    objective = CWDKD()
    assert (objective.temperature, objective.weight) == (4.0, 3.0)
    assert (objective.student_taps[0].path, objective.teacher_taps[0].path) == ("", "")


def test_is_the_loss_between_the_outputs(over_features):
    student, teacher = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    term = over_features(CWDKD(temperature=2.0), [student], [teacher])([student], [teacher])
    assert_close(term, channel_wise_kl(student, teacher, temperature=2.0))
    assert term > 0


def test_is_zero_at_equality_and_sums_over_pairs(over_features):
    students, teachers = [torch.randn(2, 5, 4, 4) for _ in range(2)], [torch.randn(2, 5, 4, 4) for _ in range(2)]
    term = over_features(CWDKD(["a", "b"], ["c", "d"]), students, teachers)
    assert term(students, students).item() == 0.0
    expected = [channel_wise_kl(s, t, temperature=4.0) for s, t in zip(students, teachers, strict=True)]
    assert_close(term(students, teachers), expected[0] + expected[1])


def test_pixels_without_a_label_do_not_matter(over_features):
    student, teacher = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    labels = torch.randint(5, (3, 16, 16))
    labels[0, :8] = 255
    labels[1] = 255
    term = over_features(CWDKD(ignore_index=255), [student], [teacher])
    before = term([student], [teacher], batch=(None, labels))
    student[0, :, :2] += torch.randn(5, 2, 4)
    teacher[1] += torch.randn(5, 4, 4)
    assert term([student], [teacher], batch=(None, labels)) == before
    student[0, :, 2:] += torch.randn(5, 2, 4)
    assert term([student], [teacher], batch=(None, labels)) != before


def test_is_zero_where_no_pixel_has_a_label(over_features):
    student, teacher = torch.randn(2, 5, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4)
    loss = over_features(CWDKD(ignore_index=255), [student], [teacher])(
        [student], [teacher], batch=(None, torch.full((2, 16, 16), 255))
    )
    loss.backward()
    assert loss.item() == 0.0
    assert (student.grad == 0).all()


def test_trains_a_segmentation_network_with_ignored_pixels(train_three_steps):
    labels = torch.randint(5, (12, 4, 4))
    labels[::2, :2] = -100
    labels[1] = -100
    run = train_three_steps(
        Segmenter(6),
        Segmenter(16),
        [CWDKD(ignore_index=-100), CWDKD("body", "body", temperature=1.0, name="maps")],
        pixels=16,
        dataset=TensorDataset(torch.randn(12, 3, 16, 16), labels),
    )
    assert run.metrics["kd/cwd"] > 0


def test_refuses_outputs_over_other_classes(over_features):
    with pytest.raises(ShapeError, match="got student 5 and teacher 7"):
        over_features(CWDKD(), [torch.randn(2, 5, 4, 4)], [torch.randn(2, 7, 4, 4)])


def test_refuses_labels_that_are_not_of_pixels(over_features):
    student, teacher = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    term = over_features(CWDKD(ignore_index=255), [student], [teacher])
    with pytest.raises(ShapeError, match=r"class indices of shape \(N, H, W\).*got torch\.int64 of shape \(2,\)"):
        term([student], [teacher], batch=(None, torch.zeros(2, dtype=torch.long)))
    with pytest.raises(SetupError, match="needs `labels`"):
        term([student], [teacher], batch={"image": student})


def test_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0\.0"):
        CWDKD(temperature=0.0)
