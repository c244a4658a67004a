"""The callback that trains the student as int8 inference will compute it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from typing_extensions import override

from exporters.example import ExampleInputs
from exporters.quantization.fake import FakeQuantization, Quantization, prepare_qat, quantization_of
from exporters.quantization.quantizers import Observing
from lightning_kd.callbacks._leaving import LeavingCallback
from lightning_kd.callbacks._student import find_student, student_example
from lightning_kd.callbacks.distillation import adopt_parameters, check_sharding, total_steps
from lightning_kd.errors import SetupError

Moment = int | float
"""A time of training: a whole number counts optimiser steps, a float from 0 to 1 is a share of all steps."""


class QuantizationAwareTraining(LeavingCallback):
    """Trains the student with weights and activations rounded as int8 inference rounds them.

    The student's modules, names, hooks and parameters stay: the operation inside each convolution and linear layer is
    exchanged, nothing is traced anew. So `KnowledgeDistillation` works beside it, in any order, with taps in the
    student and a teacher in full precision; a copy of the student as it was is a good one. Validation sees the rounded
    student. Checkpoints hold the plain weights, which load strictly into the plain student; ranges and learned scales
    are in the callback's part, for resuming.

    After ``fit`` the student stays rounded: ``exporters.export(student, ..., precision="int8")`` and
    `ExportStudent` need no calibration, and ``strip_qat(student)`` gives the plain one.

    Args:
        quantization: How the student is quantised; ``None`` is int8 with measured, affine ranges.
        student: Path of the student inside the LightningModule; ``""`` is the module itself, through its ``forward``.
        start: When rounding starts, see `Moment`; ranges are measured from the first step on.
        freeze_ranges: When ranges stop moving.
        freeze_norm: When batch norms stop updating their statistics and use them, as int8 inference will; ``None`` for
            never.
        example_inputs: Input of the student; ``None`` takes real ones from the training data.
        scale_group: Index of the optimiser's parameter group that learned scales join if the optimiser does not have
            them.

    Raises:
        SetupError: If a moment is out of range; at setup, if the student is quantised in another way already, weights
            are averaged by a callback that comes first, or the strategy shards the student; when training starts, if a
            share is given of a training without end, or batch norms were replaced.
        CaptureError: At setup, if `torch.export` cannot capture the student.
        QuantizationError: At setup, if nothing in the student can be quantised.

    Example:
        >>> import copy, lightning as L
        >>> from lightning_kd import KnowledgeDistillation
        >>> net = nn.Linear(8, 2)
        >>> kd = KnowledgeDistillation(copy.deepcopy(net), student="net", allow=("zero",))
        >>> qat = QuantizationAwareTraining(FakeQuantization(weight_bits=4), student="net", start=0.1)
        >>> trainer = L.Trainer(callbacks=[kd, qat], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        quantization: FakeQuantization | None = None,
        *,
        student: str = "",
        start: Moment = 0,
        freeze_ranges: Moment = 0.5,
        freeze_norm: Moment | None = 0.5,
        example_inputs: Any = None,
        scale_group: int = 0,
    ) -> None:
        super().__init__()
        self.quantization = quantization or FakeQuantization()
        self.student = student
        self.moments = {"start": start, "freeze_ranges": freeze_ranges}
        if freeze_norm is not None:
            self.moments["freeze_norm"] = freeze_norm
        for name, moment in self.moments.items():
            _check_moment(name, moment)
        self.example_inputs = example_inputs
        self.scale_group = scale_group
        self._handle: Quantization | None = None
        self._plan: Plan | None = None
        self._started = False
        self._norms: list[nn.Module] = []
        self._stopped: list[nn.Module] = []

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(student=self.student)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_sharding(trainer)
        _check_averaging(trainer, self)
        student = find_student(pl_module, self.student)
        self._handle = quantization_of(student)
        if self._handle is not None and self._handle.options != self.quantization:
            raise SetupError(
                f"`quantization` must be that of the student, which is quantised already by {self._handle.options}: "
                "call exporters.quantization.fake.strip_qat on it first."
            )
        if self._handle is None:
            self._started = False
            with isolate_rng():
                example = self._example(trainer, pl_module, student)
                self._handle = prepare_qat(student, example, self.quantization, holder=pl_module)
            _announce(self._handle)
        self._norms = [module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - the common base of all batch norms

    def _example(self, trainer: pl.Trainer, pl_module: pl.LightningModule, student: nn.Module) -> ExampleInputs:
        if self.example_inputs is None:
            return student_example(trainer, pl_module, student, batch_size=2)
        example: ExampleInputs = self.example_inputs
        return example

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        handle = self._require_handle()
        adopt_parameters(trainer.optimizers, handle, self.scale_group)
        present = set(pl_module.modules())
        if any(owner not in present for _, layer in handle.each() for owner in layer.owners if owner is not None):
            raise SetupError(
                "quantised layers or their batch norms were replaced after setup, so they would not be rounded: leave "
                "out sync_batchnorm=True (ranges of large batches do without), and callbacks that rebuild the student."
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._plan = Plan.of(self.moments, total_steps(trainer))

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        handle, plan, step = self._require_handle(), self._plan, trainer.global_step
        if plan is None:
            return
        rounding = plan.rounds(step)
        if rounding and not self._started:
            handle.start_scales()
            self._started = True
        handle.set_phase(rounding=rounding, observing=plan.observing(step))
        if plan.stops_norms(step):
            for norm in self._norms:
                if norm.training:
                    self._stopped.append(norm.eval())

    @override
    def _leave(self) -> None:
        if self._handle is not None:
            self._handle.set_phase(rounding=self._started, observing="never")
        while self._stopped:
            self._stopped.pop().train()

    def _require_handle(self) -> Quantization:
        if self._handle is None:
            raise SetupError("QuantizationAwareTraining works inside Trainer.fit only.")
        return self._handle

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._handle is None:
            return {}
        return {"options": asdict(self.quantization), "started": self._started, "ranges": self._handle.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._handle is not None and state_dict:
            self._handle.load_state(state_dict["ranges"])
            self._started = state_dict["started"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Optimiser steps at which training changes; ``None`` for never.

    Attributes:
        start: Rounding starts.
        freeze_ranges: Ranges stop moving; at least one step is measured.
        freeze_norm: Batch norms stop.
    """

    start: int
    freeze_ranges: int
    freeze_norm: int | None

    @classmethod
    def of(cls, moments: Mapping[str, Moment], total: int | None) -> "Plan":
        """Turn moments into steps.

        Args:
            moments: By name.
            total: Steps of the whole training; ``None`` if it has no end.

        Raises:
            SetupError: If a share is given of a training without end.

        Example:
            >>> Plan.of({"start": 10, "freeze_ranges": 0.5}, 200)
            Plan(start=10, freeze_ranges=100, freeze_norm=None)
        """
        steps = {name: _step(name, moment, total) for name, moment in moments.items()}
        return cls(steps["start"], max(1, steps["freeze_ranges"]), steps.get("freeze_norm"))

    def rounds(self, step: int) -> bool:
        """Whether the step rounds."""
        return step >= self.start

    def observing(self, step: int) -> Observing:
        """When ranges are measured in the step."""
        return "with_gradients" if step < self.freeze_ranges else "never"

    def stops_norms(self, step: int) -> bool:
        """Whether batch norms have stopped in the step."""
        return self.freeze_norm is not None and step >= self.freeze_norm


def load_ranges(student: nn.Module, path: Path | str) -> None:
    """Fill a quantised student's ranges and learned scales from a checkpoint that the callback took part in.

    Args:
        student: A student that `prepare_qat` or the callback has quantised with the same options.
        path: A Lightning checkpoint.

    Raises:
        SetupError: If the student is not quantised, or the checkpoint holds no ranges.
        QuantizationError: If they are of another network or of other options.
    """
    handle = quantization_of(student)
    if handle is None:
        raise SetupError(f"`student` must be quantised by prepare_qat, got a plain {type(student).__name__}.")
    callbacks = torch.load(path, map_location="cpu", weights_only=True).get("callbacks", {})
    states = [state for key, state in callbacks.items() if key.startswith(QuantizationAwareTraining.__name__) and state]
    if len(states) != 1:
        raise SetupError(
            f"`path` must be a checkpoint with the state of one QuantizationAwareTraining, got {len(states)} in "
            f"{Path(path).name}: save whole checkpoints, ModelCheckpoint(save_weights_only=False)."
        )
    handle.load_state(states[0]["ranges"])
    handle.set_phase(rounding=True, observing="never")


def _check_moment(name: str, moment: Moment) -> None:
    if type(moment) not in (int, float) or moment < 0 or (isinstance(moment, float) and not moment <= 1):
        raise SetupError(
            f"`{name}` must be a number of steps (a whole number) or a share of them (a float from 0 to 1), got "
            f"{moment!r}."
        )


def _step(name: str, moment: Moment, total: int | None) -> int:
    if isinstance(moment, int):
        return moment
    if total is None:
        raise SetupError(
            f"`{name}` must be a number of steps in a training without end, got the share {moment}: give max_steps or "
            "max_epochs to the Trainer, or a whole number of steps."
        )
    return round(moment * total)


def _check_averaging(trainer: pl.Trainer, callback: pl.Callback) -> None:
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if other is callback:
            return
        if isinstance(other, WeightAveraging | StochasticWeightAveraging):
            raise SetupError(
                f"`callbacks` lists {type(other).__name__} before QuantizationAwareTraining, so it would average a "
                "student that does not round: put QuantizationAwareTraining first."
            )


def _announce(handle: Quantization) -> None:
    if handle.left_in_float:
        rank_zero_info(f"Quantisation-aware training leaves in float: {', '.join(handle.left_in_float)}.")
