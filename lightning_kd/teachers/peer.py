"""A teacher that learns itself: another student of the same fit."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._modes import looking_only
from lightning_kd.errors import SetupError
from lightning_kd.recorder import TapRecorder
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.teachers.execution import over_tensors
from lightning_kd.teachers.protocol import BaseTeacher


class PeerTeacher(BaseTeacher):
    """A network that trains beside the student and teaches it, without gradients from one to the other.

    What it shows are the training calls that it made inside of `listening`, cut from the graph: one forward pass serves
    as student and as teacher. Otherwise it is run once more, as it is by then, in its own mode.

    Args:
        module: The other student.

    Example:
        >>> peer = nn.Linear(2, 2)
        >>> teacher = PeerTeacher(peer)
        >>> with teacher.listening():
        ...     output = peer(torch.ones(1, 2))
        >>> shown = teacher.observe(Inputs.of(torch.ones(1, 2))).output
        >>> torch.equal(shown, output), shown.requires_grad
        (True, False)
    """

    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._recorder: TapRecorder | None = None
        self._heard: list[Observation] = []

    @override
    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` of the peer from now on.

        Args:
            taps: Places in the peer.

        Raises:
            TapError: If one names no module.
        """
        self.untap()
        self._recorder = TapRecorder(self.module, taps, name="teacher")

    @override
    def untap(self) -> None:
        """Leave no hook on the peer."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None
        self._heard = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what the peer's calls in this block show, for `observe` to return one after the other.

        Raises:
            TapError: If a tap did not fire.
        """
        self._heard = []
        with self._attached().recording() as calls:
            yield
        self._heard = list(calls)

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
        """Show the next call that was heard, or run the peer if none is left.

        Args:
            inputs: The student's arguments.
            step: ``None`` outside of training, where the peer runs in evaluation mode.
            taps: Those to read; ``None`` reads all.
            stop: Not looked at: a peer runs to its end.
            copy_overwritten: As in `TapRecorder.recording`.

        Returns:
            Output and features, without gradients.
        """
        if self._heard:
            return _cut(self._heard.pop(0))
        # Outside of training the peer must not change, not even its batch statistics.
        mode = torch.no_grad() if step is not None else looking_only(self.module)
        with mode, self._attached().recording(taps=taps, copy_overwritten=copy_overwritten) as calls:
            self.module(*inputs.args, **inputs.kwargs)
        return calls[0]

    def _attached(self) -> TapRecorder:
        if self._recorder is None:
            self.tap([])
        if self._recorder is None:
            raise SetupError("the peer could not be watched.")
        return self._recorder


def _cut(seen: Observation) -> Observation:
    def detached(tensors: list[Tensor]) -> Tensor:
        return tensors[0].detach()

    output, features = (over_tensors(detached, [shown]) for shown in (seen.output, seen.features))
    return Observation(seen.inputs, output, features, seen.model)
