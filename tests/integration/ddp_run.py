"""Run by test_ddp.py in two real processes: trains, then each rank writes its weights and what it logged."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import CKAKD, FeatureKD, IndexedDataset, KnowledgeDistillation, LogitKD, Window
from lightning_kd.objectives import CRDKD, CTKD, DKD, SPKD, VIDKD


class Net(nn.Module):
    """Two blocks and a head."""

    def __init__(self, width, classes=5):
        super().__init__()
        block = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.blocks = nn.Sequential(nn.Sequential(*block), nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


class Student(L.LightningModule):
    """Different weights on every rank, which DDP must make equal."""

    def __init__(self):
        super().__init__()
        self.net = Net(6)
        self.terms = []

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.terms.append({k: v.item() for k, v in self.trainer.callback_metrics.items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


def main(folder, *, find_unused, accumulate):
    """Train one configuration on this rank."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(64, 3, 8, 8, generator=generator), torch.arange(64) % 5)
    torch.manual_seed(7)
    teacher = Net(9)
    kd = KnowledgeDistillation(
        teacher,
        student="net",
        objectives=[
            LogitKD(),
            FeatureKD("blocks.1", "blocks.1"),
            CKAKD.matched(top=1, samples=16),
            FeatureKD("blocks.0", "blocks.0", name="second_epoch", weight=Window(1.0, begin=1)),
            DKD(),
            CTKD(),
            VIDKD("blocks.1", "blocks.1"),
            SPKD("blocks.1", "blocks.1", gather=True, weight=1.0),
            CRDKD("blocks.1", "blocks.1", labels=data.tensors[1], negatives=8),
        ],
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", find_unused_parameters=find_unused),
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        callbacks=[kd],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(100 + trainer.global_rank)
    module = Student()
    trainer.fit(module, DataLoader(IndexedDataset(data), batch_size=8))
    result = {"weights": dict(module.state_dict()), "kd": kd.state_dict(), "terms": module.terms}
    torch.save(result, Path(folder) / f"unused-{find_unused}-rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], find_unused=False, accumulate=1)
    main(sys.argv[1], find_unused=True, accumulate=2)
