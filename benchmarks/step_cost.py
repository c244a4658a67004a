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

``--methods`` measures methods of the catalogue instead (`_methods.py`), each as its recipe: a few at a time, beside a
student and a teacher in two sittings of their own. With them goes what a step keeps in memory (`_memory.py`), in bytes:
tensors saved for the backward pass, parameters of student and adapters, and memory banks (CRD remembers 50,000 images);
on a GPU the peak as well. The student's own step is there to compare.
"""

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

import timm
import torch
from _common import (
    RESULTS,
    machine,
    options,
    print_table,
    versions,
    without_lightning_advice,
    write_json,
)
from _memory import distilled_memory, plain_memory
from _methods import METHODS, Setting
from _parts import time_parts
from _steps import ByHand, Classifier, Subjects, Times, Variant, compare, task_loss, time_variants
from torch import nn

from lightning_kd import CKAKD, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Objective, PatchEmbeddingKD

SITTINGS, SITTINGS_OF_METHODS = 4, 2
MILLISECONDS = 1e3
CLASSES, REMEMBERED_IMAGES = 100, 50_000
METHODS_AT_A_TIME = 6
Figures = dict[str, Any]


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


def make_subjects(pair: Pair, *, batch: int, pixels: int) -> Subjects:
    """Create the networks with random weights, and images of ``pixels`` by ``pixels``."""
    torch.manual_seed(0)
    sizes = {"img_size": pixels} if pair.student.startswith("vit") else {}
    student, teacher = (timm.create_model(name, num_classes=CLASSES, **sizes) for name in (pair.student, pair.teacher))
    images = torch.randn(batch, 3, pixels, pixels)
    return Subjects(student=student, teacher=teacher.eval(), batch=(images, torch.arange(batch), torch.arange(batch)))


def variants_of(pair: Pair, subjects: Subjects) -> dict[str, Variant]:
    """Every variant by name, each on its own copies of the networks."""

    def student() -> nn.Module:
        return copy.deepcopy(subjects.student)

    variants = {"student": Variant(Classifier(student())), "control": Variant(Classifier(student()))}
    variants["by_hand"] = Variant(ByHand(student(), copy.deepcopy(subjects.teacher).requires_grad_(False)))
    for name, objectives in pair.objectives().items():
        kd = KnowledgeDistillation(copy.deepcopy(subjects.teacher), student="net", objectives=objectives)
        variants[name] = Variant(Classifier(student()), [kd])
    return variants


def measure_pair(pair: Pair, *, batch: int, pixels: int, rounds: int) -> dict[str, Figures]:
    """Ratios, medians in ms and spread of one pair of networks."""
    subjects = make_subjects(pair, batch=batch, pixels=pixels)
    wall: list[Times] = []
    processor: list[Times] = []
    logging_s: list[float] = []
    for _ in range(SITTINGS):
        variants = variants_of(pair, subjects)
        times = time_variants(variants, subjects, math.ceil(rounds / SITTINGS))
        wall.append(times[0])
        processor.append(times[1])
        logging_s += variants["all"].module.logging_s
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


def setting_of(subjects: Subjects) -> Setting:
    """New copies of the networks, for one method."""
    student, teacher = copy.deepcopy(subjects.student), copy.deepcopy(subjects.teacher)
    labels = torch.arange(REMEMBERED_IMAGES) % CLASSES
    return Setting(teacher=teacher, student=student, images=subjects.batch[0], labels=labels)


def distilled(name: str, subjects: Subjects) -> tuple[nn.Module, KnowledgeDistillation]:
    """The student that the method ``name`` trains, and its callback."""
    setting = setting_of(subjects)
    return METHODS[name].student(setting), METHODS[name].recipe(setting)


def time_methods(names: Sequence[str], subjects: Subjects, rounds: int) -> dict[str, Figures]:
    """Ratios of methods that are measured together, by name; ``control`` among them."""
    wall: list[Times] = []
    processor: list[Times] = []
    for _ in range(SITTINGS_OF_METHODS):
        variants = {name: Variant(Classifier(copy.deepcopy(subjects.student))) for name in ("student", "control")}
        for name in names:
            net, kd = distilled(name, subjects)
            variants[name] = Variant(Classifier(net), [kd])
        times = time_variants(variants, subjects, math.ceil(rounds / SITTINGS_OF_METHODS))
        wall.append(times[0])
        processor.append(times[1])
    ratios, spread = compare(wall)
    processor_ratios, _ = compare(processor)
    return {
        name: {"ratio": ratio, "interval": spread[name], "processor_ratio": processor_ratios[name]}
        for name, ratio in ratios.items()
    }


def measure_methods(pair: Pair, wanted: Sequence[str], *, batch: int, pixels: int, rounds: int) -> Figures:
    """Ratios and memory of the methods ``wanted`` on one pair of networks, or why there are none."""
    subjects = make_subjects(pair, batch=batch, pixels=pixels)
    found = {name: METHODS[name].obstacle(setting_of(subjects)) for name in wanted}
    rows: Figures = {name: {"obstacle": why} for name, why in found.items() if why}
    names = [name for name in wanted if name not in rows]
    controls = []
    for start in range(0, len(names), METHODS_AT_A_TIME):
        figures = time_methods(names[start : start + METHODS_AT_A_TIME], subjects, rounds)
        controls.append(figures.pop("control"))
        rows |= figures
        print(f"{pair.student}: {', '.join(figures)}", flush=True)
    for name in names:
        net, kd = distilled(name, subjects)
        rows[name] |= {"memory": asdict(distilled_memory(net, kd, subjects.batch, task_loss))}
    alone = plain_memory(copy.deepcopy(subjects.student), subjects.batch, task_loss)
    return {"controls": controls, "student_memory": asdict(alone), "methods": {name: rows[name] for name in wanted}}


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


def report_methods(result: Figures) -> None:
    """Print a table per pair."""
    columns = [
        "method",
        "ratio",
        "95 % interval",
        "of processor time",
        "saved, MiB more",
        "adapters, MiB",
        "buffers, MiB",
    ]
    for pair, figures in result["pairs"].items():
        rows = []
        for name, row in figures["methods"].items():
            if "obstacle" in row:
                rows.append([name, "", row["obstacle"], "", "", "", ""])
                continue
            memory, alone, (low, high) = row["memory"], figures["student_memory"], row["interval"]
            sizes = [f"{(memory[key] - alone[key]) / 2**20:.2f}" for key in ("saved", "parameters", "buffers")]
            ratios = [f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['processor_ratio']:.3f}"]
            rows.append([name, *ratios, *sizes])
        print_table(f"{PAIRS[pair].teacher} to {PAIRS[pair].student}", columns, rows)


def parse() -> argparse.Namespace:
    """Read the command line, and fill in what depends on ``--quick`` and ``--methods``."""
    parser = options(__doc__)
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=list(METHODS),
        metavar="METHOD",
        help=f"measure methods of the catalogue, all if none is named: {', '.join(METHODS)}",
    )
    parser.add_argument("--rounds", type=int, help="steps of each variant (default: 30; with --quick 24, of methods 8)")
    parser.add_argument("--batch", type=int, default=8, help="images per step (%(default)s)")
    parser.add_argument("--pixels", type=int, help="height and width (default: 224; with --quick 128, of methods 64)")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    arguments = parser.parse_args()
    if arguments.methods == []:
        arguments.methods = list(METHODS)
    rounds, pixels = (8, 64) if arguments.methods else (24, 128)
    arguments.rounds = arguments.rounds or (rounds if arguments.quick else 30)
    arguments.pixels = arguments.pixels or (pixels if arguments.quick else 224)
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / ("step_cost_methods.json" if arguments.methods else "step_cost.json")
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    sizes = {"batch": arguments.batch, "pixels": arguments.pixels, "rounds": arguments.rounds}
    result: Figures = {"benchmark": "step_cost", "machine": machine(), "versions": versions(), **sizes}
    measure = partial(measure_methods, wanted=arguments.methods) if arguments.methods else measure_pair
    with without_lightning_advice():
        measured = {name: measure(PAIRS[name], **sizes) for name in arguments.pairs}
    if arguments.methods:
        result["pairs"] = measured
    else:
        pairs = {name: figures["ratios"] for name, figures in measured.items()}
        result["ratios"] = {name: max(ratios[name] for ratios in pairs.values()) for name in next(iter(pairs.values()))}
        result["pairs"] = pairs
        for key in ("medians", "spread", "processor_ratios"):
            result[key] = {name: figures[key] for name, figures in measured.items()}
    if arguments.output is not None:
        write_json(arguments.output, result)
    (report_methods if arguments.methods else report)(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
