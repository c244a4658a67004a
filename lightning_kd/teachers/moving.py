"""Teachers that change while the student trains, or never knew anything: its average, its past, random weights."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.schedules import Progress, Weight, weight_at
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.protocol import BaseTeacher


class CopyTeacher(BaseTeacher):
    """A teacher that is a copy of the student, in evaluation mode, and follows it in some way.

    The copy is made when training is set up, and takes the student's weights once more when training starts, so that
    it starts equal to the student on all ranks. Resuming goes on with the copy that was saved. Taps are places in the
    student.
    """

    def __init__(self) -> None:
        self._copy: FrozenTeacher | None = None
        self._started = False

    @property
    def module(self) -> nn.Module | None:  # type: ignore[override]
        """The copy; ``None`` before training is set up."""
        return None if self._copy is None else self._copy.module

    @override
    def prepare(self, student: nn.Module) -> None:
        """Copy the student.

        Args:
            student: The student.
        """
        self._copy = FrozenTeacher(copy.deepcopy(student))
        self._started = False

    @override
    def tap(self, taps: Iterable[Tap]) -> None:
        """Read ``taps`` of the copy from now on.

        Args:
            taps: Places in the student.

        Raises:
            TapError: If one names no module.
        """
        self._prepared.tap(taps)

    @override
    def untap(self) -> None:
        """Read no taps and leave no hook on the copy."""
        self._prepared.untap()

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
        """Run the copy on the student's arguments, see `FrozenTeacher.observe`."""
        return self._prepared.observe(inputs, step=step, taps=taps, stop=stop, copy_overwritten=copy_overwritten)

    @override
    def on_fit_start(self, student: nn.Module) -> None:
        """Take the student's weights, unless training goes on.

        Args:
            student: The student, on its device.
        """
        if not self._started:
            self._take(student)
            self._started = True

    @override
    def training_state(self) -> Mapping[str, Any]:
        """Return the weights of the copy."""
        return {"weights": dict(self._prepared.module.state_dict())}

    @override
    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the copy that was saved.

        Args:
            state: What `training_state` gave.

        Raises:
            SetupError: If there is none, or it is of another student.
        """
        if not state:
            raise SetupError(
                f"the checkpoint holds no state of a {type(self).__name__}: it was written with another teacher. Load "
                "its weights into the module and train without resuming."
            )
        weights = state["weights"]
        try:
            self._prepared.module.load_state_dict({key: weights[key] for key in self._prepared.module.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise SetupError(f"the checkpoint holds a {type(self).__name__} of another student: {error}") from error
        self._started = True

    @property
    def _prepared(self) -> FrozenTeacher:
        if self._copy is None:
            raise SetupError(f"{type(self).__name__} has no student yet: a Distiller or callback prepares it.")
        return self._copy

    def _pairs(self, student: nn.Module) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Parameters and buffers of the copy, each with the student's."""
        network = self._prepared.module
        parameters, buffers = dict(student.named_parameters()), dict(student.named_buffers())
        return (
            [(own, parameters[name].detach()) for name, own in network.named_parameters()],
            [(own, buffers[name]) for name, own in network.named_buffers()],
        )

    @torch.no_grad()
    def _take(self, student: nn.Module) -> None:
        parameters, buffers = self._pairs(student)
        for own, value in (*parameters, *buffers):
            own.data = own.data.to(value.device)
            own.copy_(value)


class EMATeacher(CopyTeacher):
    r"""The exponential moving average of the student's weights: a momentum teacher.

    After every optimizer step, for parameters :math:`\theta` of the student and :math:`\xi` of the teacher,

    .. math::
        \xi \leftarrow m \xi + (1 - m) \theta.

    It starts as the student, so that without dropout or batch statistics the first term is exactly zero: pass
    ``allow=("zero",)``. Under DDP all ranks use the buffers, such as running statistics, of the first one.

    Args:
        momentum: :math:`m` from 0 to 1, or a schedule.
        buffers: ``"copy"`` takes the student's buffers, ``"average"`` averages those of floating point too.

    Raises:
        ValueError: If ``momentum`` is beyond 1, or ``buffers`` is unknown.

    Source:
        Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
        arXiv:2107.07651, with momentum 0.995; from memory, checked against no code. Tarvainen and Valpola, "Mean
        teachers are better role models", arXiv:1703.01780.

    Example:
        >>> student, teacher = nn.Linear(1, 1, bias=False), EMATeacher(momentum=0.75)
        >>> teacher.prepare(student)
        >>> _ = nn.init.constant_(student.weight, 4.0), nn.init.constant_(teacher.module.weight, 0.0)
        >>> teacher.on_step_end(student, Progress(step=1))
        >>> teacher.module.weight.item()  # 0.75 * 0 + 0.25 * 4
        1.0
    """

    def __init__(self, momentum: Weight = 0.995, *, buffers: Literal["copy", "average"] = "copy") -> None:
        super().__init__()
        check_choice("buffers", buffers, ("copy", "average"))
        if not callable(momentum):
            _check_momentum(momentum)
        self.momentum = momentum
        self.buffers = buffers

    @override
    @torch.no_grad()
    def on_step_end(self, student: nn.Module, progress: Progress) -> None:
        """Average.

        Args:
            student: The student.
            progress: How far training is.
        """
        momentum = weight_at(self.momentum, progress)
        _check_momentum(momentum)
        parameters, buffers = self._pairs(student)
        for own, value in parameters:
            own.mul_(momentum).add_(value, alpha=1 - momentum)
        for own, value in buffers:
            if self.buffers == "average" and own.is_floating_point():
                own.mul_(momentum).add_(value, alpha=1 - momentum)
            else:
                own.copy_(value)
        _use_those_of_the_first([own for own, _ in buffers])


class PastTeacher(CopyTeacher):
    """The student as it was at the end of an earlier epoch.

    During the first ``every`` epochs it is the student at the start: let the objectives rest then, as by
    ``weight=Window(1.0, begin=1)``. Under DDP all ranks use the buffers of the first one.

    Args:
        every: After how many epochs the copy is renewed.

    Raises:
        ValueError: If ``every`` is below 1.

    Source:
        Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", arXiv:2006.12000, with every
        epoch.

    Example:
        >>> student, teacher = nn.Linear(1, 1), PastTeacher(every=2)
        >>> teacher.prepare(student)
        >>> _ = nn.init.constant_(student.weight, 4.0)
        >>> teacher.on_epoch_end(student, Progress(epoch=1))
        >>> teacher.module.weight.item() == 4.0
        False
        >>> teacher.on_epoch_end(student, Progress(epoch=2))
        >>> teacher.module.weight.item()
        4.0
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        check_positive("every", every)
        self.every = every

    @override
    def on_epoch_end(self, student: nn.Module, progress: Progress) -> None:
        """Renew the copy, if it is time.

        Args:
            student: The student.
            progress: How far training is.
        """
        if progress.epoch % self.every == 0:
            self._take(student)
            _use_those_of_the_first(list(self._prepared.module.buffers()))


def random_teacher(make: Callable[[], nn.Module], *, seed: int = 0) -> FrozenTeacher:
    """A teacher with random weights that depend on ``seed`` alone: equal on all ranks and in every run.

    Such teachers improve a student's representation, above all one that starts near them, without data knowledge.

    Args:
        make: Makes a network with random weights.
        seed: Seed of the weights. The generators of this process are left as they were.

    Returns:
        The teacher.

    Source:
        Sarnthein et al., "Random Teachers are Good Teachers", arXiv:2302.12091.

    Example:
        >>> one, same = (random_teacher(lambda: nn.Linear(2, 2), seed=7) for _ in range(2))
        >>> torch.equal(one.module.weight, same.module.weight)
        True
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return FrozenTeacher(make())


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"`momentum` must be from 0 to 1, or a schedule of such values, got {momentum!r}.")


def _use_those_of_the_first(buffers: list[Tensor]) -> None:
    """Give every rank the first one's buffers: batch statistics differ between ranks until DDP joins them."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in buffers:
            dist.broadcast(buffer, src=0)
