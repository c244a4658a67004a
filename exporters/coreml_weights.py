"""Whether the constants of a Core ML program are the weights of the network that it was made from."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporters.errors import ParityError
from exporters.parity import Precision

_BATCH_NORM = "_native_batch_norm_legit_no_training"
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
# Operators whose weights reach the package as they are, but for the folding of a batch norm into its convolution.
# Elsewhere the converter may merge a weight into another, so that a weight that is not found proves nothing.
_KEPT_BY = (*_CONVOLUTIONS, "linear", "embedding", "layer_norm")
# Rounding to float16 is relative, 2^-11, and 2^-25 absolute below its normal range; twice that is allowed.
_TOLERANCES: Mapping[Precision, tuple[float, float]] = {"fp32": (1e-5, 1e-7), "fp16": (2**-10, 2**-24)}


@dataclass(frozen=True, slots=True)
class _Weight:
    name: str
    value: Tensor
    required: bool
    scaled: bool = False  # what follows may multiply it by one factor per output channel


def check_weights(
    program: ExportedProgram, constants: Sequence[np.ndarray], *, precision: Precision
) -> tuple[int, int]:
    r"""Look for every weight of a network among the constants of its Core ML program.

    A batch norm behind a convolution is expected to be folded into it,

    .. math::
        W' = W \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        b' = (b - \mu) \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} + \beta,

    and the kernel of a convolution that a multiplication follows may differ by one factor per output channel.

    Args:
        program: The captured network.
        constants: Floating-point constants of the package.
        precision: Type to which they were rounded.

    Returns:
        The number of weights found, and of all weights.

    Raises:
        ParityError: If a weight of a convolution, linear layer, embedding or layer norm is not found.
    """
    by_size: dict[int, list[np.ndarray]] = {}
    for constant in constants:
        by_size.setdefault(constant.size, []).append(constant)
    weights = list(_expected(program))
    missing = [weight for weight in weights if not _is_among(weight, by_size, _TOLERANCES[precision])]
    if lost := [weight.name for weight in missing if weight.required]:
        raise ParityError(
            f"the package must hold the network's weights, but {len(lost)} of {len(weights)} are not in it: "
            f"{', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}."
        )
    return len(weights) - len(missing), len(weights)


def _expected(program: ExportedProgram) -> Iterator[_Weight]:
    values = _values(program)
    signature = program.graph_signature
    paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {node: paths[node.name].removeprefix("module.") for node in values}
    folded: set[fx.Node] = set()
    for node in program.graph.nodes:
        if _kind(node) == _BATCH_NORM and _is_foldable(node, values):
            convolution: Any = node.args[0]
            weight, bias = _fold(node, values)
            scaled = _is_scaled(node)
            yield _Weight(names[convolution.args[1]], weight, required=True, scaled=scaled)
            yield _Weight(f"{names[convolution.args[1]]} (bias)", bias, required=not scaled)
            folded |= {argument for argument in (*convolution.args, *node.args) if isinstance(argument, fx.Node)}
    for node, value in values.items():
        if node not in folded:
            users = list(node.users)
            scaled = any(_kind(user) in _CONVOLUTIONS and _is_scaled(user) for user in users)
            required = all(_kind(user) in _KEPT_BY for user in users) and not (scaled and value.ndim == 1)
            yield _Weight(names[node], value, required=required, scaled=scaled and value.ndim > 1)


def _values(program: ExportedProgram) -> dict[fx.Node, Tensor]:
    signature = program.graph_signature
    paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    used = {node: program.state_dict.get(paths.get(node.name, "")) for node in program.graph.nodes if node.users}
    return {node: value.double() for node, value in used.items() if value is not None and value.is_floating_point()}


def _is_foldable(batch_norm: Any, values: Mapping[fx.Node, Tensor]) -> bool:
    convolution = batch_norm.args[0]
    return (
        _kind(convolution) in _CONVOLUTIONS
        and len(convolution.users) == 1
        and convolution.args[1] in values
        and not (_kind(convolution) == "convolution" and convolution.args[6])
    )


def _is_scaled(node: fx.Node) -> bool:
    """Whether a multiplication follows, which the converter folds into a convolution if its factor is constant."""
    users = [user for user in node.users if user.target is not operator.getitem]
    users += [user for item in node.users if item.target is operator.getitem for user in item.users]
    return len(users) == 1 and _kind(users[0]) in ("mul", "div")


def _fold(batch_norm: Any, values: Mapping[fx.Node, Tensor]) -> tuple[Tensor, Tensor]:
    convolution = batch_norm.args[0]
    weight = values[convolution.args[1]]
    bias = values[convolution.args[2]] if len(convolution.args) > 2 and convolution.args[2] is not None else 0.0
    _, gamma, beta, mean, variance, _, epsilon = batch_norm.args
    scale = (values[variance] + epsilon).rsqrt()
    if gamma is not None:
        scale = scale * values[gamma]
    shift = (bias - values[mean]) * scale
    if beta is not None:
        shift = shift + values[beta]
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), shift


def _kind(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]


def _is_among(weight: _Weight, by_size: Mapping[int, Sequence[np.ndarray]], tolerance: tuple[float, float]) -> bool:
    value = weight.value.numpy()
    if not value.any():  # a bias of zeros is left out of the package
        return True
    rows = len(value) if value.ndim else 1
    forms = [value.reshape(rows, -1)] + ([value.T] if value.ndim == 2 else [])
    return any(
        _is_equal(constant.astype(np.float64).reshape(form.shape), form, tolerance, scaled=weight.scaled)
        for constant in by_size.get(value.size, ())
        for form in forms
    )


def _is_equal(constant: np.ndarray, form: np.ndarray, tolerance: tuple[float, float], *, scaled: bool) -> bool:
    relative, absolute = tolerance
    if scaled:
        squares = np.maximum((form * form).sum(1, keepdims=True), np.finfo(np.float64).tiny)
        form = form * (constant * form).sum(1, keepdims=True) / squares
        absolute = max(absolute, relative * np.abs(form).max())
    return bool(np.allclose(constant, form, rtol=relative, atol=absolute))
