"""Run by test_affinity.py: one of two processes that share a batch of pairs, or a single one that has it all."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_kd.objectives import AffinityKD
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation

SHARES = (slice(0, 5), slice(5, 8))


class Distilled(nn.Module):
    """Two linear towers with a learned scale, and the objective."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.objective = AffinityKD(alpha=0.5, student_output=(0, 1), scale_output=2, gather=True)

    def forward(self, images, texts, teacher):
        student = Observation(Inputs(), (self.image(images), self.text(texts), self.scale))
        return self.objective(student, Observation(Inputs(), (*teacher, torch.tensor(5.0))), Step())


def main(folder, rank, processes):
    """Write what this process computes."""
    torch.set_default_dtype(torch.float64)
    share = slice(0, 8)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
        share = SHARES[rank]
    torch.manual_seed(0)
    images, texts, *teacher = torch.randn(8, 6), torch.randn(8, 5), torch.randn(8, 7), torch.randn(8, 7)
    module = Distilled()
    distributed = DistributedDataParallel(module) if processes > 1 else module
    term = distributed(images[share], texts[share], [x[share] for x in teacher])
    term.backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    torch.save({"term": term.detach(), "gradients": gradients}, Path(folder) / f"{rank}-of-{processes}.pt")
    if processes > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
