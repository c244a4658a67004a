"""Run by test_latency_budget.py in two real processes: each rank writes how far it came and what was decided."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from exporters.profiling import ProfileOptions
from lightning_kd import LatencyBudget


class Student(L.LightningModule):
    """One layer."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def main(folder):
    """Train with a budget that no student meets."""
    options = ProfileOptions(min_runs=40, min_seconds=0, min_warm_up_seconds=0, max_warm_up_seconds=0.5)
    budget = LatencyBudget(1e-4, runtimes="pytorch", on_miss="stop", student="net", options=options)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=2,
        callbacks=[budget],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = TensorDataset(torch.randn(16, 8), torch.arange(16) % 3)
    trainer.fit(Student(), DataLoader(data, batch_size=4))
    text = f"{trainer.global_step} {budget.verdicts[0]['pytorch'].standing}"
    (Path(folder) / f"rank{trainer.global_rank}").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
