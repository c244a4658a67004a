"""Two networks that train together, each other's teacher."""

from typing import Any

from torch import nn
from typing_extensions import override


class Peers(nn.Module):
    """Runs two networks on one input and returns both outputs: a student whose parts teach each other.

    Distil it with ``teacher=None`` and objectives between its two sides, such as `BSDKD` and `HFDKD`; taps name the
    side, as in ``"a.layer1"``. Each side is exported alone: ``peers.a``, ``peers.b``.

    Args:
        a: One network.
        b: The other, of any architecture with the same inputs.

    Example:
        >>> import torch
        >>> peers = Peers(nn.Linear(4, 3), nn.Linear(4, 3))
        >>> [tuple(output.shape) for output in peers(torch.zeros(2, 4))]
        [(2, 3), (2, 3)]
    """

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a = a
        self.b = b

    @override
    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Return the outputs of both networks for the same arguments."""
        return self.a(*args, **kwargs), self.b(*args, **kwargs)
