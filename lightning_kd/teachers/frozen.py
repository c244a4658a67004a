"""The teacher that never learns: frozen by type."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from lightning_kd.errors import SetupError
from lightning_kd.recorder import TapRecorder
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.teachers.execution import Execution, SideStream
from lightning_kd.teachers.input_spec import matching_transform
from lightning_kd.teachers.protocol import BaseTeacher, Teacher

InputTransform = Callable[..., Any] | Literal["declared"]


def check_teacher(teacher: object) -> None:
    """Raise `SetupError` unless ``teacher`` is a module or a `Teacher`."""
    if not isinstance(teacher, nn.Module | Teacher):
        raise SetupError(f"`teacher` must be a torch.nn.Module with its weights loaded, or a Teacher, got {teacher!r}.")


class FrozenTeacher(nn.Module, BaseTeacher):
    """Wraps any model so that it cannot train: no gradients, always in evaluation mode, even after ``train()``.

    The wrapped model's parameters stop requiring gradients. The teacher follows its inputs to their device, and the
    inputs take the teacher's floating-point type.

    Args:
        module: The trained model.
        input_transform: Turns the student's arguments into the teacher's: called with the same arguments, it returns
            a tensor, a tuple of positional or a dict of keyword arguments. ``"declared"`` makes the one that leads from
            the size, mean and standard deviation that the student declares to the teacher's, see `InputSpec`. ``None``
            passes the arguments on unchanged.
        batch_statistics: Whether its BatchNorm layers normalise by the batch instead of by their running statistics,
            which are neither used nor changed; SSLD (PaddleClas) runs its teacher so.
        execution: Precision, device, compiler, stream and microbatch; ``None`` runs it as it is.

    Raises:
        SetupError: If ``module`` is not a module, or a microbatch would change the statistics of the batch; when it
            meets the student, if a declaration is missing.

    Example:
        >>> teacher = FrozenTeacher(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)))
        >>> teacher.train().training, any(p.requires_grad for p in teacher.parameters())
        (False, False)
    """

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        *,
        input_transform: InputTransform | None = None,
        batch_statistics: bool = False,
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise SetupError(f"`module` must be a torch.nn.Module with its weights loaded, got {module!r}.")
        self.execution = Execution() if execution is None else execution
        if batch_statistics and self.execution.microbatch is not None:
            raise SetupError("`batch_statistics` are those of the whole batch: leave out execution.microbatch.")
        self.module = module.requires_grad_(False)
        if self.execution.torch_dtype is not None:
            module.to(self.execution.torch_dtype)
        if self.execution.compiler is not None:
            module.compile(backend=self.execution.compiler)
        self.input_transform = input_transform
        self.batch_statistics = batch_statistics
        self.overlaps = self.execution.stream
        self._side = SideStream()
        self._recorder: TapRecorder | None = None
        self.train(False)

    @override
    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever ``mode``."""
        super().train(False)
        if self.batch_statistics:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.training, module.track_running_stats = True, False
        return self

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped model without gradients and return its output."""
        if self.module.training:
            self.train(False)
        with torch.no_grad():
            return self.module(*args, **kwargs)

    @override
    def prepare(self, student: nn.Module) -> None:
        """Make the transform from what both networks declare, if it is asked for.

        Args:
            student: Whose inputs the teacher gets.

        Raises:
            SetupError: If one of them declares nothing.
        """
        if self.input_transform == "declared":
            self.input_transform = matching_transform(student, self.module)

    @override
    def on_fit_start(self, student: nn.Module) -> None:
        """Check that there is a stream to run on, if one is asked for.

        Args:
            student: The student, on its device.

        Raises:
            SetupError: If it is on no GPU.
        """
        if self.execution.stream and not any(parameter.is_cuda for parameter in student.parameters()):
            raise SetupError("`execution.stream` needs a student on a CUDA device: leave it out on others.")

    @override
    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` from now on, in place of those read so far.

        Args:
            taps: Places in the wrapped model.

        Raises:
            TapError: If one names no module.
        """
        self.untap()
        self._recorder = TapRecorder(self.module, taps, name="teacher")

    @override
    def untap(self) -> None:
        """Read no taps and leave no hook on the wrapped model."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None

    @override
    def observe(
        self,
        inputs: Inputs,
        *,
        step: Step | None = None,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        """Run the teacher on the student's arguments.

        Args:
            inputs: Arguments that the student got.
            step: Not looked at.
            taps: Those to read; ``None`` reads all.
            stop: Whether to run up to the last tap only; then there is no output.
            copy_overwritten: As in `TapRecorder.recording`.

        Returns:
            Its output and the features at its taps.

        Raises:
            TapError: If a tap could not be read.
        """
        look = partial(self._look, taps=taps, stop=stop, copy_overwritten=copy_overwritten)
        run = partial(self.execution.run, look)
        return self._side.run(run, inputs) if self.execution.stream else run(inputs)

    def _look(self, inputs: Inputs, *, taps: Collection[Tap] | None, stop: bool, copy_overwritten: bool) -> Observation:
        if callable(self.input_transform):
            inputs = Inputs.of(self.input_transform(*inputs.args, **inputs.kwargs))
        inputs = self._meet(inputs)
        if self._recorder is None:
            return Observation(inputs, self(*inputs.args, **inputs.kwargs), model=self.module)
        recording = self._recorder.recording(taps=taps, stop=stop, copy_overwritten=copy_overwritten)
        with torch.no_grad(), recording as calls:
            self(*inputs.args, **inputs.kwargs)
        return calls[0]

    def _meet(self, inputs: Inputs) -> Inputs:
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        tensors = inputs.tensors()
        if parameter is None or not tensors:
            return inputs
        pinned = self.execution.device
        device = tensors[0].device if pinned is None else torch.device(pinned)
        if parameter.device != device:
            self.to(device)
        return inputs.to(device, parameter.dtype)


def unwrapped(teacher: nn.Module | Teacher) -> nn.Module:
    """The network behind a teacher.

    Args:
        teacher: A network, or a teacher.

    Returns:
        The network inside, or ``teacher`` itself.

    Raises:
        SetupError: If the teacher has no network.
    """
    if not isinstance(teacher, Teacher):
        return teacher
    if teacher.module is None:
        raise SetupError(
            f"`teacher` must have a network to look at here, and {type(teacher).__name__} has none: name the places "
            "yourself, or distil class scores (LogitKD)."
        )
    return teacher.module
