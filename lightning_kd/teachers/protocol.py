"""What every teacher does, whatever it is: a network, several, the student's own average, or records on disk."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap

Knowledge = Literal["output", "features"]


@runtime_checkable
class Teacher(Protocol):
    """Where knowledge comes from. Derive a kind of your own from `BaseTeacher` and override what differs.

    Attributes:
        module: The network that taps name and objectives look at; ``None`` if there is none, as behind a cache.
        serves: What it can give: its ``"output"``, ``"features"`` at taps, or both.
        overlaps: Whether it may start while the student still runs; it is then told when its inputs were ready.
    """

    @property
    def module(self) -> nn.Module | None:
        """The network, or ``None``."""

    @property
    def serves(self) -> Collection[Knowledge]:
        """What it can give."""

    @property
    def overlaps(self) -> bool:
        """Whether it may start while the student runs."""

    def prepare(self, student: nn.Module) -> None:
        """Meet the student, once, before taps are set; a student's average makes its first copy here."""

    def inputs_of(self, call: Observation) -> Inputs:
        """What `observe` gets of a call of the student: its arguments, or what else the call shows."""

    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` from now on, in place of those read so far."""

    def untap(self) -> None:
        """Read no taps, and leave no hook on any network."""

    def observe(
        self,
        inputs: Inputs,
        *,
        step: Step | None = None,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        """Show what the teacher makes of the student's arguments, without gradients.

        Args:
            inputs: Arguments that the student got.
            step: Labels, sample indices and progress. ``None`` outside of training, where only shapes matter: adapters
                are built from what is shown then.
            taps: Those to read; ``None`` reads all that were set.
            stop: Whether the output is not needed, so that a network may end at its last tap.
            copy_overwritten: As in `TapRecorder.recording`.

        Returns:
            The output and the features at the taps, as far as they are served.
        """

    def on_fit_start(self, student: nn.Module) -> None:
        """Called before the first step, with the student on its device and all ranks' weights equal."""

    def on_step_end(self, student: nn.Module, progress: Progress) -> None:
        """Called after every optimizer step; ``progress.step`` counts those taken."""

    def on_epoch_end(self, student: nn.Module, progress: Progress) -> None:
        """Called after every epoch; ``progress.epoch`` counts the epochs finished."""

    def training_state(self) -> Mapping[str, Any]:
        """What resuming needs, in tensors and plain values: nothing, unless the teacher changes while training."""

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `training_state` gave."""


class BaseTeacher:
    """What most teachers have in common: they need no preparation, never change, and leave nothing to be saved.

    A kind of teacher has ``module`` and ``observe`` at least, and where it serves features, ``tap`` and ``untap``; see
    `Teacher` for what each of them does.

    Example:
        >>> import torch
        >>> class Uniform(BaseTeacher):
        ...     module, serves = None, ("output",)
        ...
        ...     def observe(self, inputs, *, step=None, taps=None, stop=False, copy_overwritten=False):
        ...         return Observation(inputs, torch.zeros(len(inputs.tensors()[0]), 10))
        >>> isinstance(Uniform(), Teacher), Uniform().training_state()
        (True, {})
    """

    module: nn.Module | None
    serves: Collection[Knowledge] = ("output", "features")
    overlaps: bool = False

    def prepare(self, student: nn.Module) -> None:
        """Do nothing."""

    def inputs_of(self, call: Observation) -> Inputs:
        """Return the arguments of the call, unchanged."""
        return call.inputs

    def tap(self, taps: Iterable[Tap]) -> None:
        """Refuse taps, which a teacher without features cannot read.

        Args:
            taps: Places to read.

        Raises:
            SetupError: If there are any.
        """
        places = [tap.path for tap in taps]
        if places:
            raise SetupError(f"`{type(self).__name__}` has no features, so the taps {places} cannot be read.")

    def untap(self) -> None:
        """Do nothing."""

    def observe(
        self,
        inputs: Inputs,
        *,
        step: Step | None = None,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        """Show what the teacher makes of ``inputs``, see `Teacher`; to be overridden."""
        raise NotImplementedError

    def on_fit_start(self, student: nn.Module) -> None:
        """Do nothing."""

    def on_step_end(self, student: nn.Module, progress: Progress) -> None:
        """Do nothing."""

    def on_epoch_end(self, student: nn.Module, progress: Progress) -> None:
        """Do nothing."""

    def training_state(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take nothing.

        Args:
            state: What `training_state` gave.

        Raises:
            SetupError: If there is something, which another kind of teacher wrote.
        """
        if state:
            raise SetupError(
                f"the checkpoint holds the state of a teacher that changes, with {sorted(state)}, and "
                f"{type(self).__name__} has none: resume with the teacher that it was written with."
            )
