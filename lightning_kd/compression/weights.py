"""Weights of the layers that compression works on: linear layers and convolutions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from lightning_kd._checks import nearest
from lightning_kd.errors import SetupError
from lightning_kd.taps import module_paths

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class LayerWeight:
    """The weight of one layer.

    Attributes:
        name: Name of the parameter in the network.
        holder: The module that the parameter belongs to.
        attribute: Its name there.
        caller: The module whose call reads it: the holder, or the attention module around it.
    """

    name: str
    holder: nn.Module
    attribute: str
    caller: nn.Module

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter, shape ``(output, input, ...)``."""
        return self.holder.get_parameter(self.attribute)


def layer_weights(network: nn.Module, *, skip: Sequence[str] = ()) -> dict[str, LayerWeight]:
    """Find the weights of a network's linear layers, convolutions and `torch.nn.MultiheadAttention`.

    Args:
        network: The network.
        skip: Paths of modules to leave out, with everything below them; ``*`` stands for any characters.

    Returns:
        The weights by the parameter's name, in the order of the network; one that layers share is listed once.

    Raises:
        SetupError: If a pattern of ``skip`` names no module, or no weight is left.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 2))
        >>> list(layer_weights(network)), list(layer_weights(network, skip=["2"]))
        (['0.weight', '2.weight'], ['0.weight'])
    """
    paths = module_paths(network)
    for pattern in skip:
        if not any(fnmatchcase(path, pattern) for path in paths):
            known = ", ".join(map(repr, nearest(pattern, paths)))
            raise SetupError(
                f"`skip` must name modules of {type(network).__name__}, got {pattern!r}; nearest: {known}."
            )
    found: dict[str, LayerWeight] = {}
    seen: set[int] = set()
    for weight in _weights(paths):
        path = weight.name.rpartition(".")[0]
        if not left_out(path, skip) and id(weight.parameter) not in seen:
            seen.add(id(weight.parameter))
            found[weight.name] = weight
    if not found:
        raise SetupError(
            f"the student ({type(network).__name__}) has no linear layer or convolution that is not left out by skip="
            f"{list(skip)}. A student that another callback traces must be found first: list that callback later."
        )
    return found


def check_not_compiled(network: nn.Module) -> None:
    """Raise `SetupError` if part of ``network`` is compiled, where changes inside of layers may not be noticed."""
    for path, module in network.named_modules():
        if "_orig_mod" in path.split(".") or getattr(module, "_compiled_call_impl", None) is not None:
            raise SetupError(
                f"the student is compiled (at {path!r}), where changes inside of its layers may go unnoticed: compile "
                "it after training."
            )


def _weights(paths: dict[str, nn.Module]) -> Iterator[LayerWeight]:
    for path, found in paths.items():
        module = dict(found.named_children()).get("_orig_mod", found)
        prefix = f"{path}.".lstrip(".")
        parent = paths.get(path.rpartition(".")[0])
        if isinstance(module, nn.MultiheadAttention):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim > 1 and name.endswith("proj_weight"):
                    yield LayerWeight(prefix + name, module, name, module)
        elif isinstance(module, _LAYERS):
            caller = parent if isinstance(parent, nn.MultiheadAttention) else module
            yield LayerWeight(f"{prefix}weight", module, "weight", caller)


def left_out(path: str, skip: Sequence[str]) -> bool:
    """Whether a pattern of ``skip`` names the module at ``path`` or one around it; ``*`` stands for any characters."""
    names = path.split(".")
    around = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
    return any(fnmatchcase(candidate, pattern) for candidate in around for pattern in skip)
