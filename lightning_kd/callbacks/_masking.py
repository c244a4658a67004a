"""What callbacks share that keep weights at zero."""

import weakref
from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.callbacks._student import find_student
from lightning_kd.callbacks.distillation import check_sharding
from lightning_kd.compression.masks import WeightMasks


class MaskingCallback(pl.Callback, ABC):
    """Keeps chosen weights of the student at exactly zero: masked after every step, with their gradients before it.

    The masks are in the callback's part of a checkpoint; the student's is the plain one, with zeros.

    Args:
        student: Path of the student inside the LightningModule.
    """

    def __init__(self, student: str) -> None:
        self.student = student
        self.masks: dict[str, Tensor] = {}
        self._weights: WeightMasks | None = None
        self._last: weakref.ref[nn.Module] | None = None

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(student=self.student)

    @abstractmethod
    def prepare(self, student: nn.Module) -> None:
        """Look at the student before training, while it has the layers that the user gave it."""

    @abstractmethod
    def choose(self, student: nn.Module) -> dict[str, Tensor]:
        """Masks by the parameter's name for a student that begins to train without any."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_sharding(trainer)
        student = find_student(pl_module, self.student)
        if self._last is None or self._last() is not student:
            self.masks = {}
        self._last = weakref.ref(student)
        self.prepare(student)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        student = find_student(pl_module, self.student)
        self.mask(trainer, student, self.masks or self.choose(student))

    def mask(self, trainer: pl.Trainer, student: nn.Module, masks: dict[str, Tensor]) -> None:
        """Keep to these masks from now on."""
        self.masks = masks
        self._weights = WeightMasks(student, masks)
        self._weights.zero_weights()
        self._weights.zero_states(trainer.optimizers)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._weights is not None:
            self._weights.zero_gradients()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._weights is not None:
            self._weights.zero_weights()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._weights = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.masks = dict(state_dict["masks"])
