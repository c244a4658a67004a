"""Training steps of real Trainers that take turns, timed."""

import copy
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from _common import silent_trainer
from _lockstep import Lockstep, Pause
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from exporters.profiling.intervals import median_ratio
from lightning_kd.taps import pick_tensor

WARM_UP_ROUNDS = 1
FAR_AWAY = 1_000_000
Batch = tuple[Tensor, ...]
Times = dict[str, list[float]]


def task_loss(output: Any, labels: Tensor) -> Tensor:
    """Cross-entropy, of several outputs that of the first."""
    return F.cross_entropy(pick_tensor(output, None, "the student's output"), labels)


class Classifier(L.LightningModule):
    """An ordinary LightningModule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.logging_s: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        images, labels, *_ = batch
        return task_loss(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)

    def log_dict(self, *args: Any, **settings: Any) -> None:
        """Log as always, and note how long it took."""
        start = time.perf_counter()
        super().log_dict(*args, **settings)
        self.logging_s.append(time.perf_counter() - start)


class ByHand(Classifier):
    """Logit distillation as one writes it without a library; the teacher is kept out of the module's children."""

    def __init__(self, net: nn.Module, teacher: nn.Module) -> None:
        super().__init__(net)
        self.outside = (teacher,)

    def training_step(self, batch: Batch) -> Tensor:
        """Return cross-entropy plus Kullback-Leibler divergence."""
        images, labels, *_ = batch
        logits = self.net(images)
        with torch.no_grad():
            teacher_logits = self.outside[0](images)
        soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(teacher_logits / 4, 1), reduction="batchmean")
        return F.cross_entropy(logits, labels) + 16 * soft


class PauseBeforeEachBatch(L.Callback):
    """Hands over to the other workers before each batch."""

    def __init__(self, pause: Pause) -> None:
        self._pause = pause

    def on_train_batch_start(self, *_: Any) -> None:
        """Sleep until it is this Trainer's turn."""
        self._pause()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """The networks of a pair and one batch for them: images, labels, indices in a data set."""

    student: nn.Module
    teacher: nn.Module
    batch: Batch


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train: a module of its own, callbacks, and batches; ``None`` repeats one batch for ever."""

    module: Classifier
    callbacks: Sequence[L.Callback] = ()
    batches: Iterable[Batch] | None = None


def train(pause: Pause, *, variant: Variant, batch: Batch, folder: str) -> None:
    """Worker: one Trainer on an endless stream of one batch."""
    trainer = silent_trainer(
        accelerator="cpu",
        max_steps=FAR_AWAY,
        logger=CSVLogger(folder, name=None),
        log_every_n_steps=1,
        callbacks=[PauseBeforeEachBatch(pause), *variant.callbacks],
    )
    trainer.fit(variant.module, repeat(batch) if variant.batches is None else variant.batches)


def teach(pause: Pause, *, teacher: nn.Module, images: Tensor) -> None:
    """Worker: the bare teacher."""
    with torch.no_grad():
        while True:
            pause()
            teacher(images)


def time_variants(variants: dict[str, Variant], subjects: Subjects, rounds: int) -> tuple[Times, Times]:
    """One sitting: wall-clock and processor seconds of each variant's step, and of the teacher, in each round."""
    with tempfile.TemporaryDirectory() as folder:
        workers: dict[str, Callable[[Pause], None]] = {
            name: partial(train, variant=variant, batch=subjects.batch, folder=f"{folder}/{name}")
            for name, variant in variants.items()
        }
        workers["teacher"] = partial(teach, teacher=copy.deepcopy(subjects.teacher), images=subjects.batch[0])
        with Lockstep(workers) as lockstep:
            return time_steps(lockstep, list(workers), rounds)


def time_steps(lockstep: Lockstep, names: Sequence[str], rounds: int) -> tuple[Times, Times]:
    """Wall-clock and processor seconds of each variant's step in each round."""
    order, shuffle = list(names), random.Random(0).shuffle  # noqa: S311 - an order, no secret
    wall: Times = {name: [] for name in names}
    processor: Times = {name: [] for name in names}
    for index in range(-WARM_UP_ROUNDS, rounds):
        shuffle(order)
        for name in order:
            seconds = lockstep.step(name)
            if index >= 0:
                wall[name].append(seconds[0])
                processor[name].append(seconds[1])
    return wall, processor


def compare(sittings: Sequence[Times]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Ratios to (student step + teacher forward pass), and their intervals; ``control`` is to the student's step."""
    columns = {name: [np.array(times[name])[:, None] for times in sittings] for name in sittings[0]}
    together = [student + teacher for student, teacher in zip(columns["student"], columns["teacher"], strict=True)]
    ratios, spread = {}, {}
    for name, column in columns.items():
        if name not in ("student", "teacher"):
            base = columns["student"] if name == "control" else together
            estimate = median_ratio(column, base, seed=0)
            ratios[name] = round(estimate.value, 4)
            spread[name] = [round(estimate.low, 4), round(estimate.high, 4)]
    return ratios, spread
