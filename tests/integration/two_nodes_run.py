"""Run by test_two_nodes.py, once per node: joins the other node, distils, and writes what this rank ends with."""

import sys
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_kd import FeatureKD, KnowledgeDistillation, LogitKD
from lightning_kd.teachers import CacheSpec, CacheWriter, TeacherCache

NODES, BATCH = 2, 8


class Student(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))

    def training_step(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


class SameStart(L.Callback):
    """Adapters are drawn behind whatever drew random numbers before: these are drawn anew, with the student."""

    def setup(self, trainer, pl_module, stage):
        generator = torch.Generator().manual_seed(3)
        for parameter in pl_module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)


def teacher_and_data():
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(32, 6, generator=generator), torch.arange(32) % 5)
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5)), data


def write_cache(folder):
    """Everything that the teacher says of the data, as exactly as it says it."""
    spec = CacheSpec(top_k=None, features=["1"], precision="float32")
    CacheWriter(folder, *teacher_and_data(), spec).write()


def distilled(nodes, cache=None):
    """Weights, adapters and place of this process after two epochs, in which the nodes share each batch."""
    teacher, data = teacher_and_data()
    if cache is not None:
        teacher = TeacherCache(cache, teacher=teacher)
        data = teacher.dataset(data)
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD("1", "1")])
    distributed = {"strategy": DDPStrategy(process_group_backend="gloo"), "num_nodes": nodes} if nodes > 1 else {}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        use_distributed_sampler=False,
        callbacks=[kd, SameStart()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **distributed,
    )
    module = Student()
    # Lightning's own sampler shuffles: this one gives both nodes together the batches of a single process.
    share = DistributedSampler(data, num_replicas=nodes, rank=trainer.global_rank, shuffle=False)
    trainer.fit(module, DataLoader(data, batch_size=BATCH // nodes, sampler=share))
    place = {"node": trainer.node_rank, "rank": trainer.global_rank, "processes": trainer.world_size}
    return {"weights": dict(module.state_dict()), "adapters": kd.state_dict()["adapters"], "place": place}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {"network": distilled(NODES), "cache": distilled(NODES, cache=folder / "cache")}
    torch.save(results, folder / f"rank{results['cache']['place']['rank']}.pt")
