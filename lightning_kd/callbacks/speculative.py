"""The callback that says how well the student would draft for its teacher."""

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd._roles import check_strangers
from lightning_kd.callbacks._leaving import LeavingCallback
from lightning_kd.callbacks._student import find_student
from lightning_kd.callbacks.distillation import check_sharding
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.objectives._logits import Output
from lightning_kd.recorder import TapRecorder
from lightning_kd.schedules import START
from lightning_kd.speculative import DraftQuality, draft_quality
from lightning_kd.step import BatchPlace, Step
from lightning_kd.taps import Observation, pick_tensor
from lightning_kd.teachers import FrozenTeacher
from lightning_kd.teachers.frozen import unwrapped

IGNORED = -100


class SpeculativeAcceptance(LeavingCallback):
    """Measures on validation batches how many of the student's drafts its teacher would accept.

    A distilled recogniser is also the draft model of its teacher, whose transcripts speculative decoding gives at a
    multiple of its speed. The rate is a measure of distillation that needs no labels beyond the transcripts that both
    are given, and costs one pass of the teacher for each validation batch.

    Logged at the end of validation: ``speculative/acceptance`` (share of sampled drafts that are accepted),
    ``speculative/agreement`` (share of greedy drafts), ``speculative/tokens_per_pass`` (expected tokens for each pass
    of the teacher with ``drafted`` tokens drafted, from the acceptance; 1 is no gain), all dimensionless. Under DDP
    they are those of all ranks.

    Args:
        teacher: The model to draft for, with the student's vocabulary.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        drafted: Tokens drafted before each pass of the teacher.
        labels: Where the tokens are in a batch, see `Step`; ``None`` looks in the usual places. Those that are -100 do
            not count.
        batches: Validation batches that are measured in each epoch; ``None`` for all.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.

    Attributes:
        report: Figures of the last validation; ``None`` before.

    Raises:
        SetupError: At setup, if the strategy shards the student; in validation, if the student is not called.
        ShapeError: In validation, if the vocabularies differ.
        ValueError: If a number is not above 0.

    Example:
        >>> import lightning as L
        >>> callback = SpeculativeAcceptance(nn.Linear(4, 3), student="net", drafted=5)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        student: str = "",
        drafted: int = 5,
        labels: BatchPlace | None = None,
        batches: int | None = None,
        student_output: Output = None,
        teacher_output: Output = None,
    ) -> None:
        super().__init__()
        check_positive("drafted", drafted)
        if batches is not None:
            check_positive("batches", batches)
        self.teacher = teacher
        self.student = student
        self.drafted = drafted
        self.labels = labels
        self.batches = batches
        self.student_output = student_output
        self.teacher_output = teacher_output
        self.report: DraftQuality | None = None
        self._total = DraftQuality(0.0, 0.0, 0)
        self._recorder: TapRecorder | None = None
        self._frozen: FrozenTeacher | None = None
        self._open = ExitStack()
        self._calls: list[Observation] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage not in ("fit", "validate"):
            return
        self._leave()
        check_sharding(trainer)
        student = find_student(pl_module, self.student)
        check_strangers(student, self.teacher)
        transform = self.teacher.input_transform if isinstance(self.teacher, FrozenTeacher) else None
        # A wrapper of its own, because a FrozenTeacher reads the taps of one user.
        self._frozen = FrozenTeacher(unwrapped(self.teacher), input_transform=transform)
        self._frozen.prepare(student)
        self._recorder = TapRecorder(student, name="student")

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._total = DraftQuality(0.0, 0.0, 0)

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._recorder is not None and (self.batches is None or batch_idx < self.batches):
            self._calls = self._open.enter_context(self._recorder.recording())

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._recorder is None or (self.batches is not None and batch_idx >= self.batches):
            return
        self._open.close()
        if not self._calls:
            raise SetupError(
                f"`student={self.student!r}` did not run in validation_step, so nothing can be measured: call it as a "
                "module, or pass the path of the one that runs."
            )
        self._total = self._total + self._measure(self._calls[0], batch)

    def _measure(self, call: Observation, batch: Any) -> DraftQuality:
        if self._frozen is None:
            raise SetupError("SpeculativeAcceptance works inside Trainer.fit and Trainer.validate only.")
        teacher = self._frozen.observe(call.inputs)
        own = pick_tensor(call.output, self.student_output, "the student's output")
        other = pick_tensor(teacher.output, self.teacher_output, "the teacher's output")
        if own.shape[-1] != other.shape[-1]:
            raise ShapeError(
                f"`teacher` has {other.shape[-1]} tokens and the student {own.shape[-1]}: a student can only draft in "
                "the vocabulary of its teacher."
            )
        labels = Step(START, batch, self.labels).labels
        return draft_quality(own, other, labels.to(own.device) != IGNORED)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.report = self._over_ranks(trainer)
        pl_module.log_dict(
            {
                "speculative/acceptance": self.report.acceptance,
                "speculative/agreement": self.report.agreement,
                "speculative/tokens_per_pass": self.report.tokens_per_pass(self.drafted),
            },
            sync_dist=True,
        )

    def _over_ranks(self, trainer: pl.Trainer) -> DraftQuality:
        own = self._total
        sums = torch.tensor(
            [own.acceptance * own.tokens, own.agreement * own.tokens, float(own.tokens)], dtype=torch.float64
        )
        total: Tensor = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum")
        accepted, agreed, tokens = total.tolist()
        return DraftQuality(accepted / max(tokens, 1.0), agreed / max(tokens, 1.0), int(tokens))

    @override
    def _leave(self) -> None:
        self._open.close()
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None
