"""Distillation in the module's own code: for manual optimisation, and for steps that want to see the terms."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.callbacks.distillation import adopt_parameters, check_sharding, log_values, records_step, total_steps
from lightning_kd.distiller import Distiller, Losses
from lightning_kd.errors import SetupError
from lightning_kd.first_step import Allowance
from lightning_kd.hidden import add_hidden_child
from lightning_kd.objectives import Objective
from lightning_kd.schedules import START, Progress, Weight
from lightning_kd.step import BatchPlace
from lightning_kd.taps import Observation, resolve_module
from lightning_kd.teachers import Teacher

_CHECKPOINT_KEY = "lightning_kd"


class DistillationMixin(pl.LightningModule):
    """A LightningModule that distils in its own ``training_step``; put it first among the bases.

    The teacher is no child of the module, and adapters stay out of its ``state_dict``; a full checkpoint carries them
    apart, for resuming. Hooks that you override must call ``super()``.

    Example:
        >>> import lightning as L
        >>> import torch
        >>> class Student(DistillationMixin, L.LightningModule):
        ...     def __init__(self, teacher):
        ...         super().__init__()
        ...         self.automatic_optimization = False
        ...         self.net = nn.Linear(4, 3)
        ...         self.setup_distillation(teacher, student="net")
        ...
        ...     def training_step(self, batch):
        ...         x, y = batch
        ...         with self.distill() as calls:
        ...             task_loss = nn.functional.cross_entropy(self.net(x), y)
        ...         losses = self.distillation_losses(task_loss, calls)
        ...         self.optimizers().zero_grad()
        ...         self.manual_backward(losses.total)
        ...         self.optimizers().step()
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> sorted(Student(nn.Linear(4, 3)).state_dict())
        ['net.bias', 'net.weight']
    """

    _distiller: Distiller | None = None
    _distillation_name: str = "kd"
    _total_steps: int | None = None
    _step: int = 0

    def setup_distillation(
        self,
        teacher: nn.Module | Teacher | None,
        *,
        student: str = "",
        objectives: Sequence[Objective] | None = None,
        example_inputs: Any = None,
        task_weight: Weight = 1.0,
        allow: Collection[Allowance] = (),
        labels: BatchPlace | None = None,
        indices: BatchPlace | None = None,
        name: str = "kd",
    ) -> None:
        """Call in ``__init__``, once the student exists.

        Args:
            teacher: A trained model, or a `Teacher`; ``None`` if no objective needs one.
            student: Path of the student inside this module; ``""`` is its own ``forward``.
            objectives: Terms of the loss; the default is `LogitKD` with its defaults.
            example_inputs: An input of the student, or a list of them: adapters are built from the first, pairs chosen
                by similarity from all.
            task_weight: Factor of the task loss.
            allow: What does not raise on the first step, see `Distiller`.
            labels: Where the labels are in a batch, see `Step`.
            indices: Where the samples' indices in the data set are in a batch, see `Step`.
            name: Prefix of the logged keys.

        Raises:
            SetupError: If an argument has the wrong type, or ``example_inputs`` is missing.
            TapError: If a path names no module.
        """
        target = resolve_module(self, student, type(self).__name__)
        distiller = Distiller(
            target, teacher, objectives, task_weight=task_weight, allow=allow, labels=labels, indices=indices
        )
        if distiller.needs_examples:
            if example_inputs is None:
                raise SetupError(
                    "`example_inputs` is needed: these objectives create adapters from the features' shapes."
                )
            distiller.build(example_inputs if isinstance(example_inputs, list) else [example_inputs])
        distiller.attach()
        add_hidden_child(self, f"_{name}_adapters", distiller.adapters)
        self._distiller, self._distillation_name = distiller, name

    @property
    def distiller(self) -> Distiller:
        """The distiller made by `setup_distillation`."""
        if self._distiller is None:
            raise SetupError(f"call self.setup_distillation(teacher, ...) in {type(self).__name__}.__init__ first.")
        return self._distiller

    @contextmanager
    def distill(self) -> Iterator[list[Observation]]:
        """Observe the student's calls in this block.

        Yields:
            A list that is filled when the block ends: pass it to `distillation_losses`.
        """
        with self.distiller.watch(self._progress()) as calls:
            yield calls

    def _progress(self) -> Progress:
        if self._trainer is None:
            return START
        return Progress(self.global_step, self.current_epoch, self._total_steps)

    def distillation_losses(self, task_loss: Tensor, calls: Sequence[Observation], *, batch: Any = None) -> Losses:
        """Run the teacher, add up the terms and log them as `KnowledgeDistillation` does.

        Args:
            task_loss: The student's own loss, shape ``()``.
            calls: What `distill` collected.
            batch: What ``training_step`` got, for objectives that need labels or indices.

        Returns:
            The losses; ``total`` is what to differentiate.

        Raises:
            SetupError: If the student was not called.
            TermError: On the first step: a term that is zero, not finite or without gradient.
        """
        losses = self.distiller.losses(task_loss, calls, self._progress(), batch=batch)
        self.log_dict(log_values(losses, self._distillation_name, weights=records_step(self.trainer)))
        return losses

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        check_sharding(self.trainer)
        adopt_parameters(self.trainer.optimizers, self.distiller.adapters, 0)
        self.distiller.start()

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        self._total_steps = total_steps(self.trainer)
        self._step = self.global_step

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.global_step != self._step:
            self._step = self.global_step
            self.distiller.end_step(self._progress())

    @override
    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.distiller.end_epoch(Progress(self.global_step, self.current_epoch + 1, self._total_steps))

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if "optimizer_states" in checkpoint:
            checkpoint[_CHECKPOINT_KEY] = self.distiller.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if _CHECKPOINT_KEY in checkpoint:
            self.distiller.load_state_dict(checkpoint[_CHECKPOINT_KEY])
