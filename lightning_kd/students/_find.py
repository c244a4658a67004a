"""Where in a network its part of a certain class is."""

from typing import TypeVar

from torch import nn

from lightning_kd.errors import SetupError

Part = TypeVar("Part", bound=nn.Module)


def find_part(model: nn.Module, kind: type[Part], name: str) -> tuple[str, Part]:
    """Find the only module of class ``kind`` in a network, be it the network itself.

    Args:
        model: Where to look; wrappers of ``torch.compile`` are looked through.
        kind: Class of the part.
        name: What ``model`` is called in the message.

    Returns:
        What precedes the paths of its submodules, ``""`` or ``"path."``, and the part.

    Raises:
        SetupError: If there is none, or more than one.

    Example:
        >>> find_part(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), nn.Linear, "student")
        ('1.', Linear(in_features=2, out_features=2, bias=True))
    """
    found = [(path, module) for path, module in model.named_modules() if isinstance(module, kind)]
    if len(found) != 1:
        raise SetupError(
            f"the {name} ({type(model).__name__}) must hold exactly one {kind.__name__}, found {len(found)}: "
            f"wrap the network in lightning_kd.students.{kind.__name__}, or name the places."
        )
    path, part = found[0]
    names = [part_name for part_name in path.split(".") if part_name not in ("", "_orig_mod")]
    return "".join(f"{part_name}." for part_name in names), part
