"""Cost of a distilled training step, against the student's own step plus the teacher's forward pass.

Every variant is a real ``Trainer.fit`` of the same LightningModule (forward, loss, backward, SGD with momentum, a
CSVLogger that logs every step), the distilled ones with one KnowledgeDistillation callback more. Trainers cannot be
called step by step, so each runs in a thread of its own and they are advanced in lock step (`_lockstep.py`): in every
round each variant takes one step, in an order drawn anew, while all others sleep. A step is a whole turn of Lightning's
loop, from one batch's start to the next one's, so it includes the callback's wrapper, hooks, losses, adapters and
logging. PyTorch computes on one thread: the worker threads that each Trainer would have spin for a while after a step,
in the time of the next Trainer's. ``teacher`` is the bare teacher's forward pass under ``no_grad``, stepped in the
same rounds.

Two Trainers of the very same step differ by several per cent, by where their memory lies. So everything is made anew in
each of four sittings, and a ratio is the median step over the median of (student step + teacher forward pass) of all of
them, with the 95 % interval of a bootstrap over sittings and rounds as spread. ``processor_ratios`` are the same of
processor time, which does not count the time in which other programs ran. ``control``, a second Trainer on the student
alone over the first, shows the noise. ``by_hand`` is logit distillation written into the LightningModule: what a step
costs without us. A ratio at the top level is the larger one of the two pairs of networks, ResNet-50 to ResNet-18 and
ViT-S to ViT-Ti.

``medians`` are in ms and hold, beside the variants, what the parts cost: reading the taps (``part/hooks``), logging
(``part/logging``), and per objective its adapters and its loss, forward and backward, timed apart from the networks.
"""

import copy
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from statistics import median
from typing import Any

import lightning as L
import numpy as np
import timm
import torch
import torch.nn.functional as F
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
from _lockstep import Lockstep, Pause
from _parts import time_parts
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from exporters.profiling.intervals import median_ratio
from lightning_kd import CKAKD, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Objective, PatchEmbeddingKD

WARM_UP_ROUNDS = 1
SITTINGS = 4
Times = dict[str, list[float]]
MILLISECONDS = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A student and its teacher, by their names in timm, and the layers that are distilled."""

    student: str
    teacher: str
    features: tuple[str, str]
    representations: tuple[str, str]

    def objectives(self) -> dict[str, list[Objective]]:
        """The variants with a callback, by name."""
        each = [LogitKD(), FeatureKD(*self.features), PatchEmbeddingKD(), CKAKD(*self.representations)]
        return {objective.name: [objective] for objective in each} | {"all": copy.deepcopy(each)}


PAIRS = {
    "resnet": Pair(
        student="resnet18",
        teacher="resnet50",
        features=("layer3", "layer3"),
        representations=("layer4", "layer4"),
    ),
    "vit": Pair(
        student="vit_tiny_patch16_224",
        teacher="vit_small_patch16_224",
        features=("blocks.8", "blocks.8"),
        representations=("blocks.11", "blocks.11"),
    ),
}


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

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

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

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return cross-entropy plus Kullback-Leibler divergence."""
        images, labels = batch
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
    """The networks of a pair and one batch for them."""

    student: nn.Module
    teacher: nn.Module
    batch: tuple[Tensor, Tensor]


def make_subjects(pair: Pair, *, batch: int, pixels: int) -> Subjects:
    """Create the networks with random weights, and images of ``pixels`` by ``pixels``."""
    torch.manual_seed(0)
    sizes = {"img_size": pixels} if pair.student.startswith("vit") else {}
    student, teacher = (timm.create_model(name, num_classes=100, **sizes) for name in (pair.student, pair.teacher))
    images = torch.randn(batch, 3, pixels, pixels)
    return Subjects(student=student, teacher=teacher.eval(), batch=(images, torch.arange(batch)))


def train(pause: Pause, *, module: Classifier, batch: Any, folder: str, callbacks: Sequence[L.Callback] = ()) -> None:
    """Worker: one Trainer on an endless stream of one batch."""
    trainer = silent_trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=CSVLogger(folder, name=None),
        log_every_n_steps=1,
        callbacks=[PauseBeforeEachBatch(pause), *callbacks],
    )
    trainer.fit(module, repeat(batch))


def teach(pause: Pause, *, teacher: nn.Module, images: Tensor) -> None:
    """Worker: the bare teacher."""
    with torch.no_grad():
        while True:
            pause()
            teacher(images)


def workers_of(pair: Pair, subjects: Subjects, folder: str) -> tuple[dict[str, Callable[[Pause], None]], Classifier]:
    """Every variant by name, each on its own copies of the networks; and the module that is distilled with all."""
    student, teacher = partial(copy.deepcopy, subjects.student), partial(copy.deepcopy, subjects.teacher)
    modules = {"student": Classifier(student()), "control": Classifier(student())}
    modules |= {"by_hand": ByHand(student(), teacher().requires_grad_(False))}
    callbacks: dict[str, list[L.Callback]] = {}
    for name, objectives in pair.objectives().items():
        modules[name] = Classifier(student())
        callbacks[name] = [KnowledgeDistillation(teacher(), student="net", objectives=objectives)]
    workers: dict[str, Callable[[Pause], None]] = {
        name: partial(
            train, module=module, batch=subjects.batch, folder=f"{folder}/{name}", callbacks=callbacks.get(name, ())
        )
        for name, module in modules.items()
    }
    return workers | {"teacher": partial(teach, teacher=teacher(), images=subjects.batch[0])}, modules["all"]


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


def measure_pair(pair: Pair, *, batch: int, pixels: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Ratios, medians in ms and spread of one pair of networks."""
    subjects = make_subjects(pair, batch=batch, pixels=pixels)
    wall: list[Times] = []
    processor: list[Times] = []
    logging_s: list[float] = []
    for _ in range(SITTINGS):
        with tempfile.TemporaryDirectory() as folder:
            workers, distilled = workers_of(pair, subjects, folder)
            with Lockstep(workers) as lockstep:
                times = time_steps(lockstep, list(workers), math.ceil(rounds / SITTINGS))
        wall.append(times[0])
        processor.append(times[1])
        logging_s += distilled.logging_s
    ratios, spread = compare(wall)
    processor_ratios, _ = compare(processor)
    seconds = {name: median(chain.from_iterable(times[name] for times in wall)) for name in wall[0]}
    distiller = Distiller(subjects.student, subjects.teacher, pair.objectives()["all"]).build([subjects.batch[0]])
    parts = {"logging": median(logging_s), **time_parts(distiller, subjects.batch[0], repeats=rounds)}
    seconds |= {f"part/{name}": value for name, value in parts.items()}
    return {
        "ratios": ratios,
        "processor_ratios": processor_ratios,
        "medians": {name: round(value * MILLISECONDS, 3) for name, value in seconds.items()},
        "spread": spread,
    }


def report(result: dict[str, Any]) -> None:
    """Print a table per pair."""
    for pair, medians in result["medians"].items():
        ratios, spread = result["pairs"][pair], result["spread"][pair]
        processor_ratios = result["processor_ratios"][pair]
        rows = []
        for name, milliseconds in medians.items():
            row = [name, f"{milliseconds:.2f}", "", "", ""]
            if name in ratios:
                low, high = spread[name]
                row[2:] = f"{ratios[name]:.3f}", f"{low:.3f} to {high:.3f}", f"{processor_ratios[name]:.3f}"
            rows.append(row)
        columns = ["variant or part", "median, ms", "ratio", "95 % interval", "of processor time"]
        print_table(f"{PAIRS[pair].teacher} to {PAIRS[pair].student}", columns, rows)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="steps of each variant (default: 30, with --quick 24)")
    parser.add_argument("--batch", type=int, default=8, help="images per step (%(default)s)")
    parser.add_argument("--pixels", type=int, help="height and width of the images (default: 224, with --quick 128)")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = arguments.rounds or (24 if arguments.quick else 30)
    batch, pixels = arguments.batch, arguments.pixels or (128 if arguments.quick else 224)
    result: dict[str, Any] = {"benchmark": "step_cost", "machine": machine(), "versions": versions()}
    result |= {"batch": batch, "pixels": pixels, "rounds": rounds}
    with without_lightning_advice():
        measured = {
            name: measure_pair(PAIRS[name], batch=batch, pixels=pixels, rounds=rounds) for name in arguments.pairs
        }
    pairs = {name: figures["ratios"] for name, figures in measured.items()}
    result["ratios"] = {name: max(ratios[name] for ratios in pairs.values()) for name in next(iter(pairs.values()))}
    result["pairs"] = pairs
    for key in ("medians", "spread", "processor_ratios"):
        result[key] = {name: figures[key] for name, figures in measured.items()}
    output = arguments.output or (None if arguments.quick else RESULTS / "step_cost.json")
    if output is not None:
        write_json(output, result)
    report(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
