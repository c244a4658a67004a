"""How a frozen network is run: precision, device, compiler, stream, and how much of a batch at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.taps import Inputs, Observation

Look = Callable[[Inputs], Observation]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Execution:
    """How a `FrozenTeacher` runs its network. What it shows is on the student's device, and at least float32.

    Attributes:
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"``: type that the network's weights are converted to, for
            good; ``None`` leaves them.
        device: Where the network stays, as ``"cuda:1"``; ``None`` follows the student's inputs.
        compiler: Backend of `torch.compile`, as ``"inductor"``; ``None`` does not compile. A compiled network runs to
            its end, also where only a tap in its middle is read.
        stream: Whether it runs on a CUDA stream of its own, from the moment at which the student's inputs are ready,
            beside the student's forward pass; the student must not change its inputs in place.
        microbatch: Samples at once, which bounds memory: tensors with one row per sample are split, and what the parts
            show is joined. ``None`` runs whole batches.

    Raises:
        ValueError: If ``dtype`` is unknown, or ``microbatch`` is not above 0.

    Example:
        >>> from lightning_kd import FrozenTeacher
        >>> teacher = FrozenTeacher(torch.nn.Linear(4, 2), execution=Execution(dtype="bfloat16", microbatch=2))
        >>> shown = teacher.observe(Inputs.of(torch.zeros(5, 4)))
        >>> teacher.module.weight.dtype, shown.output.dtype, shown.output.shape
        (torch.bfloat16, torch.float32, torch.Size([5, 2]))
    """

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    device: str | None = None
    compiler: str | None = None
    stream: bool = False
    microbatch: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("dtype", self.dtype, (None, *_DTYPES))
        if self.microbatch is not None:
            check_positive("microbatch", self.microbatch)

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """Type of the network's weights, ``None`` for the one they have."""
        return None if self.dtype is None else _DTYPES[self.dtype]

    def run(self, look: Look, inputs: Inputs) -> Observation:
        """Look at a batch, as much of it at once as allowed, and show the result as the student wants it.

        Args:
            look: Runs the network once.
            inputs: The student's arguments.

        Returns:
            What the network showed, of all samples.

        Raises:
            SetupError: If parts of a batch cannot be joined.
        """
        parts = [look(part) for part in split(inputs, self.microbatch)]
        observation = parts[0] if len(parts) == 1 else _joined(parts)
        tensors = inputs.tensors()
        if tensors and (self.dtype is not None or self.device is not None):
            _return_to(tensors[0].device, observation)
        return observation


class SideStream:
    """A CUDA stream on which a teacher runs beside the student."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def run(self, look: Look, inputs: Inputs) -> Observation:
        """Look at a batch on this stream as soon as its inputs are ready; what follows waits for the result.

        Args:
            look: Runs the network.
            inputs: The student's arguments; elsewhere than on a GPU, the network runs as without a stream.

        Returns:
            What ``look`` returned.
        """
        tensors = inputs.tensors()
        if not tensors or not tensors[0].is_cuda:
            return look(inputs)
        current = torch.cuda.current_stream(tensors[0].device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(tensors[0].device)  # type: ignore[no-untyped-call]
        if inputs.ready is None:
            self._stream.wait_stream(current)
        else:
            self._stream.wait_event(inputs.ready)
        with torch.cuda.stream(self._stream):
            observation = look(inputs)
        current.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(self._stream)
        over_tensors(
            lambda shown: shown[0].record_stream(current), [[observation.output, *observation.features.values()]]
        )
        return observation


def split(inputs: Inputs, samples: int | None) -> list[Inputs]:
    """Cut a batch into parts.

    Args:
        inputs: Arguments; tensors with as many rows as the first one are cut, everything else is in every part.
        samples: Rows of a part at most; ``None`` does not cut.

    Returns:
        The parts, in order.

    Example:
        >>> [part.args[0].tolist() for part in split(Inputs.of(torch.arange(5)), 2)]
        [[0, 1], [2, 3], [4]]
    """
    tensors = inputs.tensors()
    rows = len(tensors[0]) if tensors and tensors[0].ndim else 0
    if samples is None or rows <= samples:
        return [inputs]
    size = samples

    def part(value: Any, start: int) -> Any:
        per_sample = isinstance(value, Tensor) and value.ndim and len(value) == rows
        return value[start : start + size] if per_sample else value

    return [
        Inputs(
            tuple(part(value, start) for value in inputs.args),
            {key: part(value, start) for key, value in inputs.kwargs.items()},
        )
        for start in range(0, rows, size)
    ]


def over_tensors(function: Callable[[list[Tensor]], Any], values: Sequence[Any]) -> Any:
    """Apply a function to the tensors at each place of several outputs of one form.

    Args:
        function: Gets the tensors at one place, one of each output.
        values: Tensors, or sequences or mappings of them, however deep.

    Returns:
        The same form with the function's results: a tuple for sequences, a dict for mappings. What is no tensor is the
        first output's.

    Example:
        >>> over_tensors(torch.cat, [{"logits": torch.zeros(1), "loss": None}, {"logits": torch.ones(2), "loss": None}])
        {'logits': tensor([0., 1., 1.]), 'loss': None}
    """
    first = values[0]
    if isinstance(first, Tensor):
        return function(list(values))
    if isinstance(first, Mapping):
        return {key: over_tensors(function, [value[key] for value in values]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(over_tensors(function, place) for place in zip(*values, strict=True))
    return first


def _joined(parts: Sequence[Observation]) -> Observation:
    inputs = [{"args": part.inputs.args, "kwargs": part.inputs.kwargs} for part in parts]
    whole = over_tensors(_rows, inputs)
    output = over_tensors(_rows, [part.output for part in parts])
    features = over_tensors(_rows, [part.features for part in parts])
    return Observation(Inputs(whole["args"], whole["kwargs"]), output, features, parts[0].model)


def _rows(tensors: list[Tensor]) -> Tensor:
    if tensors[0].ndim == 0:
        raise SetupError(
            "`microbatch` needs a network whose outputs have a row per sample, got a scalar: leave microbatch out, or "
            "wrap the network so that it returns its scores only."
        )
    return torch.cat(tensors)


def _return_to(device: torch.device, observation: Observation) -> None:
    def back(tensors: list[Tensor]) -> Tensor:
        tensor = tensors[0]
        wide = torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device, wide)

    observation.output = over_tensors(back, [observation.output])
    observation.features = over_tensors(back, [observation.features])
