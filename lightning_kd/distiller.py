"""The heart of the package: student calls in, named loss terms out. No Lightning here, so it serves any loop."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_choice
from lightning_kd._modes import looking_only
from lightning_kd._roles import as_teacher, check_served, named
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.first_step import Allowance, prove
from lightning_kd.objectives import Matching, Objective, PairedObjective
from lightning_kd.recorder import TapRecorder
from lightning_kd.schedules import START, Progress, Weight, check_weight, weight_at
from lightning_kd.similarity import match_layers, similarity_map
from lightning_kd.step import BatchPlace, Step
from lightning_kd.taps import Inputs, NoNetwork, Observation
from lightning_kd.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Losses:
    """Loss of one training step and what it is made of.

    Attributes:
        total: ``task_weight * task`` plus every weighted term, shape ``()``; call ``backward`` on it.
        task: The task loss as given.
        terms: Unweighted value of each objective whose weight is not 0, by name.
        weights: Weight of ``"task"`` and of each objective at this step.
    """

    total: Tensor
    task: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


class Distiller:
    """Turns the calls of a student into distillation terms.

    Args:
        student: The module whose calls are distilled. It is not changed, apart from hooks that only listen.
        teacher: A trained module, or a `Teacher`; ``None`` if no objective needs one (self-distillation).
        objectives: Terms of the loss; the default is `LogitKD` with its defaults.
        task_weight: Factor of the task loss: a number, or a schedule.
        allow: What does not raise on the first step: ``"zero"``, a term that is exactly zero (a student that starts as
            its teacher); ``"frozen"``, a student tap without gradient (layers that are unfrozen later).
        labels: Where the labels are in a batch, see `Step`.
        indices: Where the samples' indices in the data set are in a batch, see `Step`.

    Raises:
        SetupError: If an argument has the wrong type, two objectives share a name, a teacher is missing or does not
            serve what an objective reads, or teacher and student share parameters.
        ValueError: If ``task_weight`` or ``allow`` is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
        >>> distiller = Distiller(student, teacher)
        >>> x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
        >>> with distiller.watch() as calls:
        ...     task_loss = nn.functional.cross_entropy(student(x), y)
        >>> losses = distiller.losses(task_loss, calls)
        >>> losses.total.backward()
        >>> sorted(losses.terms), losses.weights
        (['logit'], {'task': 1.0, 'logit': 1.0})
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher | None,
        objectives: Sequence[Objective] | None = None,
        *,
        task_weight: Weight = 1.0,
        allow: Collection[Allowance] = (),
        labels: BatchPlace | None = None,
        indices: BatchPlace | None = None,
    ) -> None:
        for allowance in allow:
            check_choice("allow", allowance, ("zero", "frozen"))
        if not callable(task_weight):
            check_weight("task_weight", task_weight)
        self.student = student
        self.objectives = named(objectives)
        self.teacher = as_teacher(student, teacher, self.objectives.values())
        self.task_weight = task_weight
        self.labels_at = labels
        self.indices_at = indices
        self.allow = frozenset(allow)
        self.adapters = nn.ModuleDict(self.objectives)
        self._recorder: TapRecorder | None = None
        self._example: Inputs | None = None
        self._proven: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: weight averaging copies whole modules, and wants no second teacher."""
        return self

    @property
    def needs_examples(self) -> bool:
        """Whether `build` must be called before `watch`."""
        return self._example is None and any(objective.needs_examples for objective in self.objectives.values())

    @property
    def wanted_samples(self) -> int:
        """How many samples `build` would like to see: 1 for shapes, more if pairs are chosen by similarity."""
        return max((matching.samples for _, matching in self._matched()), default=1)

    def _matched(self) -> list[tuple[PairedObjective, Matching]]:
        """The objectives whose pairs are chosen by similarity, and how."""
        paired = [objective for objective in self.objectives.values() if isinstance(objective, PairedObjective)]
        return [(objective, objective.matching) for objective in paired if objective.matching is not None]

    def build(self, examples: Sequence[Any], *, broadcast: Callable[[Any], Any] = lambda value: value) -> Self:
        """Choose the layer pairs that were left open, and create the adapters, from example inputs.

        Both models run in evaluation mode without gradients; their modes are restored.

        Args:
            examples: Inputs of the student, one entry per batch: a tensor, a tuple of positional or a dict of keyword
                arguments. Adapters need one; pairs chosen by similarity are estimated from all of them.
            broadcast: Gives every process the first one's value, so that all choose the same pairs.

        Returns:
            The distiller.

        Raises:
            SetupError: If ``examples`` is empty.
            TapError: If a tap names no module or does not fire.
            LayoutError: If a feature's layout must be declared.
        """
        if not examples:
            raise SetupError("`examples` must hold at least one input of the student, got none.")
        self._match(examples, broadcast)
        self._example = self._moved(examples[0])
        self._build_adapters(self._example)
        return self

    def _match(self, examples: Sequence[Any], broadcast: Callable[[Any], Any]) -> None:
        matched = self._matched()
        if not matched:
            return
        if self.teacher is None:
            raise SetupError("layer pairs can only be chosen by similarity to a `teacher`, got None.")
        similarity = similarity_map(self.student, self.teacher, map(self._moved, examples))
        for objective, matching in matched:
            candidates = similarity.with_positions() if objective.needs_positions else similarity
            matches = match_layers(candidates, top=matching.top, monotone=matching.monotone)
            objective.pair(*broadcast(([m.student for m in matches], [m.teacher for m in matches])))

    def _moved(self, example: Any) -> Inputs:
        return Inputs.of(example).to(self._device())

    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.student.parameters()), torch.device("cpu"))

    def _build_adapters(self, example: Inputs) -> None:
        self.detach()
        self.attach()
        with self._detached_on_error():
            with looking_only(self.student):
                self._observe(example)
                student, teacher = self._observe(example)
            for objective in self.objectives.values():
                objective.build(Probe(self.student, student), Probe(self._teacher_module, teacher))
        self.adapters.to(self._device())

    def _observe(self, example: Inputs) -> tuple[Observation, Observation]:
        """Run both models; the first run finds the taps that later operations overwrite, the second copies them."""
        with self._attached().recording(copy_overwritten=True) as calls:
            self.student(*example.args, **example.kwargs)
        if self.teacher is None:
            return calls[0], Observation(Inputs())
        return calls[0], self.teacher.observe(self.teacher.inputs_of(calls[0]), copy_overwritten=True)

    @property
    def _teacher_module(self) -> nn.Module:
        """What objectives look at as the teacher; of self-distillation, the student."""
        if self.teacher is None:
            return self.student
        return NoNetwork() if self.teacher.module is None else self.teacher.module

    def attach(self) -> None:
        """Attach the hooks to both models; does nothing if they are attached.

        Raises:
            SetupError: If the teacher does not serve what an objective reads.
            TapError: If a tap names no module.
        """
        if self._recorder is not None:
            return
        for objective in self.objectives.values():
            objective.locate(self.student, self._teacher_module)
        if self.teacher is not None:
            check_served(self.teacher, self.objectives.values())
        student_taps = [tap for objective in self.objectives.values() for tap in objective.student_taps]
        teacher_taps = [tap for objective in self.objectives.values() for tap in objective.teacher_taps]
        with self._detached_on_error():
            overlaps = self.teacher is not None and self.teacher.overlaps
            self._recorder = TapRecorder(self.student, student_taps, name="student", mark_start=overlaps)
            if self.teacher is not None:
                self.teacher.tap(teacher_taps)
        self._proven = set()

    def detach(self) -> None:
        """Remove every hook from both models."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None
        if self.teacher is not None:
            self.teacher.untap()

    @contextmanager
    def _detached_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.detach()
            raise

    def _attached(self) -> TapRecorder:
        self.attach()
        if self._recorder is None:
            raise SetupError("the distiller could not attach its hooks.")
        return self._recorder

    def active(self, progress: Progress = START) -> list[str]:
        """Names of the objectives whose weight is not 0 at ``progress``; the others are not computed."""
        return [name for name, objective in self.objectives.items() if weight_at(objective.weight, progress) > 0]

    @contextmanager
    def watch(self, progress: Progress = START) -> Iterator[list[Observation]]:
        """Observe the student's calls in this block; calls without gradients are not observed.

        Args:
            progress: How far training is: the taps of objectives whose weight is 0 are not read.

        Yields:
            A list that is filled when the block ends: pass it to `losses`.

        Raises:
            SetupError: If adapters are needed and `build` was not called.
            TapError: If a tap did not fire, or its tensor was overwritten.
        """
        if self.needs_examples:
            raise SetupError("these objectives need adapters or layer pairs: call build([example_input]) first.")
        recorder = self._attached()  # which lets objectives choose their taps
        taps = {tap for name in self.active(progress) for tap in self.objectives[name].student_taps}
        with recorder.recording(taps=taps) as calls:
            yield calls

    def losses(
        self, task_loss: Tensor, calls: Sequence[Observation], progress: Progress = START, *, batch: Any = None
    ) -> Losses:
        """Run the teacher on what the student saw, and add up the terms. Nothing here waits for the device.

        A student called several times is distilled on every call; each term is the mean over the calls.

        Args:
            task_loss: The student's own loss, shape ``()``.
            calls: What `watch` collected.
            progress: How far training is, for the schedules.
            batch: What the step got, for objectives that need labels or indices.

        Returns:
            The losses.

        Raises:
            SetupError: If the student was not called, or ``batch`` does not hold what an objective needs.
            ShapeError: If a batch is empty, or features or logits do not fit together.
            TermError: On the first step: a term that is zero, not finite or without gradient.
        """
        weights = {name: weight_at(objective.weight, progress) for name, objective in self.objectives.items()}
        active = [name for name, weight in weights.items() if weight > 0]
        if active and not calls:
            raise SetupError(
                f"the student ({type(self.student).__name__}) was not called with gradients while watched."
            )
        step = Step(progress, batch, self.labels_at, self.indices_at)
        per_call = [self._terms(call, step, active) for call in calls]
        terms = {name: _mean([terms[name] for terms in per_call]) for name in active}
        task_weight = weight_at(self.task_weight, progress)
        total = task_weight * task_loss + self._idle(active)
        for name, term in terms.items():
            total = total + weights[name] * term
        return Losses(total, task_loss, terms, {"task": task_weight, **weights})

    def _terms(self, call: Observation, step: Step, active: Sequence[str]) -> dict[str, Tensor]:
        tensors = call.inputs.tensors()
        if tensors and tensors[0].ndim and len(tensors[0]) == 0:
            raise ShapeError("the batch is empty: the student was called with 0 samples. Drop empty batches.")
        teacher = self._teach(call, step, [self.objectives[name] for name in active])
        terms = {name: self.objectives[name](call, teacher, step) for name in active}
        if not self._proven.issuperset(active):
            prove(terms, call, teacher, self.allow)
            self._proven.update(active)
        return terms

    def _teach(self, call: Observation, step: Step, objectives: Sequence[Objective]) -> Observation:
        taught = [objective for objective in objectives if objective.needs_teacher]
        if self.teacher is None or not taught:
            return Observation(call.inputs)
        taps = {tap for objective in taught for tap in objective.teacher_taps}
        stop = not any(objective.needs_teacher_output for objective in taught)
        return self.teacher.observe(self.teacher.inputs_of(call), step=step, taps=taps, stop=stop)

    def _idle(self, active: Sequence[str]) -> Tensor | float:
        """A zero that depends on the adapters that take no part: DDP waits for a gradient of each."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return 0.0
        idle = [objective for name, objective in self.objectives.items() if name not in active]
        unused = [p for objective in idle for p in objective.parameters() if p.requires_grad]
        return torch.stack([p.flatten()[:0].sum() for p in unused]).sum() if unused else 0.0

    def start(self) -> None:
        """Tell the teacher that training starts, with the student on its device and its weights in place."""
        if self.teacher is not None:
            self.teacher.on_fit_start(self.student)

    def end_step(self, progress: Progress) -> None:
        """Tell the teacher that an optimizer step was taken: needed by teachers that change.

        Args:
            progress: How far training is; ``step`` counts the steps taken.
        """
        if self.teacher is not None:
            self.teacher.on_step_end(self.student, progress)

    def end_epoch(self, progress: Progress) -> None:
        """Tell the teacher that an epoch is over: needed by teachers that change.

        Args:
            progress: How far training is; ``epoch`` counts the epochs finished.
        """
        if self.teacher is not None:
            self.teacher.on_epoch_end(self.student, progress)

    def state_dict(self) -> dict[str, Any]:
        """Weights of the adapters, the chosen pairs and a changing teacher's state: tensors and plain values only."""
        pairs = {
            objective.name: [[tap.path for tap in taps] for taps in (objective.student_taps, objective.teacher_taps)]
            for objective, _ in self._matched()
        }
        state: dict[str, Any] = {"pairs": pairs, "adapters": dict(self.adapters.state_dict())}
        taught = {} if self.teacher is None else dict(self.teacher.training_state())
        return {**state, "teacher": taught} if taught else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; pairs that differ from those of `build` replace them.

        Args:
            state: What `state_dict` returned.

        Raises:
            SetupError: If the state is of other objectives, or of another kind of teacher.
        """
        changed = False
        for name, (student, teacher) in state["pairs"].items():
            objective = self.objectives.get(name)
            if isinstance(objective, PairedObjective):
                before = objective.student_taps, objective.teacher_taps
                objective.pair(student, teacher)
                changed |= before != (objective.student_taps, objective.teacher_taps)
        if changed and self._example is not None:
            self._build_adapters(self._example)
        try:
            self.adapters.load_state_dict(state["adapters"])
        except RuntimeError as error:
            raise SetupError(
                f"the checkpoint was written with other objectives or taps than {list(self.objectives)}: {error}"
            ) from error
        if self.teacher is not None:
            self.teacher.load_training_state(state.get("teacher", {}))


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()
