"""Accuracy of a student trained alone and with every method that distils classifiers, on Fashion-MNIST.

A small ResNet teaches a small ViT (``cnn_to_vit``), and the other way round (``vit_to_cnn``). Each teacher is trained
once, on 10,000 images. Then, for every seed and method, the same student is trained on the first 2,400 of them by a
real Trainer; a distilled one differs from the student alone by nothing but its recipe: the KnowledgeDistillation
callback, and for DeiT and SimKD the student that the method prescribes. Initial weights and order of the data depend
on the seed only, so that methods are compared in pairs: ``gain`` is the mean of the differences to the student alone
of the same seed.

Every recipe has its published defaults; nothing was tuned, on these or on other images. So warm-ups of 20 epochs do not
end, and weights are those for CIFAR-100 or ImageNet. Nothing is augmented. The first 10,000 are those of a fixed
shuffling of the file's training images. Where the project's own copy of the data is read, its division into 60,000 and
10,000 images is not the official one, and accuracies are not comparable with published ones.

Accuracies are in per cent of the test images: after the last epoch, and at the best of the evaluated ones. A method
that cannot be applied to a pair has a row that says why; one that fails ends the benchmark. Runs are shared by worker
processes of one thread each. Finished runs are written at once, so that an interruption keeps them.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing import get_context
from typing import Any

import lightning as L
import torch
from _common import (
    RESULTS,
    machine,
    options,
    print_table,
    versions,
    write_json,
)
from _data import Images, read_fashion_mnist
from _methods import METHODS, Setting
from _pairs import PAIRS
from _training import OPTIMISER, Run, fit_classifier, summarise
from torch import nn

from lightning_kd import KnowledgeDistillation
from lightning_kd.schedules import Progress, Weight, weight_at

ALONE = "alone"
EXAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained and evaluated.

    Attributes:
        teacher_images: Images that the teachers are trained on.
        student_images: Images that the students are trained on.
        test_images: Images that all are tested on; ``None`` for all.
        teacher_epochs: Epochs of the teachers.
        student_epochs: Epochs of the students.
        every: Epochs from one evaluation to the next.
    """

    teacher_images: int = 10_000
    student_images: int = 2_400
    test_images: int | None = 2_000
    teacher_epochs: int = 4
    student_epochs: int = 4
    every: int = 1


QUICK = Sizes(teacher_images=2_000, student_images=500, test_images=500, teacher_epochs=2, student_epochs=2, every=1)


@dataclass(frozen=True, slots=True)
class Job:
    """One student to train."""

    pair: str
    method: str
    seed: int

    def __str__(self) -> str:
        """Return what is printed about it."""
        return f"{self.pair}, seed {self.seed}, {self.method}"


class Bench:
    """What a worker process keeps from run to run.

    Args:
        sizes: How much is trained and evaluated.
    """

    def __init__(self, sizes: Sizes) -> None:
        torch.set_num_threads(1)
        self.sizes = sizes
        self.images: Images = read_fashion_mnist(train_images=sizes.teacher_images, test_images=sizes.test_images)

    def train_teacher(self, pair: str) -> tuple[nn.Module, Run]:
        """Train the teacher of ``pair``, and return it with what is known of it."""
        L.seed_everything(0, verbose=False)
        teacher = PAIRS[pair].make_teacher()
        epochs = self.sizes.teacher_epochs
        run = fit_classifier(teacher, self.images.train, self.images.test, seed=0, epochs=epochs, every=epochs)
        return teacher.requires_grad_(False), {"name": PAIRS[pair].teacher, "accuracy": run.pop("accuracies")[-1]} | run

    def train_student(self, job: Job, teacher: nn.Module) -> Run:
        """Train one student and return the record of this run."""
        L.seed_everything(job.seed, verbose=False)
        student, kd = self.distillation(job, teacher)
        train = self.images.first(self.sizes.student_images)
        epochs, every = self.sizes.student_epochs, self.sizes.every
        weights: Run = {"task": 1.0}
        if kd is not None:
            weights = {"task": kd.task_weight}
            weights |= {term.name: _by_epoch(term.weight, epochs) for term in kd.objectives or ()}
        callbacks = [] if kd is None else [kd]
        test = self.images.test
        run = fit_classifier(student, train, test, seed=job.seed, epochs=epochs, every=every, callbacks=callbacks)
        return asdict(job) | {"weights": weights} | run

    def distillation(self, job: Job, teacher: nn.Module) -> tuple[nn.Module, KnowledgeDistillation | None]:
        """The student to train and the callback that distils it; ``None`` for the student alone."""
        student = PAIRS[job.pair].make_student()
        if job.method == ALONE:
            return student, None
        images, labels = self.images.first(self.sizes.student_images).tensors
        setting = Setting(teacher=copy.deepcopy(teacher), student=student, images=images[:EXAMPLES], labels=labels)
        method = METHODS[job.method]
        return method.student(setting), method.recipe(setting)


def _by_epoch(weight: Weight, epochs: int) -> float | list[float]:
    """The weight itself, or of a schedule its value in each epoch."""
    if not callable(weight):
        return weight
    return [round(weight_at(weight, Progress(epoch=epoch)), 4) for epoch in range(epochs)]


_worker: list[Bench] = []


def start_worker(sizes: Sizes) -> None:
    """Read the images once in a worker process."""
    _worker.append(Bench(sizes))


def train_teacher(pair: str) -> tuple[nn.Module, Run]:
    """In a worker process: `Bench.train_teacher`."""
    return _worker[0].train_teacher(pair)


def train_student(job: Job, teacher: nn.Module) -> Run:
    """In a worker process: `Bench.train_student`, its error with the name of the run."""
    try:
        return _worker[0].train_student(job, teacher)
    except Exception as error:
        raise RuntimeError(f"this run failed: {job}") from error


def finished(pool: ProcessPoolExecutor, calls: Sequence[tuple[Callable[..., Any], Any]]) -> Iterator[Any]:
    """Yield the results of calls in the order in which they finish; an error cancels the others."""
    futures = [pool.submit(function, *arguments) for function, *arguments in calls]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def obstacles(pair: str, names: Sequence[str]) -> dict[str, str]:
    """Why methods cannot be applied to ``pair``, by name of the method."""
    networks = {"teacher": PAIRS[pair].make_teacher(), "student": PAIRS[pair].make_student()}
    setting = Setting(**networks, images=torch.empty(0), labels=torch.empty(0))
    found = {name: METHODS[name].obstacle(setting) for name in names if name != ALONE}
    return {name: reason for name, reason in found.items() if reason}


class Table:
    """The rows of one pair, as runs come in.

    Args:
        pair: Name of the pair.
        names: Methods, in the order of the rows.
        teacher: What is known of the teacher.
    """

    def __init__(self, pair: str, names: Sequence[str], teacher: Run) -> None:
        self.names = list(names)
        self.networks = {"teacher": PAIRS[pair].teacher, "student": PAIRS[pair].student}
        self.teacher = teacher
        self.obstacles = obstacles(pair, names)
        self.runs: list[Run] = []

    def content(self) -> Run:
        """What the result file says of the pair."""
        runs = sorted(self.runs, key=lambda run: (run["seed"], self.names.index(run["method"])))
        rows = {row["method"]: row for row in summarise(runs, **self.networks)}
        for name, row in rows.items():
            seconds = [run["processor_s"] for run in runs if run["method"] == name]
            row["processor_s"] = round(sum(seconds) / len(seconds), 1)
        rows |= {name: {"method": name, **self.networks, "obstacle": why} for name, why in self.obstacles.items()}
        ordered = [rows[name] for name in self.names if name in rows]
        return {"teacher": self.teacher, "student": self.networks["student"], "rows": ordered, "runs": runs}


def report(result: Run) -> None:
    """Print the rows of each pair as a table."""
    keys = ("mean_last", "spread_last", "mean_best", "gain", "gain_spread", "processor_s")
    columns = ["method", "last, %", "spread", "best, %", "gain of last, points", "spread", "processor s per run"]
    for content in result["pairs"].values():
        rows = []
        for row in content["rows"]:
            figures = [row.get("obstacle", ""), *[""] * (len(keys) - 1)]
            if "obstacle" not in row:
                figures = ["-" if row[key] is None else f"{row[key]:.2f}" for key in keys]
            rows.append([row["method"], *figures])
        teacher = content["teacher"]
        print_table(f"{content['student']} from {teacher['name']} ({teacher['accuracy']:.2f} %)", columns, rows)


def measure(arguments: argparse.Namespace, sizes: Sizes) -> Run:
    """Train the teachers, then every student, writing the result file after each."""
    pairs, names, seeds = arguments.pairs, arguments.methods, arguments.seeds
    start = time.perf_counter()
    result: Run = {"benchmark": "fashion_mnist", "machine": machine() | {"threads": 1}, "versions": versions()}
    result |= {"sizes": asdict(sizes), "workers": arguments.workers}
    result |= {"source": read_fashion_mnist(train_images=1, test_images=1).source}
    result |= {"optimiser": OPTIMISER}
    context = get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, initializer=start_worker, initargs=(sizes,)) as pool:
        teachers = dict(zip(pairs, pool.map(train_teacher, pairs), strict=True))
        tables = {pair: Table(pair, names, known) for pair, (_, known) in teachers.items()}
        jobs = [
            Job(pair, name, seed)
            for seed, pair, name in product(seeds, pairs, names)
            if name not in tables[pair].obstacles
        ]
        print(f"{len(jobs)} runs; teachers: {[known for _, known in teachers.values()]}", flush=True)
        for run in finished(pool, [(train_student, job, teachers[job.pair][0]) for job in jobs]):
            job = Job(run.pop("pair"), run["method"], run["seed"])
            tables[job.pair].runs.append(run)
            print(f"{job}: {run['accuracies'][-1]:.2f} % in {run['processor_s']} s of the processor", flush=True)
            result["pairs"] = {pair: table.content() for pair, table in tables.items()}
            result["wall_s"] = round(time.perf_counter() - start)
            if arguments.output is not None:
                write_json(arguments.output, result)
    return result


def main() -> None:
    parser = options(__doc__)
    names = [ALONE, *METHODS]
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2, with --quick 0")
    parser.add_argument("--images", type=int, help="number of images: of training, and of testing")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, of one thread each (%(default)s)")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.images is not None:
        n = arguments.images
        sizes = replace(sizes, teacher_images=n, student_images=n, test_images=n)
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "fashion_mnist.json"
    result = measure(arguments, sizes)
    report(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
