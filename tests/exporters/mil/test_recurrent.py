"""Against PyTorch's LSTM, whose gates are in another order."""

import numpy as np
import pytest
import torch
from torch import nn

torch.manual_seed(0)
LSTM = nn.LSTM(3, 4, bidirectional=True).requires_grad_(False)
X, STATES = torch.randn(5, 2, 3), torch.randn(2, 2, 2, 4)


def reordered(tensor):
    """PyTorch has input, forget, cell and output gate; MIL has the output gate before the cell gate."""
    enter, forget, cell, leave = tensor.chunk(4)
    return torch.cat([enter, forget, leave, cell]).numpy()


def weights(suffix=""):
    return {
        "weight_ih": reordered(getattr(LSTM, f"weight_ih_l0{suffix}")),
        "weight_hh": reordered(getattr(LSTM, f"weight_hh_l0{suffix}")),
        "bias": reordered(getattr(LSTM, f"bias_ih_l0{suffix}") + getattr(LSTM, f"bias_hh_l0{suffix}")),
    }


def case(expected, states, **options):
    hidden, cell = (torch.cat(list(state), -1).numpy() for state in states)
    return (
        lambda mb, x: mb.lstm(x=x, initial_h=hidden, initial_c=cell, **options),
        {"x": X.numpy()},
        tuple(np.asarray(value) for value in expected),
    )


SEQUENCE, (HIDDEN, CELL) = LSTM(X, (STATES[0], STATES[1]))
BACK = {f"{name}_back": value for name, value in weights("_reverse").items()}

CASES = {
    "lstm": case(
        (SEQUENCE[..., :4], HIDDEN[0], CELL[0]), STATES[:, :1], direction="forward", output_sequence=True, **weights()
    ),
    "lstm__last": case((HIDDEN[:1], HIDDEN[0], CELL[0]), STATES[:, :1], direction="forward", **weights()),
    "lstm__reverse": case(
        (SEQUENCE[..., 4:], HIDDEN[1], CELL[1]),
        STATES[:, 1:],
        direction="reverse",
        output_sequence=True,
        **weights("_reverse"),
    ),
    "lstm__bidirectional": case(
        (SEQUENCE, torch.cat(list(HIDDEN), -1), torch.cat(list(CELL), -1)),
        STATES,
        direction="bidirectional",
        output_sequence=True,
        **weights(),
        **BACK,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_pytorch_gives(check, name):
    check(name)
