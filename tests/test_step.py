"""Labels and indices are found in the usual batches, and their absence is explained."""

import pytest
import torch

from lightning_kd.errors import SetupError
from lightning_kd.step import Step

IMAGES, LABELS, INDICES = torch.zeros(3, 2), torch.tensor([2, 0, 1]), torch.tensor([7, 8, 9])


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS],
        (IMAGES, LABELS, INDICES),
        {"pixel_values": IMAGES, "labels": LABELS},
        {"image": IMAGES, "target": LABELS},
    ],
)
def test_labels_are_found_where_batches_usually_hold_them(batch):
    assert Step(batch=batch).labels is LABELS


@pytest.mark.parametrize("batch", [(IMAGES, LABELS, INDICES), {"image": IMAGES, "index": INDICES}])
def test_indices_are_found_where_the_indexed_data_set_puts_them(batch):
    assert Step(batch=batch).indices is INDICES


@pytest.mark.parametrize("place", [2, lambda batch: batch[2]])
def test_a_place_may_be_declared(place):
    assert Step(batch=(IMAGES, INDICES, LABELS), labels_at=place).labels is LABELS
    assert Step(batch=(IMAGES, LABELS, INDICES), indices_at=place).indices is INDICES


def test_mixed_labels_count_as_their_largest_class():
    mixed = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    assert Step(batch=(IMAGES, mixed)).class_indices.tolist() == [1, 0]
    assert Step(batch=(IMAGES, LABELS.int())).class_indices.dtype == torch.long
    dense = torch.stack([torch.tensor([[0.2, 0.9]]), torch.tensor([[0.8, 0.1]])])[None]
    assert Step(batch=(IMAGES, dense)).class_indices.tolist() == [[[1, 0]]]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (IMAGES[:1], r"`labels`: 1 is not in the batch, of type Tensor: pass labels="),
        ((IMAGES,), r"`labels`: 1 is not in the batch, a tuple of 1"),
        ((IMAGES, "cat"), r"needs `labels`, and at 1 there is str in the batch, a tuple of 2"),
        ({"image": IMAGES}, r"needs `labels`, and none were found in the batch, a mapping with \['image'\]"),
        (None, r"`labels`: 1 is not in the batch, of type NoneType"),
    ],
)
def test_missing_labels_are_explained(batch, message):
    with pytest.raises(SetupError, match=message):
        _ = Step(batch=batch).labels


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IMAGES, LABELS), r"needs `indices`, and none were found in the batch, a tuple of 2: wrap the training data"),
        ({"image": IMAGES}, r"none were found .*IndexedDataset\(dataset\)"),
        ((IMAGES, LABELS, IMAGES), r"`indices` must be whole numbers of shape \(N,\), got torch.float32 of shape"),
    ],
)
def test_missing_indices_are_explained(batch, message):
    with pytest.raises(SetupError, match=message):
        _ = Step(batch=batch).indices
