"""A teacher, and students with and without it, on the same seeds."""

import logging
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typing_extensions import override

from lightning_kd import CKAKD, KnowledgeDistillation, LogitKD, Objective
from lightning_kd.demo.digits import Digits
from lightning_kd.demo.networks import Classifier, ConvolutionalTeacher, transformer_student
from lightning_kd.similarity import LayerMatch, SimilarityMap, similarity_map

TEACHER_RATE, STUDENT_RATE = 3e-3, 6e-3
TASK_WEIGHT = 0.5
TEMPERATURE = 4.0
PAIRS = 2
MAP_BATCH = 100
STUDENT_LAYERS = ("patch_embed", "blocks.0", "blocks.1", "head")
TEACHER_LAYERS = ("stem", "stages.0", "stages.1", "stages.2", "head")


@dataclass(frozen=True, slots=True)
class Lesson:
    """How much is trained.

    Attributes:
        seeds: One student without and one with the teacher is trained per seed.
        teacher_epochs: Epochs of the teacher.
        student_epochs: Epochs of every student.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    teacher_epochs: int = 6
    student_epochs: int = 20

    @property
    def epochs(self) -> int:
        """Epochs of all trainings together."""
        return self.teacher_epochs + 2 * len(self.seeds) * self.student_epochs


@dataclass(frozen=True, slots=True)
class Arm:
    """Students trained in one way, one per seed.

    Attributes:
        networks: The students.
        accuracies: Their accuracies on the test part, 0 to 1.
    """

    networks: list[nn.Module] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def add(self, network: nn.Module, accuracy: float) -> None:
        """Add the student of the next seed."""
        self.networks.append(network)
        self.accuracies.append(accuracy)

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (n - 1); 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gave.

    Attributes:
        teacher: The teacher.
        teacher_accuracy: Its accuracy on the test part, 0 to 1.
        alone: Students without the teacher.
        distilled: Students with it, of the same seeds.
        pairs: Layers distilled in the student of the first seed, as chosen when its training started.
        maps: Similarity of the first seed's students to the teacher, by ``"alone"`` and ``"distilled"``.
    """

    teacher: nn.Module
    teacher_accuracy: float
    alone: Arm
    distilled: Arm
    pairs: Sequence[LayerMatch]
    maps: Mapping[str, SimilarityMap]


class OnEpoch(pl.Callback):
    """Calls a function after every epoch.

    Args:
        function: What to call.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.function()


def train_all(lesson: Lesson, on_epoch: Callable[[], None]) -> Trained:
    """Train the teacher and every student.

    Students of one seed start from the same weights and see the same batches in the same order.

    Args:
        lesson: How much to train.
        on_epoch: Called after every epoch.

    Returns:
        Networks, accuracies and similarities.
    """
    progress = OnEpoch(on_epoch)
    alone, distilled = Arm(), Arm()
    objectives: list[list[Objective]] = []
    with _without_lightning_advice(), one_thread():
        torch.manual_seed(0)
        digits = Digits(seed=0)
        teacher = fit(ConvolutionalTeacher(), digits, lesson.teacher_epochs, TEACHER_RATE, [progress])
        for seed in lesson.seeds:
            alone.add(*_train_student(seed, lesson, [progress]))
            objectives.append([LogitKD(temperature=TEMPERATURE), CKAKD.matched(top=PAIRS)])
            kd = KnowledgeDistillation(teacher, student="net", objectives=objectives[-1], task_weight=TASK_WEIGHT)
            distilled.add(*_train_student(seed, lesson, [progress, kd]))
    maps = {
        name: similarity_map(
            arm.networks[0],
            teacher,
            digits.train_images.split(MAP_BATCH),  # type: ignore[no-untyped-call]
            student_layers=STUDENT_LAYERS,
            teacher_layers=TEACHER_LAYERS,
        )
        for name, arm in (("alone", alone), ("distilled", distilled))
    }
    pairs = _pairs(objectives[0], maps["distilled"])
    return Trained(teacher, accuracy(teacher, digits.test), alone, distilled, pairs, maps)


def fit(net: nn.Module, digits: Digits, epochs: int, learning_rate: float, callbacks: list[pl.Callback]) -> nn.Module:
    """Train ``net`` with Lightning, quietly, and return it in evaluation mode."""
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(net, learning_rate=learning_rate), digits)
    return net.eval()


def accuracy(net: nn.Module, data: TensorDataset) -> float:
    """Fraction of images that the network classifies rightly, 0 to 1."""
    images, labels = data.tensors
    with torch.inference_mode():
        return float((net(images).argmax(1) == labels).float().mean())


def _train_student(seed: int, lesson: Lesson, callbacks: list[pl.Callback]) -> tuple[nn.Module, float]:
    torch.manual_seed(seed)
    digits = Digits(seed)
    student = fit(transformer_student(), digits, lesson.student_epochs, STUDENT_RATE, callbacks)
    return student, accuracy(student, digits.test)


def _pairs(objectives: Sequence[Objective], similarity: SimilarityMap) -> list[LayerMatch]:
    """Pairs that the objectives were given when training started, with their similarity now."""
    pairs = [
        pair for objective in objectives for pair in zip(objective.student_taps, objective.teacher_taps, strict=True)
    ]
    rows, columns = similarity.student_layers.index, similarity.teacher_layers.index
    return [LayerMatch(s.path, t.path, similarity.values[rows(s.path), columns(t.path)].item()) for s, t in pairs]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: on tensors as small as these, a second one costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _without_lightning_advice() -> Iterator[None]:
    """Leave out what Lightning says of devices and loaders, and its use of a call that torch deprecates."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*does not have many workers")
            warnings.filterwarnings("ignore", message=r".*GPU available but not used")
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
