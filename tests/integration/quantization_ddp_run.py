"""One of two processes that train a distilled student with quantisation; run by Lightning's own launcher."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from exporters.quantization.fake import FakeQuantization, quantization_of
from lightning_kd import FeatureKD, KnowledgeDistillation, LogitKD, QuantizationAwareTraining


class Student(L.LightningModule):
    """Different weights on every rank, which DDP must make equal."""

    def __init__(self):
        super().__init__()
        self.net = make_network(6)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)


def make_network(width):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(16 * width, 5),
    )


def main(folder):
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(64, 3, 8, 8, generator=generator), torch.arange(64) % 5)
    torch.manual_seed(7)
    kd = KnowledgeDistillation(make_network(9), student="net", objectives=[LogitKD(), FeatureKD("0", "0")])
    # Learned scales at rest for the first two steps must not be missed by DDP.
    qat = QuantizationAwareTraining(
        FakeQuantization(weight_bits=4, learned_scales=True), student="net", start=2, freeze_ranges=6
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=2,
        callbacks=[kd, qat],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(100 + trainer.global_rank)
    module = Student()
    trainer.fit(module, DataLoader(data, batch_size=8))
    result = {"weights": dict(module.state_dict()), "ranges": quantization_of(module.net).state()}
    torch.save(result, Path(folder) / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
