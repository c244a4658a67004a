"""Accuracy of a student trained alone and distilled with each objective, across architectures, on Fashion-MNIST.

A small ResNet teaches a small ViT (``--pair cnn_to_vit``), or the other way round (``--pair vit_to_cnn``). The teacher
is trained once, on 20,000 images. Then, for every seed and method, the same student is trained on the first 5,000 of
them by a real Trainer; a distilled one differs from the student alone by nothing but the KnowledgeDistillation
callback. Initial weights and order of the data depend on the seed only, so that methods are compared in pairs:
``gain`` is the mean of the differences to the student alone of the same seed.

Every hyper-parameter was fixed beforehand, and none was tuned: each term has weight 1 beside the task loss, except
that logits have the usual 0.9 beside 0.1. Nothing is augmented. The first 20,000 are those of a fixed shuffling of the
file's training images. Where the project's own copy of the data is read, its division into 60,000 and 10,000 images is
not the official one, and accuracies are not comparable with published ones.

Accuracies are in per cent of the 10,000 test images: after the last epoch, and at the best of the four evaluated
ones. Finished runs are written at once, so that an interruption keeps them.
"""

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from _common import (
    RESULTS,
    machine,
    options,
    print_table,
    silent_trainer,
    versions,
    without_lightning_advice,
    write_json,
)
from _data import Images, read_fashion_mnist
from _pairs import PAIRS, Pair
from _training import Classifier, Method, Run, summarise
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, LogitKD, PatchEmbeddingKD

BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 2e-3, 0.05


def methods(pair: Pair) -> dict[str, Method]:
    """Every way to train the student of ``pair``, by name."""
    taps = pair.student_taps, pair.teacher_taps
    return {
        "alone": Method([]),
        "LogitKD": Method([LogitKD(temperature=4.0, weight=0.9)], task_weight=0.1),
        "FeatureKD": Method([FeatureKD(*taps)]),
        "PatchEmbeddingKD": Method([PatchEmbeddingKD()]),
        "CKAKD": Method([CKAKD(*taps)]),
        "CKAKD.matched": Method([CKAKD.matched(top=3)]),
        "LogitKD + CKAKD.matched": Method([LogitKD(temperature=4.0, weight=0.9), CKAKD.matched(top=3)], 0.1),
    }


class AdamClassifier(Classifier):
    """Trained with AdamW and one cycle of the learning rate."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one cycle over the whole training."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained and evaluated."""

    teacher_images: int = 20_000
    student_images: int = 5_000
    test_images: int | None = None
    teacher_epochs: int = 5
    student_epochs: int = 8


QUICK = Sizes(teacher_images=4_000, student_images=1_000, test_images=1_000, teacher_epochs=2, student_epochs=2)


def fit(
    net: nn.Module,
    train: TensorDataset,
    images: Images,
    *,
    seed: int,
    epochs: int,
    callbacks: Sequence[L.Callback] = (),
) -> tuple[list[float], float]:
    """Train ``net`` and return its accuracies, per cent, after every quarter of the epochs, and the seconds it took."""
    module = AdamClassifier(net)
    order = torch.Generator().manual_seed(seed)
    shuffled = DataLoader(train, batch_size=BATCH, shuffle=True, drop_last=True, generator=order)
    trainer = silent_trainer(
        accelerator="cpu",
        max_epochs=epochs,
        check_val_every_n_epoch=max(1, epochs // 4),
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    start = time.perf_counter()
    trainer.fit(module, shuffled, DataLoader(images.test, batch_size=500))
    return module.accuracies, round(time.perf_counter() - start, 1)


def train_student(pair: Pair, name: str, teacher: nn.Module, images: Images, *, seed: int, sizes: Sizes) -> Run:
    """Train one student and return the record of this run."""
    L.seed_everything(seed, verbose=False)
    student = pair.make_student()
    method = methods(pair)[name]
    weights = {"task": method.task_weight} | {objective.name: objective.weight for objective in method.objectives}
    callbacks = []
    if method.objectives:
        own_teacher = copy.deepcopy(teacher)
        callbacks.append(
            KnowledgeDistillation(
                own_teacher, student="net", objectives=method.objectives, task_weight=method.task_weight
            )
        )
    train = images.first(sizes.student_images)
    accuracies, wall_s = fit(student, train, images, seed=seed, epochs=sizes.student_epochs, callbacks=callbacks)
    return {"method": name, "weights": weights, "seed": seed, "accuracies": accuracies, "wall_s": wall_s}


def report(result: dict[str, Any]) -> None:
    """Print the rows as a table."""
    keys = ["mean_last", "spread_last", "mean_best", "gain", "gain_spread", "wall_s"]
    rows = [
        [row["method"], *("-" if row[key] is None else f"{row[key]:.2f}" for key in keys)] for row in result["rows"]
    ]
    teacher = result["teacher"]
    print_table(
        f"{result['rows'][0]['student']} from {teacher['name']} ({teacher['accuracy']:.2f} %)",
        ["method", "last, %", "spread", "best, %", "gain, points", "spread", "s per run"],
        rows,
    )


def measure(pair: Pair, names: Sequence[str], seeds: Sequence[int], sizes: Sizes, output: Path | None) -> Run:
    """Train the teacher, then every student, writing ``output`` after each."""
    images = read_fashion_mnist(train_images=sizes.teacher_images, test_images=sizes.test_images)
    start = time.perf_counter()
    result: Run = {"benchmark": "fashion_mnist", "machine": machine(), "versions": versions()}
    result |= {"source": images.source, "sizes": asdict(sizes)}
    result |= {"optimiser": f"AdamW, lr {LEARNING_RATE}, weight decay {WEIGHT_DECAY}, one cycle, batch {BATCH}"}
    L.seed_everything(0, verbose=False)
    teacher = pair.make_teacher()
    accuracies, wall_s = fit(teacher, images.train, images, seed=0, epochs=sizes.teacher_epochs)
    result["teacher"] = {"name": pair.teacher, "accuracy": accuracies[-1], "wall_s": wall_s}
    print(f"teacher: {accuracies[-1]:.2f} % in {wall_s} s", flush=True)
    runs: list[Run] = []
    for seed, name in product(seeds, names):
        runs.append(train_student(pair, name, teacher, images, seed=seed, sizes=sizes))
        print(f"seed {seed}, {name}: {runs[-1]['accuracies'][-1]:.2f} % in {runs[-1]['wall_s']} s", flush=True)
        result |= {
            "rows": summarise(runs, teacher=pair.teacher, student=pair.student),
            "runs": runs,
            "wall_s": round(time.perf_counter() - start),
        }
        result["processor_s"] = round(time.process_time())
        if output is not None:
            write_json(output, result)
    return result


def main() -> None:
    parser = options(__doc__)
    names = list(methods(PAIRS["cnn_to_vit"]))
    parser.add_argument("--pair", choices=list(PAIRS), default="cnn_to_vit")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2, with --quick 0")
    parser.add_argument("--images", type=int, help="number of images: of training, and of testing")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.images is not None:
        n = arguments.images
        sizes = replace(sizes, teacher_images=n, student_images=n, test_images=n)
    seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    output = arguments.output
    if output is None and not arguments.quick:
        output = RESULTS / "fashion_mnist.json"
    with without_lightning_advice():
        result = measure(PAIRS[arguments.pair], arguments.methods, seeds, sizes, output)
    report(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
