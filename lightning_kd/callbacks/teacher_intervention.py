"""The callback that lets a teacher's attention stand in for the student's while the student is quantised."""

from typing import Any, Literal

import lightning.pytorch as pl
from torch import nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd._roles import check_strangers, check_transform
from lightning_kd.callbacks._student import find_student
from lightning_kd.callbacks.distillation import check_sharding, total_steps
from lightning_kd.compression.intervention import Interventions, gradual_intervention
from lightning_kd.schedules import Progress
from lightning_kd.teachers import FrozenTeacher
from lightning_kd.teachers.frozen import InputTransform, unwrapped


class TeacherIntervention(pl.Callback):
    """Replaces signals inside of the student's attention by the teacher's, so that quantisation errors do not pile up.

    It is the first of two steps of training with weights of very few bits, beside `KnowledgeDistillation` and
    `LowBitTraining`; the second trains on without it. Signals are the output of self-attention, the context (attention
    times values) and the attention map. Validation is of the student alone.

    The teacher runs once more for this, on the student's inputs, up to its last attention module. The student's maps
    keep no dropout while the teacher's stand in for them.

    Args:
        teacher: The teacher that is distilled, of the student's architecture: timm's vision transformers, or encoders
            of transformers with linear layers for queries, keys and values.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        signal: ``"gradual"`` is the output for a sixth of the steps, the context until a third, then the map; or one of
            ``"output"``, ``"context"`` and ``"map"`` throughout.
        input_transform: Turns the student's arguments into the teacher's, see `FrozenTeacher`.

    Raises:
        SetupError: At setup, if the two networks' attention does not correspond or the strategy shards the student;
            when training starts, if ``"gradual"`` and the number of steps is not known; on the first step with a map,
            if it cannot be computed from queries and keys.
        ValueError: If ``signal`` is unknown.

    Source:
        Kim et al., "Teacher Intervention: Improving Convergence of Quantization Aware Training for Ultra-Low Precision
        Transformers", arXiv:2302.11812.

    Example:
        >>> import timm
        >>> TeacherIntervention(timm.create_model("test_vit"), student="net").signal
        'gradual'
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        student: str = "",
        signal: Literal["gradual", "output", "context", "map"] = "gradual",
        input_transform: InputTransform | None = None,
    ) -> None:
        check_choice("signal", signal, ("gradual", "output", "context", "map"))
        check_transform(teacher, input_transform)
        self.teacher = teacher
        self.student = student
        self.signal: Literal["gradual", "output", "context", "map"] = signal
        self.input_transform = input_transform
        self._interventions: Interventions | None = None
        self._total_steps: int | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_sharding(trainer)
        student = find_student(pl_module, self.student)
        check_strangers(student, self.teacher)
        frozen = self.teacher if isinstance(self.teacher, FrozenTeacher) else None
        transform = self.input_transform if frozen is None else frozen.input_transform
        # A wrapper of its own, because a FrozenTeacher reads the taps of one user.
        teacher = FrozenTeacher(unwrapped(self.teacher), input_transform=transform)
        teacher.prepare(student)
        self._interventions = Interventions(student, teacher)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._total_steps = total_steps(trainer)
        if self._interventions is not None:
            self._interventions.attach()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._interventions is not None:
            progress = Progress(trainer.global_step, trainer.current_epoch, self._total_steps)
            self._interventions.signal = gradual_intervention(progress) if self.signal == "gradual" else self.signal

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._interventions is not None:
            self._interventions.detach()
            self._interventions = None
