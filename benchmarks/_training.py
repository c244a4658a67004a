"""What the accuracy benchmarks share: a method, an ordinary LightningModule that notes accuracies, rows of results."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from _common import silent_trainer, without_lightning_advice
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import Objective
from lightning_kd.indexed import IndexedDataset
from lightning_kd.taps import pick_tensor

Run = dict[str, Any]
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 2e-3, 0.05
OPTIMISER = f"AdamW, lr {LEARNING_RATE}, weight decay {WEIGHT_DECAY}, one cycle, batch {BATCH}"


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train the student: objectives, none for the student alone, and the weight of its own loss."""

    objectives: list[Objective]
    task_weight: float = 1.0


class Classifier(L.LightningModule):
    """An ordinary LightningModule: cross-entropy, accuracy after each evaluated epoch; optimisers are up to others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.accuracies: list[float] = []
        self._correct: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy; a batch holds images, labels, and whatever objectives read beside them."""
        images, labels, *_ = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: Sequence[Tensor]) -> None:
        """Count what is classified correctly."""
        images, labels, *_ = batch
        self._correct.append(self.net(images).argmax(1) == labels)

    def on_validation_epoch_end(self) -> None:
        """Note the accuracy in per cent."""
        self.accuracies.append(round(100.0 * torch.cat(self._correct).double().mean().item(), 2))
        self._correct = []


class AdamClassifier(Classifier):
    """Trained with AdamW and one cycle of the learning rate.

    Args:
        net: The network.
        learning_rate: Its largest value.
    """

    def __init__(self, net: nn.Module, learning_rate: float = LEARNING_RATE) -> None:
        super().__init__(net)
        self.learning_rate = learning_rate

    def training_step(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy, of DeiT's student that of its class token."""
        images, labels, *_ = batch
        return F.cross_entropy(pick_tensor(self.net(images), None, "the student's output"), labels)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one cycle over the whole training."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.learning_rate, weight_decay=WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def fit_classifier(
    net: nn.Module,
    train: TensorDataset,
    test: TensorDataset,
    *,
    seed: int,
    epochs: int,
    every: int,
    callbacks: Sequence[L.Callback] = (),
    learning_rate: float = LEARNING_RATE,
) -> Run:
    """Train ``net`` and return its accuracies, per cent, and the wall-clock and processor seconds it took."""
    module = AdamClassifier(net, learning_rate)
    order = torch.Generator().manual_seed(seed)
    shuffled = DataLoader(IndexedDataset(train), batch_size=BATCH, shuffle=True, drop_last=True, generator=order)
    wall, processor = time.perf_counter(), time.process_time()
    with without_lightning_advice():
        trainer = silent_trainer(
            accelerator="cpu",
            max_epochs=epochs,
            check_val_every_n_epoch=every,
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
        )
        trainer.fit(module, shuffled, DataLoader(test, batch_size=500))
    wall_s, processor_s = round(time.perf_counter() - wall, 1), round(time.process_time() - processor, 1)
    return {"accuracies": module.accuracies, "wall_s": wall_s, "processor_s": processor_s}


def mean(values: Sequence[float]) -> float | None:
    """Mean, to three digits; ``None`` of nothing."""
    return round(statistics.fmean(values), 3) if values else None


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation, to three digits; ``None`` of fewer than two."""
    return round(statistics.stdev(values), 3) if len(values) > 1 else None


def summarise(runs: Sequence[Run], *, teacher: str, student: str) -> list[dict[str, Any]]:
    """One row per method: accuracies by seed, mean and sample standard deviation, and the gain over the student alone.

    Accuracies in per cent; ``gain`` and ``gain_spread`` are of the differences of last accuracies at equal seed, in
    points.
    """
    alone = {run["seed"]: run["accuracies"][-1] for run in runs if run["method"] == "alone"}
    rows = []
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == name]
        last = [run["accuracies"][-1] for run in own]
        gains = [run["accuracies"][-1] - alone[run["seed"]] for run in own if run["seed"] in alone]
        best = [max(run["accuracies"]) for run in own]
        row = {
            "method": name,
            "weights": own[0]["weights"],
            "teacher": teacher,
            "student": student,
            "seeds": [run["seed"] for run in own],
        }
        row |= {"accuracy_last": last, "accuracy_best": best, "mean_last": mean(last), "spread_last": spread(last)}
        row |= {"mean_best": mean(best), "spread_best": spread(best)}
        row |= {"gain": mean(gains), "gain_spread": spread(gains)}
        rows.append(row | {"wall_s": mean([run["wall_s"] for run in own])})
    return rows
