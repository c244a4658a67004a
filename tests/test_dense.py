"""Claims about labels of dense predictions."""

import pytest
import torch
import torch.nn.functional as F

from lightning_kd.dense import labelled, labels_on
from lightning_kd.errors import ShapeError


@pytest.mark.parametrize("grid", [(3, 5), (6, 10), (1, 1), (5, 4), (12, 20)])
def test_labels_are_read_as_nearest_interpolation_reads_them(grid):
    labels = torch.randint(256, (2, 6, 10))
    expected = F.interpolate(labels[:, None].double(), size=grid, mode="nearest")[:, 0].long()
    assert torch.equal(labels_on(labels, grid), expected)
    assert torch.equal(labelled(labels, grid, 7), expected != 7)


def test_labels_keep_their_type_and_those_of_classification_are_left_alone():
    assert labels_on(torch.zeros(1, 4, 4, dtype=torch.uint8), (2, 2)).dtype == torch.uint8
    labels = torch.tensor([3, 1])
    assert torch.equal(labels_on(labels, ()), labels)


def test_mixed_labels_are_read_pixel_by_pixel():
    mixed = torch.rand(2, 3, 4, 4)
    assert torch.equal(labels_on(mixed, (2, 2)), mixed[:, :, ::2, ::2])


def test_labels_without_pixels_are_refused():
    with pytest.raises(ShapeError, match=r"got shape \(4,\) for predictions on the grid \(2, 2\)"):
        labels_on(torch.zeros(4), (2, 2))
    with pytest.raises(ShapeError, match=r"class indices of shape \(N, H, W\).* got torch\.int64 of shape \(4,\)"):
        labelled(torch.zeros(4, dtype=torch.long), (2, 2), 255)
