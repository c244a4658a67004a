"""Finds where a block's output is before its last activation."""

import inspect

from torch import nn
from torch.fx import Graph, Node, Tracer
from torch.fx.proxy import TraceError
from typing_extensions import override

from lightning_kd.errors import TapError
from lightning_kd.taps import Tap, resolve_module

_NOT_POINTWISE = ("MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "GLU")
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)
_FUNCTIONAL = ("relu", "relu_", "relu6", "gelu", "silu", "hardswish", "leaky_relu", "leaky_relu_", "elu", "mish")


def pre_activation_tap(model: nn.Module, path: str) -> Tap:
    """Tap the output of a block or stage before its last activation.

    The block's own code is traced to see what its output comes from. If that is an activation, its input is tapped: the
    sum with the shortcut in residual blocks, whose activation may be shared between several calls (torchvision). If it
    is not, as in MobileNet's and EfficientNet's linear bottlenecks and in transformer blocks, the block's output has no
    activation to go before and is tapped itself.

    Args:
        model: The network.
        path: Dotted path of a block, or of a stage, whose last block is taken.

    Returns:
        The tap.

    Raises:
        TapError: If ``path`` names no module, its code cannot be traced, or its last activation is a function and no
            module, which cannot be tapped.

    Example:
        >>> import timm, torchvision
        >>> tap = pre_activation_tap(timm.create_model("resnet50"), "layer3")
        >>> tap.path, tap.at
        ('layer3.5.act3', 'input')
        >>> tap = pre_activation_tap(torchvision.models.resnet18(), "layer3")
        >>> tap.path, tap.at, tap.call  # conv1's activation is call 0 of the same module
        ('layer3.1.relu', 'input', 1)
        >>> pre_activation_tap(timm.create_model("mobilenetv2_100"), "blocks.3") == Tap("blocks.3")
        True
    """
    found = _last_activation(resolve_module(model, path), path)
    return Tap(path) if found is None else found


def _last_activation(module: nn.Module, path: str) -> Tap | None:
    """Tap on the input of the activation that ``module``'s output comes from, if it comes from one."""
    last = _source(module, path)
    if last.op == "call_module":
        child = module.get_submodule(str(last.target))
        child_path = f"{path}.{last.target}" if path else str(last.target)
        if _is_activation(child):
            calls = [node for node in last.graph.nodes if node.op == "call_module" and node.target == last.target]
            return Tap(child_path, at="input", call=calls.index(last) if len(calls) > 1 else None)
        return _last_activation(child, child_path) if next(child.children(), None) is not None else None
    name = last.target if last.op == "call_method" else getattr(last.target, "__name__", None)
    if last.op in ("call_function", "call_method") and name in _FUNCTIONAL:
        raise TapError(
            f"the last activation of {path!r} ({type(module).__name__}) is the function {name} and no module, so that "
            "nothing can be tapped before it: use a module such as nn.ReLU, or tap the block's output."
        )
    return None


def _is_activation(module: nn.Module) -> bool:
    """Whether this is an activation: those of torch and timm live in files named for them."""
    return "activation" in type(module).__module__ and type(module).__name__ not in _NOT_POINTWISE


class _OwnCode(Tracer):
    """Traces a module's own forward; what its children do stays inside one node each."""

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _trace(module: nn.Module, path: str) -> Graph:
    # Options keep their defaults: a traced stand-in for None would be taken for a given value.
    parameters = inspect.signature(module.forward).parameters.values()
    options = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        return _OwnCode().trace(module, concrete_args=options)
    except (TraceError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        raise _untraceable(module, path, str(error)) from error


def _source(module: nn.Module, path: str) -> Node:
    """Node that computes the (first) output, past modules that hand their input on in evaluation mode."""
    output = next(node for node in reversed(_trace(module, path).nodes) if node.op == "output")
    if not output.all_input_nodes:
        raise _untraceable(module, path, "its output does not show what it comes from")
    node: Node = output.all_input_nodes[0]
    while node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), _TRANSPARENT):
        node = node.all_input_nodes[0]
    return node


def _untraceable(module: nn.Module, path: str, reason: str) -> TapError:
    return TapError(
        f"the code of {path!r} ({type(module).__name__}) cannot be traced for its last activation: {reason}. Name a "
        "block inside, or tap the activation's input yourself, Tap(path, at='input')."
    )
