"""Accuracy of int8 students on Fashion-MNIST: quantised after training, trained with quantisation, distilled meanwhile.

A distilled student of each architecture (`_pairs.py`) is trained in floating point. Then, from those same weights:

- ``int8, after training``: exported to each runtime with calibration on 300 training images, and run in it;
- ``int8, QAT`` and ``int8, QAT and KD``: trained on with `QuantizationAwareTraining`, without a teacher and with the
  teacher that it learned from; exported without calibration and run in each runtime for the first seed;
- the same three with weights of 3 bits, where rounding after training loses most (activations stay int8);
- ``float, trained on``: distilled as long without rounding, so that the gain of more steps can be told apart.

Drops are in points of accuracy from the float student of the same seed, on the same test images; less is better, and a
negative one is a gain. Initial weights and order of the data depend on the seed only. Nothing was tuned on the test
images. Runs are shared by worker processes of one thread each.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import lightning as L
import torch
from _common import RESULTS, machine, options, print_table, versions, write_json
from _data import Images, read_fashion_mnist
from _pairs import PAIRS
from _training import OPTIMISER, Run, fit_classifier, mean, spread
from torch import nn

import exporters
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd import KnowledgeDistillation, QuantizationAwareTraining
from lightning_kd.objectives import DISTKD

RUNTIMES = ("executorch", "onnx", "openvino")
BITS = (8, 3)
CALIBRATION_IMAGES = 300
TUNING_RATE = 5e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained and evaluated.

    Attributes:
        teacher_images: Images that teachers are trained on.
        student_images: Images that students are trained on.
        test_images: Images that all are tested on.
        teacher_epochs: Epochs of the teachers.
        student_epochs: Epochs of the students.
        tuning_epochs: Further epochs, with and without quantisation.
        batch: Images per run of an exported student.
    """

    teacher_images: int = 10_000
    student_images: int = 3_000
    test_images: int = 2_000
    teacher_epochs: int = 4
    student_epochs: int = 4
    tuning_epochs: int = 2
    batch: int = 50


QUICK = Sizes(
    teacher_images=500, student_images=200, test_images=100, teacher_epochs=1, student_epochs=1, tuning_epochs=1
)


class Bench:
    """Trains, quantises and evaluates the students of one pair and seed.

    Args:
        pair: Name of the pair.
        seed: Seed of initial weights and order of the data.
        sizes: How much is trained and evaluated.
        teacher: The trained teacher of the pair.
    """

    def __init__(self, pair: str, seed: int, sizes: Sizes, teacher: nn.Module | None = None) -> None:
        torch.set_num_threads(1)
        L.seed_everything(seed, verbose=False)
        self.pair = pair
        self.seed = seed
        self.sizes = sizes
        self.teacher = teacher
        self.images: Images = read_fashion_mnist(train_images=sizes.teacher_images, test_images=sizes.test_images)
        self.train = self.images.first(sizes.student_images)

    def train_teacher(self) -> nn.Module:
        """Train the teacher of the pair."""
        teacher = PAIRS[self.pair].make_teacher()
        epochs = self.sizes.teacher_epochs
        fit_classifier(teacher, self.images.train, self.images.test, seed=0, epochs=epochs, every=epochs)
        return teacher.requires_grad_(False)

    def runs(self, runtimes: Sequence[str], *, export_trained: bool) -> Iterator[Run]:
        """Every measured accuracy of this pair and seed."""
        student = PAIRS[self.pair].make_student()
        self.fit(student, self.sizes.student_epochs, [self.distillation()])
        yield self.measured("float", student)
        tuned = copy.deepcopy(student)
        self.fit(tuned, self.sizes.tuning_epochs, [self.distillation()], learning_rate=TUNING_RATE)
        yield self.measured("float, trained on", tuned)
        for runtime in runtimes:
            yield self.exported("int8, after training", student, runtime, calibration=self.calibration)
        for bits in BITS:
            yield from self.quantized(student, bits, runtimes if export_trained and bits == 8 else ())

    def quantized(self, student: nn.Module, bits: int, runtimes: Sequence[str]) -> Iterator[Run]:
        """Accuracies with integer weights of so many bits: rounded, trained, and distilled."""
        how = FakeQuantization(weight_bits=bits, learned_scales=bits < 8)
        name = f"int{bits}"
        rounded = copy.deepcopy(student)
        prepare_qat(rounded, self.calibration[:2], FakeQuantization(weight_bits=bits))
        calibrate(rounded, self.calibration.split(self.sizes.batch))
        yield self.measured(f"{name}, after training", rounded)
        for variant, distillation in (("QAT", []), ("QAT and KD", [self.distillation()])):
            trained = copy.deepcopy(student)
            callbacks = [*distillation, QuantizationAwareTraining(how, student="net")]
            self.fit(trained, self.sizes.tuning_epochs, callbacks, learning_rate=TUNING_RATE)
            yield self.measured(f"{name}, {variant}", trained)
            for runtime in runtimes:
                yield self.exported(f"{name}, {variant}", trained, runtime, calibration=None)

    @property
    def calibration(self) -> torch.Tensor:
        """The training images that ranges are measured on."""
        images: torch.Tensor = self.train.tensors[0][:CALIBRATION_IMAGES]
        return images

    def distillation(self) -> KnowledgeDistillation:
        """What distils the student from the pair's teacher."""
        return KnowledgeDistillation(copy.deepcopy(self.teacher), student="net", objectives=[DISTKD()])

    def fit(self, net: nn.Module, epochs: int, callbacks: Sequence[L.Callback], **settings: float) -> None:
        """Train a network."""
        test = self.images.test
        fit_classifier(
            net, self.train, test, seed=self.seed, epochs=epochs, every=epochs, callbacks=callbacks, **settings
        )

    def measured(self, variant: str, net: nn.Module) -> Run:
        """Accuracy of a network in PyTorch."""
        net.eval()
        with torch.no_grad():
            predicted = torch.cat([net(images).argmax(1) for images in self.images.test.tensors[0].split(500)])
        return self.record(variant, "pytorch", predicted)

    def exported(self, variant: str, net: nn.Module, runtime: str, *, calibration: torch.Tensor | None) -> Run:
        """Accuracy of an int8 export in its runtime."""
        suffix = import_runtime(EXPORTERS, runtime)().suffix
        processor = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            artifact = exporters.export(
                net,
                self.calibration[: self.sizes.batch],
                to=runtime,  # type: ignore[arg-type]
                path=Path(folder) / f"student{suffix}",
                precision="int8",
                calibration=calibration,
            )
            export_s = round(time.process_time() - processor, 1)
            session = exporters.load(artifact, threads=1)
            predicted = [
                torch.from_numpy(next(iter(session.run({session.inputs[0].name: images.numpy()}).values()))).argmax(1)
                for images in self.images.test.tensors[0].split(self.sizes.batch)
            ]
        recipe = artifact.quantization.recipe if artifact.quantization else ""
        facts = {"recipe": recipe, "size_bytes": artifact.size_bytes, "export_processor_s": export_s}
        return self.record(variant, runtime, torch.cat(predicted)) | facts

    def record(self, variant: str, runtime: str, predicted: torch.Tensor) -> Run:
        """What is known of one measurement."""
        accuracy = 100.0 * (predicted == self.images.test.tensors[1]).double().mean().item()
        return {"pair": self.pair, "seed": self.seed, "variant": variant, "runtime": runtime} | {
            "accuracy": round(accuracy, 2)
        }


def train_teacher(pair: str, sizes: Sizes) -> nn.Module:
    """In a worker process: train one teacher."""
    return Bench(pair, 0, sizes).train_teacher()


def measure_students(
    pair: str, seed: int, sizes: Sizes, teacher: nn.Module, runtimes: Sequence[str], export_trained: bool
) -> list[Run]:
    """In a worker process: everything of one pair and seed."""
    try:
        return list(Bench(pair, seed, sizes, teacher).runs(runtimes, export_trained=export_trained))
    except Exception as error:
        raise RuntimeError(f"this run failed: {pair}, seed {seed}") from error


def summarise(runs: Sequence[Run]) -> list[Run]:
    """One row per variant and runtime: accuracies by seed, their mean, and drops from the float student in points."""
    floats = {run["seed"]: run["accuracy"] for run in runs if run["variant"] == "float"}
    rows = []
    for key in dict.fromkeys((run["variant"], run["runtime"]) for run in runs):
        own = [run for run in runs if (run["variant"], run["runtime"]) == key]
        drops = [round(floats[run["seed"]] - run["accuracy"], 2) for run in own]
        row = {"variant": key[0], "runtime": key[1], "seeds": [run["seed"] for run in own]}
        row |= {"accuracies": [run["accuracy"] for run in own], "mean": mean([run["accuracy"] for run in own])}
        row |= {"drops": drops, "drop": mean(drops), "drop_spread": spread(drops)}
        rows.append(row | {name: [run[name] for run in own] for name in ("recipe", "size_bytes") if name in own[0]})
    return rows


def report(result: Run) -> None:
    """Print the rows of each pair as a table."""
    for pair, content in result["pairs"].items():
        rows = [
            [
                row["variant"],
                row["runtime"],
                f"{row['mean']:.2f}",
                f"{row['drop']:+.2f}",
                "-" if row["drop_spread"] is None else f"{row['drop_spread']:.2f}",
            ]
            for row in content["rows"]
        ]
        print_table(f"{PAIRS[pair].student}", ["variant", "runtime", "accuracy, %", "drop, points", "spread"], rows)


def measure(arguments: argparse.Namespace, sizes: Sizes) -> Run:
    """Train the teachers, then everything else, writing the result file after each pair and seed."""
    start = time.perf_counter()
    result: Run = {"benchmark": "int8_students", "machine": machine() | {"threads": 1}, "versions": versions()}
    result |= {"sizes": asdict(sizes), "workers": arguments.workers, "optimiser": OPTIMISER}
    result |= {"tuning_learning_rate": TUNING_RATE, "calibration_images": CALIBRATION_IMAGES}
    result |= {"source": read_fashion_mnist(train_images=1, test_images=1).source}
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        teachers = dict(
            zip(arguments.pairs, pool.map(train_teacher, arguments.pairs, [sizes] * len(arguments.pairs)), strict=True)
        )
        futures = [
            pool.submit(
                measure_students, pair, seed, sizes, teachers[pair], arguments.runtimes, seed == arguments.seeds[0]
            )
            for seed, pair in product(arguments.seeds, arguments.pairs)
        ]
        runs: list[Run] = []
        for future in as_completed(futures):
            runs += future.result()
            print(f"{runs[-1]['pair']}, seed {runs[-1]['seed']}: done", flush=True)
            result["pairs"] = {pair: _content(pair, runs) for pair in arguments.pairs}
            result["wall_s"] = round(time.perf_counter() - start)
            if arguments.output is not None:
                write_json(arguments.output, result)
    return result


def _content(pair: str, runs: Sequence[Run]) -> Run:
    own = sorted((run for run in runs if run["pair"] == pair), key=lambda run: int(run["seed"]))
    return {"student": PAIRS[pair].student, "teacher": PAIRS[pair].teacher, "rows": summarise(own), "runs": own}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2, with --quick 0")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, of one thread each (%(default)s)")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "int8_students.json"
    result = measure(arguments, QUICK if arguments.quick else Sizes())
    report(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
