"""Children that train with a module but stay out of its checkpoints."""

from collections.abc import Callable
from typing import Any, Self

from torch import nn

from lightning_kd.errors import SetupError


class Outside:
    """Holds a module that is no child of the holder's owner, and that is not copied with it: a part of the teacher.

    Attributes:
        module: The module.

    Example:
        >>> import copy
        >>> teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> student.outside = Outside(teacher)
        >>> copy.deepcopy(student).outside.module is teacher, len(list(student.parameters()))
        (True, 2)
    """

    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself."""
        return self


def add_hidden_child(module: nn.Module, name: str, child: nn.Module) -> Callable[[], None]:
    """Make ``child`` a child of ``module`` that DDP and optimisers see and state dicts do not.

    The state dict of ``module`` is that of the bare module, and a bare state dict loads strictly.

    Args:
        module: The parent.
        name: Attribute name of the child.
        child: What trains along.

    Returns:
        A function that removes the child again.

    Raises:
        SetupError: If ``module`` has an attribute of that name.

    Example:
        >>> parent = nn.Linear(2, 2)
        >>> remove = add_hidden_child(parent, "_helper", nn.Linear(2, 2))
        >>> len(list(parent.parameters())), sorted(parent.state_dict())
        (4, ['bias', 'weight'])
        >>> remove()
    """
    if hasattr(module, name):
        raise SetupError(
            f"`{name}` is already an attribute of {type(module).__name__}: give each distillation its own name."
        )

    def is_hidden(key: str) -> bool:
        return name in key.split(".")

    def drop(_: nn.Module, state: dict[str, Any], __: str, ___: dict[str, Any]) -> None:
        metadata = getattr(state, "_metadata", {})
        for mapping in (state, metadata):
            for key in [key for key in mapping if is_hidden(key)]:
                del mapping[key]

    def forgive(_: nn.Module, incompatible: Any) -> None:
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not is_hidden(key)]

    module.add_module(name, child)
    hooks = (module.register_state_dict_post_hook(drop), module.register_load_state_dict_post_hook(forgive))  # type: ignore[no-untyped-call]

    def remove() -> None:
        for hook in hooks:
            hook.remove()
        delattr(module, name)

    return remove
