"""The callback that adds distillation to any LightningModule."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._roles import check_strangers, check_taught, check_transform, named, shares_parameters
from lightning_kd.callbacks._leaving import LeavingCallback
from lightning_kd.callbacks._student import find_student, naming_those_that_run, training_inputs
from lightning_kd.distiller import Distiller, Losses
from lightning_kd.errors import SetupError
from lightning_kd.first_step import Allowance
from lightning_kd.hidden import add_hidden_child
from lightning_kd.objectives import Objective
from lightning_kd.schedules import Progress, Weight
from lightning_kd.step import BatchPlace
from lightning_kd.teachers import FrozenTeacher, Teacher
from lightning_kd.teachers.frozen import InputTransform

Layer = Callable[[Callable[[], Any], Any], Any]


class KnowledgeDistillation(LeavingCallback):
    """Distils a teacher into the model of any LightningModule with automatic optimisation.

    During ``fit`` the module's ``training_step`` is wrapped: the student's calls inside it are observed, the teacher
    runs on the same inputs, and the step's loss becomes ``task_weight * loss`` plus the weighted terms. The module is
    otherwise unchanged: the teacher is no child of it, adapters train with it but stay out of its checkpoints, and
    after ``fit`` nothing is left behind. Place it in front of weight averaging callbacks.

    Logged at each step, without waiting for the device: ``kd/<objective>`` (unweighted), ``kd/task`` and ``kd/total``;
    on the first step and whenever the Trainer's loggers record, ``kd/<objective>_weight`` and ``kd/task_weight`` too.

    Args:
        teacher: A trained model of any architecture, or a `Teacher`. It gets the arguments that the student got.
            ``None`` if no objective needs one (self-distillation).
        student: Path of the student inside the LightningModule; ``""`` is the module's own ``forward``.
        objectives: Terms of the loss; the default is `LogitKD` with temperature 4 and weight 1.
        task_weight: Factor of the loss that ``training_step`` returns: a number, or a schedule.
        input_transform: Turns the student's arguments into the teacher's, see `FrozenTeacher`.
        example_inputs: An input of the student, or a list of them: adapters are built from the first, pairs chosen by
            similarity from all. ``None`` takes the module's ``example_input_array`` if it is large enough, or follows
            training batches to the student.
        allow: What does not raise on the first step, see `Distiller`.
        labels: Where the labels are in a batch, for objectives that need them: an index, a key or a function of the
            batch; ``None`` looks in the usual places, see `Step`.
        indices: Likewise for the samples' indices in the data set.
        name: Prefix of the logged keys; two such callbacks on one Trainer need different names.
        adapter_group: Index of the optimiser's parameter group that adapters join if the optimiser does not have them.

    Raises:
        SetupError: If an argument has the wrong type; at setup, if the Trainer, its strategy, its other callbacks or
            the module cannot be distilled with.

    Example:
        >>> import lightning as L
        >>> from lightning_kd import CKAKD, LogitKD
        >>> kd = KnowledgeDistillation(
        ...     nn.Linear(8, 2), objectives=[LogitKD(weight=0.9), CKAKD.matched(top=3)], task_weight=0.1
        ... )
        >>> trainer = L.Trainer(callbacks=[kd], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        teacher: nn.Module | Teacher | None,
        *,
        student: str = "",
        objectives: Sequence[Objective] | None = None,
        task_weight: Weight = 1.0,
        input_transform: InputTransform | None = None,
        example_inputs: Any = None,
        allow: Collection[Allowance] = (),
        labels: BatchPlace | None = None,
        indices: BatchPlace | None = None,
        name: str = "kd",
        adapter_group: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(student, str):
            raise SetupError(
                f"`student` must be the dotted path of a submodule, or '' for the module, got {student!r}."
            )
        if not name.isidentifier():
            raise SetupError(f"`name` must be made of letters, digits and underscores, got {name!r}.")
        check_transform(teacher, input_transform)
        check_taught(teacher, named(objectives).values())
        self.teacher = teacher
        self.input_transform = input_transform
        self.student = student
        self.objectives = objectives
        self.task_weight = task_weight
        self.example_inputs = example_inputs
        self.allow = allow
        self.labels = labels
        self.indices = indices
        self.name = name
        self.adapter_group = adapter_group
        self._distiller: Distiller | None = None
        self._total_steps: int | None = None
        self._step = 0

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name, student=self.student)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._leave()
        check_trainer(trainer, pl_module, self)
        student = find_student(pl_module, self.student)
        if self.teacher is not None:
            check_strangers(student, self.teacher)
        if self.teacher is not None and shares_parameters(pl_module, self.teacher):
            raise SetupError(
                "`teacher` is also a submodule of the LightningModule, which would train it and put it in every "
                "checkpoint: keep it out of the module and pass it to the callback only."
            )
        with isolate_rng():
            self._distiller = self._distiller_for(trainer, pl_module, student)
        self._undo.append(self._distiller.detach)
        self._undo.append(add_hidden_child(pl_module, f"_{self.name}_adapters", self._distiller.adapters))
        self._undo.append(wrap_training_step(pl_module, partial(self._distilled, trainer, pl_module)))

    def _distiller_for(self, trainer: pl.Trainer, pl_module: pl.LightningModule, student: nn.Module) -> Distiller:
        """The distiller of an earlier ``fit`` of this student, whose adapters have learnt, or a new one."""
        distiller = self._distiller
        if distiller is None or distiller.student is not student:
            teacher = self.teacher
            if teacher is not None and not isinstance(teacher, Teacher):
                teacher = FrozenTeacher(teacher, input_transform=self.input_transform)
            distiller = Distiller(
                student,
                teacher,
                self.objectives,
                task_weight=self.task_weight,
                allow=self.allow,
                labels=self.labels,
                indices=self.indices,
            )
        if distiller.needs_examples:
            distiller.build(self._examples(trainer, pl_module, distiller), broadcast=trainer.strategy.broadcast)
        distiller.attach()
        return distiller

    def _examples(self, trainer: pl.Trainer, pl_module: pl.LightningModule, distiller: Distiller) -> list[Any]:
        if distiller.wanted_samples > 1:
            pl_module.to(trainer.strategy.root_device)
        if self.example_inputs is None:
            return list(training_inputs(trainer, pl_module, distiller.student, distiller.wanted_samples))
        return self.example_inputs if isinstance(self.example_inputs, list) else [self.example_inputs]

    def _distilled(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: Callable[[], Any], batch: Any
    ) -> Any:
        distiller = self._require_distiller()
        progress = Progress(trainer.global_step, trainer.current_epoch, self._total_steps)
        with distiller.watch(progress) as calls:
            output = step()
        if output is None:
            return None
        if not calls and distiller.active(progress):
            self._complain(pl_module, step)
        losses = distiller.losses(task_loss(output), calls, progress, batch=batch)
        pl_module.log_dict(log_values(losses, self.name, weights=records_step(trainer)))
        return {**output, "loss": losses.total} if isinstance(output, Mapping) else losses.total

    def _complain(self, pl_module: pl.LightningModule, step: Callable[[], Any]) -> None:
        with naming_those_that_run(pl_module) as ran:
            step()
        raise SetupError(
            f"`student={self.student!r}` did not run with gradients in training_step, so nothing can be distilled. "
            f"Modules that did run: {', '.join(repr(path) for path in ran) or 'none'}. Pass the path of the one to "
            "distil, and call it as a module: self.net(x), not self.net.forward(x)."
        )

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        distiller = self._require_distiller()
        adopt_parameters(trainer.optimizers, distiller.adapters, self.adapter_group)
        distiller.start()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._total_steps = total_steps(trainer)
        self._step = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._require_distiller().end_step(Progress(self._step, trainer.current_epoch, self._total_steps))

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._require_distiller().end_epoch(Progress(trainer.global_step, trainer.current_epoch + 1, self._total_steps))

    def _require_distiller(self) -> Distiller:
        if self._distiller is None:
            raise SetupError("KnowledgeDistillation works inside Trainer.fit only.")
        return self._distiller

    @override
    def state_dict(self) -> dict[str, Any]:
        return {} if self._distiller is None else self._distiller.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._undo and state_dict:
            self._require_distiller().load_state_dict(state_dict)


def wrap_training_step(pl_module: pl.LightningModule, layer: Layer) -> Callable[[], None]:
    """Let ``layer`` run the module's training step, outside the layers there are.

    Layers may be removed in any order: callbacks are torn down in the order in which they were set up.

    Args:
        pl_module: The module; the wrapper is an attribute of this instance.
        layer: Called with a function that runs the step, and the batch; returns what the step returns.

    Returns:
        A function that removes the layer; with the last one the module has its own method again.
    """
    own = vars(pl_module).get("training_step")
    layers: list[Layer] | None = getattr(own, "distillation_layers", None)
    if layers is None:
        layers = []
        original = pl_module.training_step

        @wraps(original, updated=())
        def training_step(*args: Any, **kwargs: Any) -> Any:
            step: Callable[[], Any] = partial(original, *args, **kwargs)
            batch = args[0] if args else kwargs.get("batch")
            for outer in layers:
                step = partial(outer, step, batch)
            return step()

        vars(training_step).update(distillation_layers=layers, replaced=own)
        vars(pl_module)["training_step"] = training_step
    layers.append(layer)

    def remove() -> None:
        layers.remove(layer)
        if not layers:
            replaced = vars(vars(pl_module).pop("training_step"))["replaced"]
            if replaced is not None:
                vars(pl_module)["training_step"] = replaced

    return remove


def check_trainer(trainer: pl.Trainer, pl_module: pl.LightningModule, callback: pl.Callback) -> None:
    """Raise `SetupError` if distillation cannot work with this Trainer, naming what to change."""
    if not isinstance(trainer, pl.Trainer):
        raise SetupError(
            f"`trainer` is a {type(trainer).__module__.partition('.')[0]} Trainer; lightning-kd works with the "
            "lightning package: replace `import pytorch_lightning as pl` by `import lightning.pytorch as pl`."
        )
    if not pl_module.automatic_optimization:
        raise SetupError(
            f"{type(pl_module).__name__} optimises manually (automatic_optimization=False), where a callback cannot "
            "reach the loss: derive it from lightning_kd.DistillationMixin and call self.distill() in training_step."
        )
    check_sharding(trainer)
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if other is callback:
            return
        if isinstance(other, WeightAveraging | StochasticWeightAveraging):
            raise SetupError(
                f"`callbacks` lists {type(other).__name__} before KnowledgeDistillation, so it would average a model "
                "without adapters: put KnowledgeDistillation first."
            )


def check_sharding(trainer: pl.Trainer) -> None:
    """Raise `SetupError` if the strategy shards the student under the taps."""
    if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise SetupError(
            f"`strategy` is {type(trainer.strategy).__name__}, which shards the student under the taps and is not "
            "supported: use strategy='ddp' or a single device."
        )


def adopt_parameters(optimizers: Sequence[torch.optim.Optimizer], module: nn.Module, group: int) -> None:
    """Append the parameters of ``module`` that no optimiser has to a group of the first optimiser.

    A group of their own would break schedulers that were made for the groups there are.

    Args:
        optimizers: The optimisers.
        module: Whose parameters must train.
        group: Index of the parameter group.

    Raises:
        SetupError: If there is no such group.
    """
    known = {id(p) for optimizer in optimizers for entry in optimizer.param_groups for p in entry["params"]}
    missing = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    if not missing:
        return
    groups = optimizers[0].param_groups if optimizers else []
    if not -len(groups) <= group < len(groups):
        raise SetupError(f"`adapter_group` must index one of the optimiser's {len(groups)} groups, got {group}.")
    groups[group]["params"].extend(missing)


def total_steps(trainer: pl.Trainer) -> int | None:
    """Optimizer steps that ``fit`` will take, ``None`` if it has no end that is known."""
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < math.inf else None


def records_step(trainer: pl.Trainer) -> bool:
    """Whether loggers record the step that is being taken, or it is the first."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return trainer.global_step == 0 or (every > 0 and (trainer.global_step + 1) % every == 0)


def log_values(losses: Losses, prefix: str, *, weights: bool) -> dict[str, Tensor]:
    """What is logged of a step, by key; scalars on the loss's device, made without a copy from the host.

    Each key costs a tenth of a millisecond or more, so ``weights``, which seldom change, can be left out.
    """
    values = {f"{prefix}/task": losses.task.detach(), f"{prefix}/total": losses.total.detach()}
    values |= {f"{prefix}/{name}": term.detach() for name, term in losses.terms.items()}
    for name, weight in losses.weights.items() if weights else ():
        values[f"{prefix}/{name}_weight"] = torch.full((), weight, device=losses.total.device)
    return values


def task_loss(output: Any) -> Tensor:
    """The loss in what a training step returned; raises `SetupError` if there is none."""
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise SetupError(f"training_step must return a tensor, a dict with a tensor 'loss', or None, got {output!r}.")
    return loss
