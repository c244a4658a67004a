"""Claims about batches of similar length."""

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_kd.errors import AudioError
from lightning_kd.speech import LengthBucketSampler

LENGTHS = [int(length) for length in torch.randint(400, 40000, (101,), generator=torch.Generator().manual_seed(0))]


def padded(batches):
    return sum(max(LENGTHS[index] for index in batch) * len(batch) for batch in batches)


def test_every_sample_comes_once_in_batches_of_the_size():
    batches = list(LengthBucketSampler(LENGTHS, batch_size=8))
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert sorted(map(len, batches)) == [5] + [8] * 12


def test_little_is_padded():
    in_order = [list(range(start, min(start + 8, 101))) for start in range(0, 101, 8)]
    assert padded(LengthBucketSampler(LENGTHS, batch_size=8)) < 1.2 * sum(LENGTHS) < padded(in_order)


def test_no_batch_holds_more_than_it_may_once_padded():
    sampler = LengthBucketSampler(LENGTHS, max_length=100_000)
    batches = list(sampler)
    assert all(max(LENGTHS[index] for index in batch) * len(batch) <= 100_000 for batch in batches)
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert len(sampler) == len(batches)


def test_order_follows_from_seed_and_epoch():
    sampler, same = LengthBucketSampler(LENGTHS, batch_size=8), LengthBucketSampler(LENGTHS, batch_size=8)
    first = list(sampler)
    assert list(sampler) == first == list(same)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthBucketSampler(LENGTHS, batch_size=8, seed=1)) != first


def test_batches_come_in_random_order_of_length():
    longest = [max(LENGTHS[index] for index in batch) for batch in LengthBucketSampler(LENGTHS, batch_size=8)]
    assert longest != sorted(longest)


def test_a_trainer_tells_it_the_epoch(trainer_epochs):
    assert trainer_epochs == [0, 1, 2]


@pytest.fixture
def trainer_epochs(tmp_path):
    """Epochs that a sampler knew of in three epochs of a real Trainer."""
    import lightning as L

    sampler, seen = LengthBucketSampler([5, 6, 7, 8], batch_size=2), []

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)

        def training_step(self, batch):
            seen.append(sampler.epoch)
            return self.net(batch[:, None]).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), DataLoader(torch.arange(4.0), batch_sampler=sampler))
    return sorted(set(seen))


def test_what_cannot_be_batched_raises():
    with pytest.raises(ValueError, match="`batch_size` or `max_length` must limit a batch, got neither"):
        LengthBucketSampler([5])
    with pytest.raises(ValueError, match="`batch_size` must be above 0, got 0"):
        LengthBucketSampler([5], batch_size=0)
    with pytest.raises(AudioError, match="`lengths` must be above 0, one for each sample, got 0"):
        LengthBucketSampler([5, 0], batch_size=1)
    with pytest.raises(AudioError, match="got none"):
        LengthBucketSampler([], batch_size=1)
    with pytest.raises(AudioError, match="`max_length` must be at least the longest sample's 9, got 8"):
        LengthBucketSampler([5, 9], max_length=8)
