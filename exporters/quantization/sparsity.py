"""2:4 sparsity: at most two of four consecutive weights differ from zero, which sparse tensor cores skip."""

from collections.abc import Mapping
from typing import Any

import numpy as np

GROUP = 4
KEPT = 2


def is_two_four(weight: np.ndarray, *, axis: int = 1) -> bool:
    """Whether at most two weights of every four consecutive ones along the input dimension differ from zero.

    Args:
        weight: Weights of one layer, of any dtype: floats, or integers whose zero point is 0.
        axis: The layer's input dimension: 1 for ``(output, input, ...)`` as PyTorch and ONNX convolutions keep it, 0
            for the right operand of a matrix product.

    Returns:
        The answer; False where the input dimension is no multiple of four, as such weights cannot be stored in 2:4.

    Raises:
        ValueError: If ``weight`` has no such axis.

    Source:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.

    Example:
        >>> import numpy as np
        >>> is_two_four(np.array([[0, -0.9, 0.4, 0], [0, 0.25, 0, -0.6]])), is_two_four(np.ones((1, 4)))
        (True, False)
    """
    if not -weight.ndim <= axis < weight.ndim:
        raise ValueError(f"`axis` must be one of the {weight.ndim} axes of the weight, got {axis}.")
    along = np.moveaxis(weight, axis, -1)
    if along.shape[-1] % GROUP:
        return False
    return bool((np.count_nonzero(along.reshape(-1, GROUP), axis=1) <= KEPT).all())


def sparse_layers(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Which layers could be computed sparsely: what TensorRT's ``SPARSE_WEIGHTS`` looks for.

    Args:
        weights: Weights ``(output, input, ...)`` by layer.

    Returns:
        ``two_four_layers``, names of the layers in 2:4, and ``zero_share``, the share of all weights that are zero, for
        an artifact's details; empty if no layer is in 2:4.

    Example:
        >>> import numpy as np
        >>> sparse_layers({"a": np.array([[0.0, 1.0, 0.0, 2.0]]), "b": np.ones((1, 4))})
        {'two_four_layers': ['a'], 'zero_share': 0.25}
    """
    layers = [name for name, weight in weights.items() if weight.ndim > 1 and is_two_four(weight)]
    if not layers:
        return {}
    zeros = sum(weight.size - np.count_nonzero(weight) for weight in weights.values())
    return {"two_four_layers": layers, "zero_share": float(zeros / sum(weight.size for weight in weights.values()))}
