"""The teacher that never learns: frozen by type."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from lightning_kd.errors import SetupError
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Inputs, Observation, Tap


def check_teacher(teacher: object) -> None:
    """Raise `SetupError` unless ``teacher`` is a module."""
    if not isinstance(teacher, nn.Module):
        raise SetupError(f"`teacher` must be a torch.nn.Module with its weights loaded, got {teacher!r}.")


class FrozenTeacher(nn.Module):
    """Wraps any model so that it cannot train: no gradients, always in evaluation mode, even after ``train()``.

    The wrapped model's parameters stop requiring gradients. The teacher follows its inputs to their device, and the
    inputs take the teacher's floating-point type.

    Args:
        module: The trained model.
        input_transform: Turns the student's arguments into the teacher's: called with the same arguments, it returns
            a tensor, a tuple of positional or a dict of keyword arguments. ``None`` passes them on unchanged.
        batch_statistics: Whether its BatchNorm layers normalise by the batch instead of by their running statistics,
            which are neither used nor changed; SSLD (PaddleClas) runs its teacher so.

    Raises:
        SetupError: If ``module`` is not a module.

    Example:
        >>> teacher = FrozenTeacher(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)))
        >>> teacher.train().training, any(p.requires_grad for p in teacher.parameters())
        (False, False)
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_transform: Callable[..., Any] | None = None,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        check_teacher(module)
        self.module = module.requires_grad_(False)
        self.input_transform = input_transform
        self.batch_statistics = batch_statistics
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

    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` from now on, in place of those read so far.

        Args:
            taps: Places in the wrapped model.

        Raises:
            TapError: If one names no module.
        """
        self.untap()
        self._recorder = TapRecorder(self.module, taps, name="teacher")

    def untap(self) -> None:
        """Read no taps and leave no hook on the wrapped model."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None

    def observe(
        self,
        inputs: Inputs,
        *,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        """Run the teacher on the student's arguments.

        Args:
            inputs: Arguments that the student got.
            taps: Those to read; ``None`` reads all.
            stop: Whether to run up to the last tap only; then there is no output.
            copy_overwritten: As in `TapRecorder.recording`.

        Returns:
            Its output and the features at its taps.

        Raises:
            TapError: If a tap could not be read.
        """
        if self.input_transform is not None:
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
        if parameter.device != tensors[0].device:
            self.to(tensors[0].device)
        return inputs.to(tensors[0].device, parameter.dtype)


def unwrapped(teacher: nn.Module) -> nn.Module:
    """The network inside a `FrozenTeacher`, or ``teacher`` itself."""
    return teacher.module if isinstance(teacher, FrozenTeacher) else teacher
