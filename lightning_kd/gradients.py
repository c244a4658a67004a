"""What happens to gradients on their way back."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_not_negative


def reverse_gradient(tensor: Tensor, *, strength: float = 1.0) -> Tensor:
    r"""Return ``tensor`` unchanged; its gradient is multiplied by ``-strength`` on the way back.

    What lies behind is so trained to increase a loss that everything in front of it decreases: an adversary in one
    backward pass.

    Args:
        tensor: Any tensor, floating point.
        strength: :math:`\lambda \ge 0`, dimensionless; at 0 no gradient passes.

    Returns:
        The same values, same shape.

    Raises:
        ValueError: If ``strength`` is not a finite number of at least 0: a negative one would reverse twice.

    Source:
        Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", arXiv:1409.7495.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (x * reverse_gradient(x, strength=0.5)).backward()
        >>> x.grad  # 3 - 0.5 * 3
        tensor(1.5000)
    """
    check_not_negative("strength", strength)
    reversed_: Tensor = _Scaling.apply(tensor, -strength)
    return reversed_


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """Return ``tensor`` unchanged; its gradient is multiplied by ``factor`` on the way back.

    What lies behind learns so much slower than the rest, whatever the optimiser's normalisation leaves of it.

    Args:
        tensor: Any tensor, floating point.
        factor: At least 0, dimensionless.

    Returns:
        The same values, same shape.

    Raises:
        ValueError: If ``factor`` is not a finite number of at least 0.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (x * scale_gradient(x, 0.1)).backward()
        >>> x.grad  # 3 + 0.1 * 3
        tensor(3.3000)
    """
    check_not_negative("factor", factor)
    scaled: Tensor = _Scaling.apply(tensor, factor)
    return scaled


class _Scaling(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradient, None
