"""Run by test_compression_ddp.py in two real processes: each rank writes what it ends with."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import GradualChannelPruning, KnowledgeDistillation, LowBitTraining, TwoFourSparsity
from lightning_kd.compression import LearnedLevels, TernaryWeights


class Student(L.LightningModule):
    """Different weights on every rank, which DDP must make equal."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)
        )

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


def callbacks_of(name):
    """The callback under test."""
    return {
        "two_four": lambda: TwoFourSparsity(student="net"),
        "channels": lambda: GradualChannelPruning(ratio=0.5, epochs=2, student="net"),
        "ternary": lambda: LowBitTraining(TernaryWeights(), student="net", activation_bits=8),
        "levels": lambda: LowBitTraining(LearnedLevels(levels=4), student="net"),
    }[name]()


def main(folder, name):
    """Train with one callback on this rank."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(32, 3, 8, 8, generator=generator), torch.arange(32) % 5)
    torch.manual_seed(7)
    kd = KnowledgeDistillation(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), student="net")
    callback = callbacks_of(name)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", find_unused_parameters=False),
        max_epochs=2,
        callbacks=[kd, callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(100 + trainer.global_rank)
    module = Student()
    trainer.fit(module, DataLoader(data, batch_size=8))
    result = {"weights": dict(module.state_dict()), "callback": callback.state_dict()}
    torch.save(result, Path(folder) / f"{name}-rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    for callback_name in ("two_four", "channels", "ternary", "levels"):
        main(sys.argv[1], callback_name)
