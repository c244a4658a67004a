"""Run by test_cache.py in two real processes: both train on one cache, whose shards two writers shared."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lightning_kd import FeatureKD, KnowledgeDistillation, LogitKD
from lightning_kd.teachers.cache import CacheSpec, CacheWriter, SeededReplay, TeacherCache

SAMPLES = 24


class Images:
    """Images under random transforms."""

    def __init__(self):
        self.images = torch.rand(SAMPLES, 3, 12, 12, generator=torch.Generator().manual_seed(4))
        self.transform = v2.RandomCrop(8)

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.transform(self.images[index]), index % 5


def network(width):
    body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(16 * width, 5))


class Student(L.LightningModule):
    """Different weights on every rank, which DDP must make equal."""

    def __init__(self):
        super().__init__()
        self.net = network(4)
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, labels, _, indices = batch
        self.seen += indices.tolist()
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def main(folder):
    """Write the cache if it is not there, train, and save what came of it."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(7)
    teacher, replay = network(6), SeededReplay()
    spec = CacheSpec(top_k=2, views=2, replay=replay, shard_records=8, features=["0"])
    for rank in range(2):
        CacheWriter(folder / "cache", teacher, Images(), spec).write(batch_size=4, part=(rank, 2))
    cache = TeacherCache(folder / "cache")
    kd = KnowledgeDistillation(cache, student="net", objectives=[LogitKD(), FeatureKD("0", "0")])
    trainer.callbacks.append(kd)
    torch.manual_seed(100 + trainer.global_rank)
    module = Student()
    trainer.fit(module, DataLoader(cache.dataset(Images(), replay=replay), batch_size=4))
    result = {"weights": dict(module.state_dict()), "seen": module.seen, "epoch": cache.training_state()["epoch"]}
    torch.save(result, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
