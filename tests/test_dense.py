"""Claims about labels of dense predictions."""

import pytest
import torch

from lightning_kd.dense import labelled
from lightning_kd.errors import ShapeError


def test_labels_are_read_at_the_nearest_pixel():
    labels = torch.zeros(1, 4, 6, dtype=torch.long)
    labels[0, 2, 3] = 255  # The pixel that stands for the last cell of a 2x2 grid: rows 0 and 2, columns 0 and 3.
    labels[0, 1, 1] = 255  # Stands for no cell.
    assert labelled(labels, (2, 2), 255).tolist() == [[[True, True], [True, False]]]


@pytest.mark.parametrize("grid", [(4, 4), (8, 8)])
def test_the_same_or_a_finer_grid_repeats_the_labels(grid):
    labels = torch.randint(-1, 3, (2, 4, 4))
    expected = (labels != -1).repeat_interleave(grid[0] // 4, 1).repeat_interleave(grid[1] // 4, 2)
    assert torch.equal(labelled(labels, grid, -1), expected)


@pytest.mark.parametrize("labels", [torch.zeros(2, dtype=torch.long), torch.zeros(2, 4, 4)])
def test_refuses_labels_that_are_not_classes_of_pixels(labels):
    with pytest.raises(ShapeError, match=r"`labels` must be class indices of shape \(N, H, W\) to leave out pixels"):
        labelled(labels, (2, 2), 255)
