"""Top-1 accuracy of distilled students on CIFAR-100, in the protocol that most papers on distillation report.

240 epochs of 782 steps of 64 images on one device: SGD with momentum 0.9, without Nesterov's, learning rate 0.05 (0.01
for the MobileNet and ShuffleNet students), a tenth from epochs 151, 181 and 211 on; weight decay 5e-4 on every
parameter; random crops with a padding of 4, and mirroring; float32. The networks and their places are in
`_cifar_networks.py`, the pairs and each method's weights in `_cifar_methods.py`. A student is distilled by nothing but
the KnowledgeDistillation callback; initial weights and order of the data depend on the seed only.

The protocol has no validation images, and papers report the best of 240 test accuracies, mean of five runs. In public
logs that is 0.1 to 0.5 points above the last epoch, which is what a training run ends with; both are reported here.

    python benchmarks/cifar100.py --data FOLDER --download --train-teacher --on-device --compile

trains the teacher once, keeps it in ``--teachers``, and then every method with five seeds. ``--on-device`` keeps the
images on the GPU. With another number of epochs the learning rate falls at the same fractions of the training, and
published figures are no comparison. ``--fast`` shows the machinery: generated images, a small pair, two methods.
Accuracies are in per cent of the test images. Finished runs are written at once, so that an interruption keeps them.
"""

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from _cifar_data import Batches, Images, generated_images, read_cifar100
from _cifar_methods import PAIRS, PUBLISHED, Pair, methods
from _cifar_networks import ARCHITECTURES
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
from _training import Classifier, Run, summarise
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from lightning_kd import KnowledgeDistillation
from lightning_kd.checkpoints import load_weights

CACHE = Path.home() / ".cache" / "lightning-kd"
TEST_BATCH = 500
TEACHER_LEARNING_RATE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How every network is trained.

    Attributes:
        epochs: Number of epochs.
        batch: Images per step.
        momentum: Of SGD.
        weight_decay: Of every parameter, adapters too.
    """

    epochs: int = 240
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def milestones(self) -> list[int]:
        """Epochs, counted from 1, after which the learning rate falls to a tenth: 150, 180, 210 of 240."""
        return [math.ceil(self.epochs * eighths / 8) for eighths in (5, 6, 7)]


class CifarClassifier(Classifier):
    """Trained with the protocol's SGD."""

    def __init__(self, net: nn.Module, protocol: Protocol, learning_rate: float) -> None:
        super().__init__(net)
        self.protocol = protocol
        self.learning_rate = learning_rate

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD with momentum, and the learning rate's three falls at the end of epochs."""
        optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=self.learning_rate,
            momentum=self.protocol.momentum,
            weight_decay=self.protocol.weight_decay,
        )
        falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, self.protocol.milestones, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": falls}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs share.

    Attributes:
        images: Training and test images.
        protocol: How every network is trained.
        device: Where it is trained.
        compiled: Whether networks are compiled.
    """

    images: Images
    protocol: Protocol
    device: torch.device
    compiled: bool

    def network(self, name: str) -> nn.Module:
        """A new network with random weights."""
        return ARCHITECTURES[name].make(self.images.classes)

    def prepared(self, net: nn.Module) -> nn.Module:
        """The network itself, in the form in which it runs."""
        if self.compiled:
            net.compile(dynamic=False)
        return net

    def trainer(self, **settings: Any) -> L.Trainer:
        """Silent Trainer on the device."""
        accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        return silent_trainer(accelerator=accelerator, benchmark=True, num_sanity_val_steps=0, **settings)

    def fit(
        self, net: nn.Module, *, seed: int, learning_rate: float, callbacks: Sequence[L.Callback] = ()
    ) -> tuple[list[float], float]:
        """Train ``net`` and return its test accuracy after every epoch, per cent, and the seconds it took."""
        module = CifarClassifier(self.prepared(net), self.protocol, learning_rate)
        trainer = self.trainer(max_epochs=self.protocol.epochs, callbacks=list(callbacks))
        train = Batches(self.images.train, size=self.protocol.batch, seed=seed)
        start = time.perf_counter()
        trainer.fit(module, train, Batches(self.images.test, size=TEST_BATCH))
        return module.accuracies, round(time.perf_counter() - start, 1)

    def accuracy(self, net: nn.Module) -> float:
        """Test accuracy of ``net``, per cent."""
        module = Classifier(net)
        self.trainer().validate(module, Batches(self.images.test, size=TEST_BATCH), verbose=False)
        return module.accuracies[-1]


def find_teacher(bench: Bench, name: str, folder: Path, *, train: bool) -> tuple[nn.Module, Run]:
    """Load the teacher, or train it and keep it.

    Args:
        bench: What all runs share.
        name: Of the architecture.
        folder: Where teachers are kept, as ``<name>.pt``.
        train: Whether a missing one is trained, with seed 0.

    Returns:
        The teacher and what is known of it.

    Raises:
        FileNotFoundError: If it is missing and must not be trained.
    """
    path = folder / f"{name}.pt"
    found: Run = {"name": name}
    L.seed_everything(0, verbose=False)
    teacher = bench.network(name)
    if not path.exists():
        if not train:
            raise FileNotFoundError(f"`--teachers` must hold {path.name}, got {folder}: train it with --train-teacher.")
        accuracies, wall_s = bench.fit(teacher, seed=0, learning_rate=TEACHER_LEARNING_RATE)
        found |= {"accuracies": accuracies, "wall_s": wall_s}
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(teacher.state_dict(), path)
    teacher = bench.network(name)
    load_weights(teacher, path)
    return teacher, found | {"accuracy": bench.accuracy(teacher)}


def train_student(bench: Bench, pair: Pair, name: str, teacher: nn.Module, *, seed: int) -> Run:
    """Train one student and return the record of this run."""
    method = methods(pair, bench.images.train.labels.cpu())[name]
    L.seed_everything(seed, verbose=False)
    student = bench.network(pair.student)
    callbacks = []
    if method.objectives:
        example = bench.images.train.images[:2].cpu() / 255
        kd = KnowledgeDistillation(
            bench.prepared(copy.deepcopy(teacher)),
            student="net",
            objectives=method.objectives,
            task_weight=method.task_weight,
            example_inputs=example,
        )
        callbacks.append(kd)
    learning_rate = ARCHITECTURES[pair.student].learning_rate
    accuracies, wall_s = bench.fit(student, seed=seed, learning_rate=learning_rate, callbacks=callbacks)
    weights = {"task": method.task_weight}
    weights |= {term.name: asdict(term.weight) if callable(term.weight) else term.weight for term in method.objectives}
    return {"method": name, "weights": weights, "seed": seed, "accuracies": accuracies, "wall_s": wall_s}


def measure(
    bench: Bench, pair: Pair, names: Sequence[str], seeds: Sequence[int], teachers: Path, arguments: argparse.Namespace
) -> Run:
    """Train or load the teacher, train every student, and write the result file after each."""
    start = time.perf_counter()
    teacher, found = find_teacher(bench, pair.teacher, teachers, train=arguments.train_teacher or arguments.fast)
    print(f"teacher {pair.teacher}: {found['accuracy']:.2f} %", flush=True)
    protocol = asdict(bench.protocol) | {"milestones": bench.protocol.milestones}
    protocol |= {"learning_rate": ARCHITECTURES[pair.student].learning_rate}
    result: Run = {"benchmark": "cifar100", "machine": machine(), "versions": versions()}
    result |= {"source": bench.images.source, "protocol": protocol, "teacher": found}
    result |= {"on_device": arguments.on_device, "compiled": bench.compiled}
    result |= {"tf32_convolutions": bench.device.type == "cuda" and torch.backends.cudnn.allow_tf32}
    published = PUBLISHED[pair.name] if comparable(bench) else {}
    runs: list[Run] = []
    for seed, name in product(seeds, names):
        runs.append(train_student(bench, pair, name, teacher, seed=seed))
        last, best = runs[-1]["accuracies"][-1], max(runs[-1]["accuracies"])
        print(f"seed {seed}, {name}: last {last:.2f} %, best {best:.2f} % in {runs[-1]['wall_s']} s", flush=True)
        rows = summarise(runs, teacher=pair.teacher, student=pair.student)
        rows = [row | {"published_best": published.get(row["method"])} for row in rows]
        result |= {"rows": rows, "runs": runs, "wall_s": round(time.perf_counter() - start)}
        if arguments.output is not None:
            write_json(arguments.output, result)
    return result


def comparable(bench: Bench) -> bool:
    """Whether this is the published protocol on the published number of images."""
    counts = len(bench.images.train.labels), len(bench.images.test.labels)
    return bench.protocol == Protocol() and bench.images.classes == 100 and counts == (50_000, 10_000)


def report(result: Run) -> None:
    """Print the rows as a table."""
    keys = ("mean_last", "spread_last", "mean_best", "spread_best", "published_best", "gain", "gain_spread", "wall_s")
    rows = [
        [row["method"], *("-" if row[key] is None else f"{row[key]:.2f}" for key in keys)] for row in result["rows"]
    ]
    teacher, student = result["teacher"], result["rows"][0]["student"]
    title = f"{student} from {teacher['name']} ({teacher['accuracy']:.2f} %), {result['source']}"
    columns = [
        "method",
        "last, %",
        "spread",
        "best, %",
        "spread",
        "published best",
        "gain of last",
        "spread",
        "s per run",
    ]
    print_table(title, columns, rows)


def parse() -> argparse.Namespace:
    """Read the command line, and fill in what depends on ``--fast``."""
    parser = options(__doc__, "--fast")
    names = list(methods(next(iter(PAIRS.values())), torch.arange(2)))
    parser.add_argument("--pair", choices=list(PAIRS), help="default: resnet32x4-resnet8x4, vgg13-vgg8 if --fast")
    parser.add_argument("--methods", nargs="+", choices=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2 3 4, 0 if --fast")
    parser.add_argument("--epochs", type=int, help="default: 240, 3 if --fast")
    parser.add_argument("--data", type=Path, default=CACHE, help="folder of the images (%(default)s)")
    parser.add_argument("--download", action="store_true", help="let torchvision download the images to --data")
    parser.add_argument("--teachers", type=Path, default=CACHE / "cifar100", help="folder of teachers (%(default)s)")
    parser.add_argument("--train-teacher", action="store_true", help="train the teacher if --teachers has none")
    parser.add_argument("--on-device", action="store_true", help="keep the images on the device that trains")
    parser.add_argument("--compile", action="store_true", help="compile teacher and student")
    arguments = parser.parse_args()
    fast = arguments.fast
    arguments.pair = arguments.pair or ("vgg13-vgg8" if fast else "resnet32x4-resnet8x4")
    arguments.methods = arguments.methods or (["alone", "KD"] if fast else names)
    arguments.seeds = arguments.seeds or ([0] if fast else list(range(5)))
    arguments.epochs = arguments.epochs or (3 if fast else Protocol().epochs)
    if arguments.output is None and not fast:
        arguments.output = RESULTS / f"cifar100_{arguments.pair}.json"
    return arguments


def main() -> None:
    arguments = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.fast:
        images = generated_images(train=256, test=256, classes=10)
    else:
        images = read_cifar100(arguments.data, download=arguments.download)
    bench = Bench(
        images=images.to(device) if arguments.on_device else images,
        protocol=Protocol(epochs=arguments.epochs, batch=16 if arguments.fast else 64),
        device=device,
        compiled=arguments.compile,
    )
    with without_lightning_advice(), tempfile.TemporaryDirectory() as folder:
        teachers = Path(folder) if arguments.fast else arguments.teachers
        result = measure(bench, PAIRS[arguments.pair], arguments.methods, arguments.seeds, teachers, arguments)
    report(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
