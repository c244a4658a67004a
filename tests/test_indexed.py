"""Claims about `IndexedDataset`."""

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_kd.errors import SetupError
from lightning_kd.indexed import IndexedDataset
from lightning_kd.step import Step


def images_and_labels(samples=6):
    return TensorDataset(torch.randn(samples, 3), torch.arange(samples) % 2)


def test_ends_a_tuple_with_the_index():
    data = IndexedDataset(images_and_labels())
    image, label, index = data[4]
    assert len(data) == 6
    assert torch.equal(image, data.dataset[4][0])
    assert (label, index) == (0, 4)


def test_adds_a_key_to_a_mapping():
    assert IndexedDataset([{"x": 1.0, "y": 2}])[0] == {"x": 1.0, "y": 2, "index": 0}


def test_takes_lists_as_tuples_and_negative_indices_from_the_end():
    assert IndexedDataset([["a", 0], ["b", 1]])[-1] == ("b", 1, 1)


@pytest.mark.parametrize("mapping", [False, True])
def test_a_step_reads_the_indices_of_a_shuffled_batch(mapping):
    samples = images_and_labels()
    data = IndexedDataset([{"x": x, "label": y} for x, y in samples] if mapping else samples)
    order = []
    for batch in DataLoader(data, batch_size=4, shuffle=True):
        step = Step(batch=batch)
        order += step.indices.tolist()
        assert torch.equal(step.labels, step.indices % 2)
    assert sorted(order) == list(range(6))


def test_indices_are_those_of_the_wrapped_data():
    chosen = [3, 5]
    assert [IndexedDataset(Subset(images_and_labels(), chosen))[i][-1] for i in range(2)] == [0, 1]
    assert [Subset(IndexedDataset(images_and_labels()), chosen)[i][-1] for i in range(2)] == chosen


def test_refuses_streams_and_samples_without_a_place_for_the_index():
    with pytest.raises(SetupError, match="must have a length and samples by index, got list_iterator"):
        IndexedDataset(iter([]))
    with pytest.raises(SetupError, match="samples that are tuples or mappings, got float"):
        IndexedDataset([1.0])[0]
    with pytest.raises(SetupError, match="samples that are tuples or mappings, got str"):
        IndexedDataset(["text"])[0]
    with pytest.raises(SetupError, match="must have samples without a key 'index'"):
        IndexedDataset([{"index": 7}])[0]
