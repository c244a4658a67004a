"""Accuracy and wall clock of one student by where its teacher's word comes from, and on how much of the data.

A small ResNet teaches a small ViT (``cnn_to_vit`` of ``fashion_mnist.py``). It is trained once. Then, for every seed,
each row of the table trains the same student from the same weights by a real Trainer: alone; from the teacher that runs
in every step (``online``); from what the teacher said once (``cached``, all logits in float32, or the three most likely
classes in float16); and on a quarter of the images, chosen at random or by the teacher's margin, for as many epochs or
for as many steps. Nothing is augmented.

Temperature 4; the term's weight is 0.5 on all images and goes with the fraction (`distillation_share`): 0.875 on a
quarter. Optimiser and learning rate are those of ``fashion_mnist.py``; nothing was tuned.

Accuracies are in per cent of the test images after the last epoch. ``gain`` is over the student alone on as many
images, chosen at random, for as many steps, at the same seed. Times are those of ``fit`` without evaluation. Rows take
turns within each seed, on one thread, and times are ratios to the student alone on all images at the same seed: of the
wall clock, which other programs disturb, and of the processor's time. Writing the cache and scoring the images take
time once; it is in the result file.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from _common import RESULTS, deliver, machine, options, print_table, silent_trainer, versions, without_lightning_advice
from _data import Images, read_fashion_mnist
from _pairs import PAIRS
from _training import BATCH, OPTIMISER, AdamClassifier, Run, fit_classifier, mean, spread
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_kd import KnowledgeDistillation, LogitKD
from lightning_kd.selection import Keep, distillation_share, random_subset, sample_difficulty, scored_subset
from lightning_kd.teachers import CacheSpec, CacheWriter, TeacherCache

PAIR = PAIRS["cnn_to_vit"]
TEMPERATURE, FULL, QUARTER = 4.0, 0.5, 0.25
# What the caches hold: enough to repeat training with the teacher exactly, and little.
SPECS = {"logits": CacheSpec(top_k=None, precision="float32"), "top_k": CacheSpec(top_k=3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of the table.

    Attributes:
        teacher: Where the teacher's word comes from; ``None`` for a student alone.
        fraction: Share of the images.
        keep: Which of them.
        as_many_steps: Whether epochs are added until the steps are those on all images.
        share: Weight of the term; ``None`` for the one that goes with the fraction.
    """

    teacher: str | None = "online"
    fraction: float = 1.0
    keep: Keep | str = "random"
    as_many_steps: bool = False
    share: float | None = None

    @property
    def weight(self) -> float:
        """Weight of the term; the labels have the rest."""
        if self.teacher is None:
            return 0.0
        return distillation_share(self.fraction, full=FULL) if self.share is None else self.share


KINDS = {
    "alone": Kind(teacher=None),
    "online": Kind(),
    "cached": Kind(teacher="logits"),
    "cached, 3 classes": Kind(teacher="top_k"),
    "random 1/4, alone": Kind(teacher=None, fraction=QUARTER),
    "random 1/4, online": Kind(fraction=QUARTER),
    "random 1/4, cached": Kind(teacher="logits", fraction=QUARTER),
    "random 1/4, weight of the whole": Kind(teacher="logits", fraction=QUARTER, share=FULL),
    "hardest 1/4, cached": Kind(teacher="logits", fraction=QUARTER, keep="hardest"),
    "moderate 1/4, cached": Kind(teacher="logits", fraction=QUARTER, keep="moderate"),
    "easiest 1/4, cached": Kind(teacher="logits", fraction=QUARTER, keep="easiest"),
    "random 1/4, as many steps, alone": Kind(teacher=None, fraction=QUARTER, as_many_steps=True),
    "random 1/4, as many steps, cached": Kind(teacher="logits", fraction=QUARTER, as_many_steps=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained and evaluated: images, the first ones of the file's shuffled order, and epochs."""

    teacher_images: int = 10_000
    student_images: int = 2_400
    test_images: int = 2_000
    teacher_epochs: int = 4
    student_epochs: int = 16


QUICK = Sizes(teacher_images=1_000, student_images=512, test_images=200, teacher_epochs=1, student_epochs=1)


class Bench:
    """The teacher, what it said of the images, and the images.

    Args:
        sizes: How much is trained and evaluated.
        folder: Where caches are written.
    """

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes = sizes
        self.images: Images = read_fashion_mnist(train_images=sizes.teacher_images, test_images=sizes.test_images)
        self.train = self.images.first(sizes.student_images)
        self.seconds: dict[str, float] = {}
        L.seed_everything(0, verbose=False)
        self.teacher = PAIR.make_teacher()
        with self._timed("teacher_training"):
            run = fit_classifier(
                self.teacher, self.images.train, self.images.test, seed=0, epochs=sizes.teacher_epochs, every=1
            )
        self.accuracy = run["accuracies"][-1]
        self.teacher.requires_grad_(False).eval()
        with self._timed("scoring"):
            self.difficulty = sample_difficulty(self.teacher, DataLoader(self.train, batch_size=500))
        self.caches = {name: folder / name for name in SPECS}
        for name, spec in SPECS.items():
            with self._timed(f"writing_{name}"):
                CacheWriter(self.caches[name], self.teacher, self.train, spec).write(batch_size=500)

    def chosen(self, kind: Kind, seed: int) -> list[int]:
        """Indices of the images that a row trains on."""
        labels = self.train.tensors[1]
        if kind.keep == "random":
            return random_subset(len(self.train), kind.fraction, labels=labels, seed=seed)
        return scored_subset(self.difficulty, kind.fraction, keep=kind.keep, labels=labels)

    def distillation(self, kind: Kind) -> tuple[Dataset[Any], list[L.Callback]]:
        """The images of a row with what its teacher said of them, and the callback; none of a student alone."""
        if kind.teacher is None:
            return self.train, []
        cache = None if kind.teacher == "online" else TeacherCache(self.caches[kind.teacher], teacher=self.teacher)
        term = LogitKD(temperature=TEMPERATURE, weight=kind.weight)
        teacher = self.teacher if cache is None else cache
        kd = KnowledgeDistillation(teacher, student="net", objectives=[term], task_weight=1.0 - kind.weight)
        return self.train if cache is None else cache.dataset(self.train), [kd]

    def train_student(self, name: str, seed: int) -> Run:
        """Train the student of one row and return the record of this run."""
        kind = KINDS[name]
        chosen = self.chosen(kind, seed)
        L.seed_everything(seed, verbose=False)
        module = AdamClassifier(PAIR.make_student())
        epochs = self.sizes.student_epochs * (round(1 / kind.fraction) if kind.as_many_steps else 1)
        data, callbacks = self.distillation(kind)
        wall, processor = time.perf_counter(), time.process_time()
        steps = self._fit(module, Subset(data, chosen), callbacks, seed=seed, epochs=epochs)
        run = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        run = {key: round(value, 2) for key, value in run.items()}
        return {"kind": name, "seed": seed, "steps": steps, "accuracy": _accuracy(module, self.images.test), **run}

    def _fit(
        self, module: L.LightningModule, data: Subset[Any], callbacks: Sequence[L.Callback], *, seed: int, epochs: int
    ) -> int:
        """Train without evaluation and return the number of steps."""
        order = torch.Generator().manual_seed(seed)
        size = min(BATCH, len(data))
        loader = DataLoader(data, batch_size=size, shuffle=True, drop_last=True, generator=order)
        with without_lightning_advice():
            trainer = silent_trainer(
                accelerator="cpu", max_epochs=epochs, limit_val_batches=0, callbacks=list(callbacks)
            )
            trainer.fit(module, loader, DataLoader(self.images.test))
        return trainer.global_step

    def _timed(self, what: str) -> "_Timer":
        return _Timer(self.seconds, what)


class _Timer:
    """Notes the seconds of a block."""

    def __init__(self, seconds: dict[str, float], what: str) -> None:
        self.seconds, self.what = seconds, what

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.what] = round(time.perf_counter() - self.start, 2)


def _accuracy(module: L.LightningModule, test: Dataset[Any]) -> float:
    """Accuracy in per cent."""
    module.eval()
    with torch.no_grad():
        correct = [module(images).argmax(1) == labels for images, labels in DataLoader(test, batch_size=500)]
    return round(100.0 * torch.cat(correct).double().mean().item(), 2)


def summarise(runs: Sequence[Run]) -> list[Run]:
    """One row per kind: accuracies by seed, gains over the student alone, and times over that on all images."""
    of = {(run["kind"], run["seed"]): run for run in runs}
    rows = []
    for name in dict.fromkeys(run["kind"] for run in runs):
        kind, own = KINDS[name], [run for run in runs if run["kind"] == name]
        alone = next(n for n, k in KINDS.items() if k == _alone(kind))
        gains = [run["accuracy"] - of[alone, run["seed"]]["accuracy"] for run in own]
        row: Run = {"kind": name, "fraction": kind.fraction, "weight": kind.weight, "steps": own[0]["steps"]}
        row |= {"seeds": [run["seed"] for run in own], "accuracy": [run["accuracy"] for run in own]}
        row |= {"mean": mean(row["accuracy"]), "spread": spread(row["accuracy"])}
        row |= {"gain": mean(gains), "gain_spread": spread(gains)}
        for clock in ("wall", "processor"):
            ratios = [run[f"{clock}_s"] / of["alone", run["seed"]][f"{clock}_s"] for run in own]
            row |= {f"{clock}_s": mean([run[f"{clock}_s"] for run in own])}
            row |= {f"{clock}_ratio": round(statistics.median(ratios), 3)}
            row |= {f"{clock}_range": [round(min(ratios), 3), round(max(ratios), 3)]}
        rows.append(row)
    return rows


def _alone(kind: Kind) -> Kind:
    """The student alone on as many random images for as many steps."""
    return Kind(teacher=None, fraction=kind.fraction, as_many_steps=kind.as_many_steps)


def report(result: Run) -> None:
    """Print the rows."""
    teacher = result["teacher"]
    columns = ["teacher", "steps", "weight", "accuracy, %", "gain, points", "wall clock", "processor", "wall, s"]
    rows = []
    for row in result["rows"]:
        figures = [row["mean"], row["gain"], row["wall_ratio"], row["processor_ratio"], row["wall_s"]]
        cells = ["-" if figure is None else f"{figure:.2f}" for figure in figures]
        rows.append([row["kind"], str(row["steps"]), f"{row['weight']:.3f}", *cells])
    print_table(f"{PAIR.student} from {teacher['name']} ({teacher['accuracy']:.2f} %)", columns, rows)


def measure(arguments: argparse.Namespace, sizes: Sizes) -> Run:
    """Train the teacher, write its caches, and train every student."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    result: Run = {"benchmark": "teacher_kinds", "machine": machine(), "versions": versions(), "sizes": asdict(sizes)}
    result |= {"optimiser": OPTIMISER, "temperature": TEMPERATURE}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(sizes, Path(folder))
        result |= {"source": bench.images.source, "teacher": {"name": PAIR.teacher, "accuracy": bench.accuracy}}
        bench.train_student("alone", 0)  # to warm up
        runs = []
        for seed in arguments.seeds:
            for name in KINDS:
                runs.append(bench.train_student(name, seed))
                print(f"seed {seed}, {name}: {runs[-1]['accuracy']} % in {runs[-1]['wall_s']} s", flush=True)
        result |= {"once_s": bench.seconds}
    return result | {"wall_s": round(time.perf_counter() - start), "rows": summarise(runs), "runs": runs}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2, with --quick 0")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    result = measure(arguments, QUICK if arguments.quick else Sizes())
    report(result)
    deliver(result, arguments, default=None if arguments.quick else RESULTS / "teacher_kinds.json")


if __name__ == "__main__":
    main()
