"""Students that teach each other under one Trainer, each a LightningModule with an optimiser of its own."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd._peers import child_step, only_optimizer, refused_hooks
from lightning_kd.callbacks.distillation import (
    adopt_parameters,
    check_sharding,
    log_values,
    records_step,
    task_loss,
    total_steps,
)
from lightning_kd.distiller import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.first_step import Allowance
from lightning_kd.hidden import add_hidden_child
from lightning_kd.objectives import LogitKD, Objective
from lightning_kd.schedules import Progress
from lightning_kd.step import BatchPlace
from lightning_kd.taps import Observation, resolve_module
from lightning_kd.teachers.peer import PeerTeacher

Calls = list[list[Observation]]
_CHECKPOINT_KEY = "lightning_kd"


class MutualLearning(pl.LightningModule):
    r"""Two or more students that teach each other: deep mutual learning, and everything between two networks.

    Each student is a LightningModule as it would be trained alone. Its ``training_step`` gives its task loss, its
    ``configure_optimizers`` its one optimiser and scheduler, its ``validation_step`` and ``test_step`` log under its
    name. Of K students, each learns from its own loss and the mean over the others,

    .. math::
        L_k = \text{task}_k + \frac{1}{K - 1} \sum_{l \ne k} \sum_i w_i \, \text{term}_i(k, \mathrm{sg}\, l),

    by default with the KL divergence at temperature 1. No gradient flows from one student to another. Fit this module
    in place of theirs, with the data. Its ``state_dict`` is that of the students under ``peers.<name>.``; adapters stay
    out of it, and a full checkpoint carries them for resuming. Each student is exported alone: ``mutual.peers["cnn"]``.

    Logged: ``<student>_from_<teacher>/<term>`` as by `KnowledgeDistillation`, and what a student logs as
    ``<student>/<key>``. ``Trainer.global_step`` and ``max_steps`` count the steps of all optimisers.

    Args:
        modules: The students by name.
        student: Path of the network to distil inside of each; one for all, or by name.
        objectives: Makes the terms by which the first one named learns from the second; ``None`` stands for `LogitKD`
            at temperature 1. Taps name places of the first as the student's and of the second as the teacher's.
        order: ``"together"``: all run once, then all learn. ``"in_turn"``: each learns from what the others say after
            those before it have learnt, for which they run once more, also their batch statistics.
        example_inputs: An input of the students, or a list of them, for objectives with adapters or matched pairs.
        allow: What does not raise on the first step, see `Distiller`.
        labels: Where the labels are in a batch, see `Step`.

    Raises:
        SetupError: If there are fewer than two, one is no LightningModule, optimises manually or overrides a hook that
            nobody would call, an argument does not fit them, or a strategy shards them.
        TapError: If a path names no module.

    Source:
        Zhang et al., "Deep Mutual Learning", arXiv:1706.00384.

    Example:
        >>> class Student(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Linear(4, 3)
        ...
        ...     def training_step(self, batch):
        ...         return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.net.parameters(), lr=0.1)
        >>> mutual = MutualLearning({"a": Student(), "b": Student()}, student="net")
        >>> sorted(mutual.state_dict())
        ['peers.a.net.bias', 'peers.a.net.weight', 'peers.b.net.bias', 'peers.b.net.weight']
    """

    def __init__(
        self,
        modules: Mapping[str, pl.LightningModule],
        *,
        student: str | Mapping[str, str] = "",
        objectives: Callable[[str, str], Sequence[Objective]] | None = None,
        order: Literal["together", "in_turn"] = "together",
        example_inputs: Any = None,
        allow: Collection[Allowance] = (),
        labels: BatchPlace | None = None,
    ) -> None:
        super().__init__()
        check_choice("order", order, ("together", "in_turn"))
        _check_modules(modules)
        self.automatic_optimization = False
        self.peers = nn.ModuleDict(modules)
        self.order = order
        self._total: int | None = None
        paths = dict.fromkeys(modules, student) if isinstance(student, str) else dict(student)
        if paths.keys() != modules.keys():
            raise SetupError(f"`student` must be one path, or a path of each of {list(modules)}, got {sorted(paths)}.")
        networks = {name: resolve_module(module, paths[name], name) for name, module in modules.items()}
        for hook in ("validation_step", "test_step"):
            # A method of the class would make the Trainer ask for data that nobody looks at.
            if any(is_overridden(hook, module) for module in modules.values()):
                vars(self)[hook] = partial(self._evaluate, hook)
        self._distillers: dict[str, dict[str, Distiller]] = {name: {} for name in modules}
        for learner in modules:
            for other in modules:
                if other == learner:
                    continue
                terms = [LogitKD(temperature=1.0)] if objectives is None else objectives(learner, other)
                distiller = Distiller(
                    networks[learner], PeerTeacher(networks[other]), terms, allow=allow, labels=labels
                )
                self._build(distiller, example_inputs)
                self._distillers[learner][other] = distiller
                add_hidden_child(self, f"_{learner}_from_{other}_adapters", distiller.adapters)

    @staticmethod
    def _build(distiller: Distiller, example_inputs: Any) -> None:
        if not distiller.needs_examples:
            return
        if example_inputs is None:
            raise SetupError("`example_inputs` is needed: these objectives have adapters or matched pairs.")
        distiller.build(example_inputs if isinstance(example_inputs, list) else [example_inputs])
        distiller.detach()

    def _pairs(self) -> list[tuple[str, str, Distiller]]:
        return [
            (learner, other, distiller)
            for learner, others in self._distillers.items()
            for other, distiller in others.items()
        ]

    @override
    def setup(self, stage: str) -> None:
        """Check the strategy, and watch the students while they are fitted."""
        for _, peer in self._named_peers():
            peer.trainer = self.trainer
        if stage == "fit":
            check_sharding(self.trainer)
            for _, _, distiller in self._pairs():
                distiller.attach()

    @override
    def teardown(self, stage: str) -> None:
        """Leave no hook on the students."""
        for _, _, distiller in self._pairs():
            distiller.detach()
        for _, peer in self._named_peers():
            peer.trainer = None

    @override
    def configure_optimizers(self) -> Any:
        """One optimiser, and its scheduler if it has one, of each student."""
        return [only_optimizer(name, peer) for name, peer in self._named_peers()]

    @override
    def on_fit_start(self) -> None:
        """Let each student's adapters train with it."""
        for (name, _), optimizer in zip(self._named_peers(), self.trainer.optimizers, strict=True):
            for distiller in self._distillers[name].values():
                adopt_parameters([optimizer], distiller.adapters, 0)

    @override
    def on_train_start(self) -> None:
        """Learn how many steps each student will take."""
        steps = total_steps(self.trainer)
        capped = steps is not None and self.trainer.max_steps == steps
        self._total = steps // len(self.peers) if steps is not None and capped else steps

    @override
    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Let every student run and learn."""
        if self.order == "in_turn":
            for name in self.peers:
                self._learn(name, self._loss(name, *self._run(name, batch, batch_idx), batch))
        else:
            with ExitStack() as stack:
                for _, _, distiller in self._pairs():
                    if isinstance(distiller.teacher, PeerTeacher):
                        stack.enter_context(distiller.teacher.listening())
                ran = {name: self._run(name, batch, batch_idx) for name in self.peers}
            losses = {name: self._loss(name, *ran[name], batch) for name in self.peers}
            for name, loss in losses.items():
                self._learn(name, loss)
        self._step_schedulers("step", batch_idx + 1)

    def _run(self, name: str, batch: Any, batch_idx: int) -> tuple[Tensor, Calls]:
        with ExitStack() as stack:
            watched = [distiller.watch(self._progress()) for distiller in self._distillers[name].values()]
            calls = [stack.enter_context(watch) for watch in watched]
            output = child_step(self, name, "training_step", batch, batch_idx)
        return task_loss(output), calls

    def _loss(self, name: str, own: Tensor, calls: Calls, batch: Any) -> Tensor:
        totals = []
        for seen, (other, distiller) in zip(calls, self._distillers[name].items(), strict=True):
            losses = distiller.losses(own, seen, self._progress(), batch=batch)
            self.log_dict(log_values(losses, f"{name}_from_{other}", weights=records_step(self.trainer)))
            totals.append(losses.total)
        return torch.stack(totals).mean()

    def _learn(self, name: str, loss: Tensor) -> None:
        optimizers = self.optimizers()
        place = list(self.peers).index(name)
        optimizer = optimizers[place] if isinstance(optimizers, list) else optimizers
        optimizer.zero_grad()
        self.manual_backward(loss + self._others(name))
        optimizer.step()

    def _others(self, name: str) -> Tensor | float:
        """A zero that depends on the other students' parameters: DDP waits for a gradient of each."""
        if not (dist.is_available() and dist.is_initialized()):
            return 0.0
        own = [self.peers[name], *(distiller.adapters for distiller in self._distillers[name].values())]
        known = {id(parameter) for module in own for parameter in module.parameters()}
        unused = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return torch.stack([p.flatten()[:0].sum() for p in unused]).sum()

    def _progress(self) -> Progress:
        return Progress(self.global_step // len(self.peers), self.current_epoch, self._total)

    def _named_peers(self) -> list[tuple[str, pl.LightningModule]]:
        return [(name, peer) for name, peer in self.peers.items() if isinstance(peer, pl.LightningModule)]

    def _step_schedulers(self, interval: str, count: int) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == interval and count % config.frequency == 0:
                config.scheduler.step()  # type: ignore[call-arg]

    @override
    def on_train_epoch_end(self) -> None:
        """Step the schedulers that count epochs."""
        self._step_schedulers("epoch", self.current_epoch + 1)

    def _evaluate(self, hook: str, batch: Any, batch_idx: int) -> None:
        """Run a step of every student that has it."""
        for name, peer in self._named_peers():
            if is_overridden(hook, peer):
                child_step(self, name, hook, batch, batch_idx)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the adapters beside the students, for resuming."""
        if "optimizer_states" in checkpoint:
            checkpoint[_CHECKPOINT_KEY] = {
                f"{learner}_from_{other}": distiller.state_dict() for learner, other, distiller in self._pairs()
            }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the adapters.

        Raises:
            SetupError: If the checkpoint is of other students or objectives.
        """
        states = checkpoint.get(_CHECKPOINT_KEY)
        if states is None:
            return
        for learner, other, distiller in self._pairs():
            key = f"{learner}_from_{other}"
            if key not in states:
                raise SetupError(f"the checkpoint is of other students: it has {sorted(states)}, not {key!r}.")
            distiller.load_state_dict(states[key])


def _check_modules(modules: Mapping[str, nn.Module]) -> None:
    if len(modules) < 2:
        raise SetupError(f"`modules` must hold at least two students by name, got {list(modules)}.")
    seen: set[int] = set()
    for name, module in modules.items():
        if not isinstance(module, pl.LightningModule) or not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise SetupError(f"`modules` must be LightningModules by name, got {name!r}: {type(module).__name__}.")
        if not module.automatic_optimization:
            raise SetupError(f"`modules`: {name!r} optimises manually, and its step must return its loss instead.")
        hooks = refused_hooks(module)
        if hooks:
            raise SetupError(
                f"`modules`: {name!r} ({type(module).__name__}) overrides {', '.join(hooks)}, which nobody would call: "
                "move it into a callback or a subclass of MutualLearning."
            )
        own = {id(parameter) for parameter in module.parameters()}
        if own & seen:
            raise SetupError(f"`modules`: {name!r} shares parameters with another student: make it a copy.")
        seen |= own
