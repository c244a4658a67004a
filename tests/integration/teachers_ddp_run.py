"""Run by test_teachers_ddp.py in two real processes: each kind of teacher, then each rank writes what it has."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from ddp_run import Net, Student
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import EMATeacher, EnsembleTeacher, FeatureKD, KnowledgeDistillation, LogitKD, MutualLearning, Tap
from lightning_kd.objectives import KD3KD, OldClassesKD, WeightAwareKD
from lightning_kd.teachers import PastTeacher


class Peer(L.LightningModule):
    """A student that trains beside another: no hooks, different weights on every rank."""

    def __init__(self, width):
        super().__init__()
        self.net = Net(width)

    def training_step(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(32, 3, 8, 8, generator=generator), torch.arange(32) % 5)


def trainer(callbacks=()):
    return L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=2,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def distilled(teacher, objectives=None):
    """Train one student by one kind of teacher on this rank."""
    objectives = objectives or [LogitKD(), FeatureKD("blocks.1", _place(teacher))]
    kd = KnowledgeDistillation(teacher, student="net", objectives=objectives, allow=("zero",))
    fitted = trainer([kd])
    torch.manual_seed(100 + fitted.global_rank)
    module = Student()
    fitted.fit(module, DataLoader(data(), batch_size=8))
    return {"weights": dict(module.state_dict()), "kd": kd.state_dict()}


def unlabelled():
    """What distils on data without labels."""
    known = torch.randn(10, 9, generator=torch.Generator().manual_seed(2))
    return [KD3KD("head", "head"), WeightAwareKD(Tap("head", at="input"), known, torch.arange(10) % 5)]


def _place(teacher):
    return "wide.blocks.1" if isinstance(teacher, EnsembleTeacher) else "blocks.1"


def mutual(order):
    """Train two students that teach each other on this rank."""
    fitted = trainer()
    torch.manual_seed(100 + fitted.global_rank)
    module = MutualLearning({"a": Peer(6), "b": Peer(9)}, student="net", order=order)
    fitted.fit(module, DataLoader(data(), batch_size=8))
    return {"weights": dict(module.state_dict()), "kd": {}}


def main(folder):
    torch.manual_seed(7)
    members = {"wide": Net(9), "narrow": Net(5)}
    results = {
        "ensemble": distilled(EnsembleTeacher(members, weights="confidence")),
        "unlabelled": distilled(Net(9), unlabelled()),
        "old_classes": distilled(Net(9, classes=3), [OldClassesKD()]),
        "ema": distilled(EMATeacher(0.9)),
        "past": distilled(PastTeacher()),
        "together": mutual("together"),
        "in_turn": mutual("in_turn"),
    }
    torch.save(results, Path(folder) / f"rank{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
