"""Recurrent layers."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.errors import ConversionError
from exporters.mil.arguments import Arguments, Operator

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.clone,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _activation(inputs: Arguments, name: str) -> Callable[[Tensor], Tensor]:
    kind = inputs.text(name)
    if kind not in _ACTIVATIONS:
        raise ConversionError(
            f"`{name}` of operator `lstm` must be one of {', '.join(map(repr, _ACTIVATIONS))} to be evaluated, "
            f"got {kind!r}."
        )
    return _ACTIVATIONS[kind]


def _run(inputs: Arguments, states: tuple[Tensor, Tensor], *, suffix: str, backward: bool) -> list[Tensor]:
    """Hidden states of every step in the order of time, and the last hidden and cell state, for one direction."""
    x = inputs.tensor("x").flip(0) if backward else inputs.tensor("x")
    bias, peephole = inputs.optional(f"bias{suffix}"), inputs.optional(f"peephole{suffix}")
    if peephole is not None or inputs.optional("clip") is not None:
        raise ConversionError("operator `lstm` must have no peephole and no clip to be evaluated.")
    gate, cell_gate, output = (
        _activation(inputs, name) for name in ("recurrent_activation", "cell_activation", "activation")
    )
    hidden, cell = states
    steps = []
    for projected in F.linear(x, inputs.tensor(f"weight_ih{suffix}"), bias):
        total = projected + F.linear(hidden, inputs.tensor(f"weight_hh{suffix}"))
        enter, forget, leave, new = total.chunk(4, -1)
        cell = gate(forget) * cell + gate(enter) * cell_gate(new)
        hidden = gate(leave) * output(cell)
        steps.append(hidden)
    return [torch.stack(steps[::-1] if backward else steps), hidden, cell]


def _lstm(inputs: Arguments) -> list[Tensor]:
    direction = inputs.text("direction")
    count = 2 if direction == "bidirectional" else 1
    states = list(
        zip(inputs.tensor("initial_h").chunk(count, -1), inputs.tensor("initial_c").chunk(count, -1), strict=True)
    )
    runs = [_run(inputs, states[0], suffix="", backward=direction == "reverse")]
    if count == 2:
        runs.append(_run(inputs, states[1], suffix="_back", backward=True))
    sequence, hidden, cell = (torch.cat(parts, -1) for parts in zip(*runs, strict=True))
    return [sequence if inputs.flag("output_sequence") else hidden[None], hidden, cell]


OPERATORS: Mapping[str, Operator] = {"lstm": _lstm}
