"""What the teacher costs in a training step: running, cached, and run only as far as it is read.

Every variant is a real ``Trainer.fit`` of the same LightningModule on a `DataLoader` of its own over the same images,
advanced in lock step with the others as in `step_cost.py`. ``cached_to_student`` is the step of a student that is
taught by a cache (ten probabilities of each image, read in the training process, no workers) over the step of the
student alone. ``online_to_sum`` is the step with the running teacher over (student's step + teacher's forward pass).
``control``, a second Trainer on the student alone over the first, shows the noise. Each ratio is a median over all
rounds of four sittings, with the 95 % interval of a bootstrap over both as ``spread``; at the top level is the larger
one of the two pairs of networks.

``partial_to_full`` is the time of the teacher up to the feature that is distilled over its whole forward pass,
interleaved; ``partial`` has several depths, each beside the share of the floating-point operations that are left.

``records_per_second`` is the slower one of reading 100,000 random records in batches and one by one, on one core from a
warm page cache; ``bytes_per_sample`` are those of the files beside the record's arithmetic; ``memory`` is how far the
peak memory of a process grows while it reads 100,000 records of caches of very different sizes.
"""

import argparse
import copy
import math
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions, without_lightning_advice
from _records import measure_memory, measure_reading
from _steps import Classifier, Subjects, Times, Variant, time_variants
from step_cost import MILLISECONDS, PAIRS, SITTINGS, Pair, make_subjects
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from exporters.profiling.intervals import median_ratio
from lightning_kd import FrozenTeacher, KnowledgeDistillation, LogitKD
from lightning_kd.taps import Inputs, Tap
from lightning_kd.teachers import CacheSpec, CacheWriter, TeacherCache

FAR_AWAY = 1_000_000
BATCHES_OF_IMAGES = 8
DEPTHS = {"resnet": ("layer1", "layer2", "layer3", "layer4"), "vit": ("blocks.2", "blocks.5", "blocks.8", "blocks.11")}
Figures = dict[str, Any]


def loader(data: Dataset[Any], batch: int) -> DataLoader[Any]:
    """An endless loader of random batches."""
    return DataLoader(data, batch, sampler=RandomSampler(data, replacement=True, num_samples=FAR_AWAY * batch))


def variants_of(subjects: Subjects, data: Dataset[Any], cache: TeacherCache, batch: int) -> dict[str, Variant]:
    """The student alone, twice, and with either teacher, each on copies of its own."""

    def variant(source: Dataset[Any], *callbacks: KnowledgeDistillation) -> Variant:
        return Variant(Classifier(copy.deepcopy(subjects.student)), callbacks, loader(source, batch))

    online = KnowledgeDistillation(copy.deepcopy(subjects.teacher), student="net", objectives=[LogitKD()])
    cached = KnowledgeDistillation(cache, student="net", objectives=[LogitKD()])
    return {
        "student": variant(data),
        "control": variant(data),
        "online": variant(data, online),
        "cached": variant(cache.dataset(data), cached),
    }


def measure_steps(pair: Pair, *, batch: int, pixels: int, rounds: int) -> Figures:
    """Ratios, medians in ms and spread of the steps of one pair."""
    subjects = make_subjects(pair, batch=batch, pixels=pixels)
    count = batch * BATCHES_OF_IMAGES
    data = TensorDataset(torch.randn(count, 3, pixels, pixels), torch.arange(count) % batch)
    sittings: list[Times] = []
    with tempfile.TemporaryDirectory() as folder:
        CacheWriter(folder, copy.deepcopy(subjects.teacher), data, CacheSpec(top_k=10)).write(batch_size=batch)
        for _ in range(SITTINGS):
            variants = variants_of(subjects, data, TeacherCache(folder), batch)
            wall, _ = time_variants(variants, subjects, math.ceil(rounds / SITTINGS))
            sittings.append(wall)
    ratios, spread = ratios_of(sittings)
    seconds = {name: median(chain.from_iterable(times[name] for times in sittings)) for name in sittings[0]}
    medians = {name: round(value * MILLISECONDS, 3) for name, value in seconds.items()}
    return {"ratios": ratios, "spread": spread, "medians": medians}


def ratios_of(sittings: Sequence[Times]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The ratios of steps, and their 95 % intervals."""
    columns = {name: [np.array(times[name])[:, None] for times in sittings] for name in sittings[0]}
    together = [student + teacher for student, teacher in zip(columns["student"], columns["teacher"], strict=True)]
    compared = {
        "cached_to_student": (columns["cached"], columns["student"]),
        "online_to_sum": (columns["online"], together),
        "control": (columns["control"], columns["student"]),
    }
    found = {name: median_ratio(*columns, seed=0) for name, columns in compared.items()}
    ratios = {name: round(estimate.value, 4) for name, estimate in found.items()}
    return ratios, {name: [round(e.low, 4), round(e.high, 4)] for name, e in found.items()}


def measure_partial(name: str, *, batch: int, pixels: int, rounds: int) -> dict[str, Figures]:
    """Time of the teacher up to each depth over that of its whole forward pass, and the share of operations left."""
    subjects = make_subjects(PAIRS[name], batch=batch, pixels=pixels)
    inputs = Inputs((subjects.batch[0],))
    works = {"whole": partial(FrozenTeacher(subjects.teacher).observe, inputs)}
    for depth in DEPTHS[name]:
        teacher = FrozenTeacher(copy.deepcopy(subjects.teacher))
        teacher.tap([Tap(depth)])
        works[depth] = partial(teacher.observe, inputs, stop=True)
    operations = {}
    for place, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        operations[place] = counter.get_total_flops()
    seconds: Times = {place: [] for place in works}
    order, shuffle = list(works), random.Random(0).shuffle  # noqa: S311 - an order, no secret
    for _ in range(rounds):
        shuffle(order)
        for place in order:
            start = time.perf_counter()
            works[place]()
            seconds[place].append(time.perf_counter() - start)
    columns = {place: [np.array(times)[:, None]] for place, times in seconds.items()}
    rows = {}
    for depth in DEPTHS[name]:
        estimate = median_ratio(columns[depth], columns["whole"], seed=0)
        rows[depth] = {
            "ratio": round(estimate.value, 4),
            "interval": [round(estimate.low, 4), round(estimate.high, 4)],
            "share_of_operations": round(operations[depth] / operations["whole"], 4),
        }
    return rows


def report(result: Figures) -> None:
    """Print the tables."""
    for pair, ratios in result["pairs"].items():
        rows = [
            [name, f"{ratio:.3f}", "{:.3f} to {:.3f}".format(*result["spread"][pair][name])]
            for name, ratio in ratios.items()
        ]
        print_table(f"{PAIRS[pair].teacher} to {PAIRS[pair].student}", ["step", "ratio", "95 % interval"], rows)
        rows = [
            [
                depth,
                f"{row['ratio']:.3f}",
                "{:.3f} to {:.3f}".format(*row["interval"]),
                f"{row['share_of_operations']:.3f}",
            ]
            for depth, row in result["partial"][pair].items()
        ]
        columns = ["up to", "time", "95 % interval", "operations"]
        print_table(f"{PAIRS[pair].teacher}, part over whole", columns, rows)
    rates = result["reading"]["records_per_second"]
    rows = [[name, f"{rate['median']:,}", f"{rate['low']:,} to {rate['high']:,}"] for name, rate in rates.items()]
    print_table("Records per second", ["read", "median", "range"], rows)
    rows = [
        [f"{row['records']:,}", f"{row['cache_bytes']:,}", f"{row['peak_growth_bytes']:,}"] for row in result["memory"]
    ]
    print_table("Peak memory", ["records", "bytes of the cache", "growth while reading, bytes"], rows)


def parse() -> argparse.Namespace:
    """Read the command line, and fill in what depends on ``--quick``."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="steps of each variant (default: 40; with --quick 24)")
    parser.add_argument("--batch", type=int, default=8, help="images per step (%(default)s)")
    parser.add_argument("--pixels", type=int, help="height and width (default: 224; with --quick 96)")
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument(
        "--records", type=int, help="records of the cache that is read (default: 1,000,000; quick 100,000)"
    )
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (24 if arguments.quick else 40)
    arguments.pixels = arguments.pixels or (96 if arguments.quick else 224)
    arguments.records = arguments.records or (100_000 if arguments.quick else 1_000_000)
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    sizes = {"batch": arguments.batch, "pixels": arguments.pixels, "rounds": arguments.rounds}
    result: Figures = {"benchmark": "teacher_cost", "machine": machine(), "versions": versions(), **sizes}
    with without_lightning_advice():
        measured = {name: measure_steps(PAIRS[name], **sizes) for name in arguments.pairs}
    result["partial"] = {name: measure_partial(name, **sizes) for name in arguments.pairs}
    reading = measure_reading(arguments.records, repeats=3 if arguments.quick else 7)
    result["pairs"] = {name: figures["ratios"] for name, figures in measured.items()}
    result["spread"] = {name: figures["spread"] for name, figures in measured.items()}
    result["medians"] = {name: figures["medians"] for name, figures in measured.items()}
    result["ratios"] = {
        name: max(ratios[name] for ratios in result["pairs"].values())
        for name in ("cached_to_student", "online_to_sum")
    }
    depths = {name: PAIRS[name].features[1] for name in arguments.pairs}
    result["ratios"]["partial_to_full"] = max(result["partial"][name][depth]["ratio"] for name, depth in depths.items())
    result["reading"] = reading
    rates = reading["records_per_second"]
    result["records_per_second"] = min(rates["in_batches"]["median"], rates["one_by_one"]["median"])
    result["bytes_per_sample"] = reading["bytes_per_sample"]["record"]
    result["memory"] = measure_memory([10_000, arguments.records, 4 * arguments.records])
    report(result)
    deliver(result, arguments, default=None if arguments.quick else RESULTS / "teacher_cost.json")


if __name__ == "__main__":
    main()
