"""Run by test_kill.py: writes one cache through kills at random moments, and one without."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms import v2

from lightning_kd.teachers.cache import CacheSpec, CacheWriter, SeededReplay

KILLS, EARLY, VIEWS, SAMPLES = 50, 5, 4, 480
SECONDS_PER_SAMPLE = 0.002


class Slow:
    """Random crops, each of which takes a moment, so that kills fall into every part of the writing."""

    def __init__(self):
        self.images = torch.rand(SAMPLES, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        self.transform = v2.RandomResizedCrop(8)

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        time.sleep(SECONDS_PER_SAMPLE)
        return self.transform(self.images[index]), index


def write(folder, started=lambda: None):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    spec = CacheSpec(top_k=3, views=VIEWS, replay=SeededReplay(), shard_records=8)
    writer = CacheWriter(folder, teacher, Slow(), spec)
    started()
    writer.write(batch_size=4)


def write_and_be_killed(folder, moment_s, *, early):
    """Write in a fork of this process, which has PyTorch loaded; returns whether the kill came before the end.

    The moment counts from the first shard, on busy machines too; ``early`` kills come before it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        write(folder, started=lambda: os.write(writing, b"x"))
        os._exit(0)
    if not early:
        os.read(reading, 1)
    time.sleep(moment_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    return os.WIFSIGNALED(status)


def main(folder):
    moments = random.Random(7)  # noqa: S311 - moments, no secret
    killed = sum(
        write_and_be_killed(folder / "killed", moments.uniform(0.0, 0.1), early=kill < EARLY) for kill in range(KILLS)
    )
    partly = len(list((folder / "killed").glob("view-*/*.npy")))
    write(folder / "killed")
    write(folder / "whole")
    sys.stdout.write(f"{killed} {partly} {VIEWS * SAMPLES // 8}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
