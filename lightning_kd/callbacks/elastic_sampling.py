"""The callback that trains another of many networks at each step."""

import lightning.pytorch as pl
import torch
from typing_extensions import override

from lightning_kd.callbacks._student import find_student
from lightning_kd.elastic import Elastic
from lightning_kd.errors import SetupError

MOST_SEEDS = 2**31


class ElasticSampling(pl.Callback):
    """Draws at each optimizer step which of its smaller networks an elastic student computes as.

    The draw follows from the seed and the number of the step alone: it is the same on all ranks, in every batch whose
    gradients are accumulated, and after a restart. Validation is of the whole network, which is also what is left when
    training ends.

    Args:
        student: Path of the elastic network inside the LightningModule, such as a
            `lightning_kd.students.SpeechSupernet`; ``""`` is the module itself, which then holds exactly one.
        seed: Decides what is drawn, from 0.

    Raises:
        SetupError: At setup, if there is not exactly one elastic network.
        ValueError: If ``seed`` is out of range.

    Source:
        Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", arXiv:1908.09791;
        Wang et al., "LightHuBERT", arXiv:2203.15610.

    Example:
        >>> ElasticSampling(student="net", seed=1).student
        'net'
    """

    def __init__(self, *, student: str = "", seed: int = 0) -> None:
        if isinstance(seed, bool) or not 0 <= seed < MOST_SEEDS:
            raise ValueError(f"`seed` must be a whole number from 0 and below {MOST_SEEDS}, got {seed!r}.")
        self.student = student
        self.seed = seed

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(student=self.student)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._elastic(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._elastic(pl_module).draw(step_generator(self.seed, trainer.global_step))

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._elastic(pl_module).restore()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._elastic(pl_module).restore()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._elastic(pl_module).restore()

    def _elastic(self, pl_module: pl.LightningModule) -> Elastic:
        found = [module for module in find_student(pl_module, self.student).modules() if isinstance(module, Elastic)]
        if len(found) != 1:
            raise SetupError(
                f"`student` must hold exactly one elastic network, such as a SpeechSupernet, found {len(found)}."
            )
        return found[0]


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that follow from a seed and the number of a step.

    Args:
        seed: From 0.
        step: From 0.

    Returns:
        A generator on the CPU.

    Example:
        >>> draws = [int(torch.randint(100, (), generator=step_generator(0, step))) for step in (3, 3)]
        >>> draws[0] == draws[1]
        True
    """
    return torch.Generator().manual_seed((seed << 32) + step)
