"""Run by test_distributed.py: one of several processes that share a batch, or a single one that has it all."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_kd.adapters import Probe
from lightning_kd.distributed import gather_rows
from lightning_kd.losses import frame_l1
from lightning_kd.objectives import CCKD, CKAKD, CRDKD, DISTKD, MIKD, PKTKD, RKD, SPKD
from lightning_kd.speech import LengthBucketSampler
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap

SHARES = (slice(0, 5), slice(5, 8))
TAP = Tap("", axes="NCHW")
OBJECTIVES = {
    "sp": lambda: SPKD(TAP, TAP, gather=True),
    "rkd": lambda: RKD(TAP, TAP, gather=True),
    "pkt": lambda: PKTKD(TAP, TAP, gather=True),
    "cc_code": lambda: CCKD(TAP, TAP, gather=True),
    "cc_paper": lambda: CCKD(TAP, TAP, variant="paper", gather=True),
    "cka": lambda: CKAKD(TAP, TAP, gather=True),
    "cka_rbf": lambda: CKAKD(TAP, TAP, kernel="rbf", unbiased=False, gather=True),
    "cka_positions": lambda: CKAKD(TAP, TAP, rows="positions", gather=True),
    "dist": lambda: DISTKD(gather=True),
    "dist_masked": lambda: DISTKD(gather=True, ignore_index=1),
    "mi": lambda: MIKD(TAP, TAP, width=5, gather=True),
    "crd": lambda: CRDKD(TAP, TAP, samples=9, negatives=8),
}


class Distilled(nn.Module):
    """A student and an objective, so that DDP averages the gradients of both."""

    def __init__(self, objective, example, teacher):
        super().__init__()
        self.student = nn.Conv2d(3, 4, 1)
        self.objective = objective
        objective.build(
            Probe(self.student, Observation(Inputs((example,)), None, {TAP: self.student(example)})),
            Probe(nn.Identity(), Observation(Inputs((teacher,)), None, {TAP: teacher})),
        )

    def forward(self, images, teacher, indices):
        features = self.student(images)
        student = Observation(Inputs((images,)), features, {TAP: features})
        labels = torch.stack([indices % 3, indices % 2], dim=1)[:, None, :]
        step = Step(batch={"index": indices, "labels": labels})
        return self.objective(student, Observation(Inputs(), teacher[:, :4], {TAP: teacher}), step)


def distil(objective, share):
    """One step on ``share`` of the batch."""
    torch.manual_seed(0)
    images, teacher, indices = torch.randn(8, 3, 2, 2), torch.randn(8, 6, 2, 2), torch.arange(8)
    module = Distilled(objective, images, teacher)
    distributed = DistributedDataParallel(module) if dist.is_initialized() else module
    term = distributed(images[share], teacher[share], indices[share])
    term.backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"term": term.detach(), "gradients": gradients, "buffers": dict(module.named_buffers())}


def gather(share):
    """The rows of all, and what a row is told if every process asks for the squares of all."""
    rows = torch.arange(24.0).reshape(8, 3)[share].requires_grad_()
    everyone = gather_rows(rows)
    everyone.square().sum().backward()
    return {"rows": everyone.detach(), "gradient": rows.grad, "indices": gather_rows(torch.arange(8)[share])}


def frames(share):
    """A loss over the valid frames of all, and the gradient that DDP makes of it, in both reductions."""
    student, teacher = torch.randn(2, 8, 5, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(5) < torch.tensor([5, 1, 2, 5, 3, 0, 1, 4])[:, None]
    results = {}
    for reduction in ("frame", "utterance"):
        scale = torch.ones((), requires_grad=True)
        batch = (scale * student[share], teacher[share], mask[share])
        frame_l1(*batch, reduction=reduction, all_reduce=True).backward()
        if dist.is_initialized():
            dist.all_reduce(scale.grad)
            scale.grad /= dist.get_world_size()
        results[reduction] = scale.grad
    return results


def main(folder, rank, processes):
    """Write what this process computes."""
    torch.set_default_dtype(torch.float64)
    share = slice(0, 8)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
        share = SHARES[rank]
    result = {name: distil(make(), share) for name, make in OBJECTIVES.items()}
    result |= {"gather": gather(share), "frames": frames(share)}
    result["buckets"] = list(LengthBucketSampler(range(400, 505), batch_size=8))
    torch.save(result, Path(folder) / f"{rank}-of-{processes}.pt")
    if processes > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
