"""What is read from the table of families for one network."""

from typing import cast

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.families.stages import STAGES
from lightning_kd.families.table import FAMILIES, Family
from lightning_kd.taps import Tap, module_paths


def family_of(model: nn.Module) -> Family | None:
    """Family of a timm, torchvision or transformers network.

    Args:
        model: The network, as its package made it; it may be compiled.

    Returns:
        The row of the table, or ``None`` for a network that is in none.

    Example:
        >>> import timm
        >>> family_of(timm.create_model("wide_resnet50_2")).name, family_of(nn.Linear(2, 2))
        ('resnet', None)
    """
    ancestors = [f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in type(_bare(model)).__mro__]
    by_class = {name: family for family in FAMILIES for name in family.classes}
    return next((by_class[name] for name in ancestors if name in by_class), None)


def stages_of(model: nn.Module, name: str = "model") -> tuple[str, ...]:
    """Find the modules whose outputs are those of a network's four stages, from shallow to deep.

    Of networks with resolution stages, the outputs at the strides 4, 8, 16 and 32, before the next stage's
    downsampling; a network made for a smaller total stride repeats one. Of plain transformers and MLPs, the blocks 1,
    3, 9 and 11 (from 0) of twelve, as OFA-KD taps them, and those at the same relative depth of others (ours).

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        Four module paths.

    Raises:
        SetupError: If the network's family is not known, or the network has fewer than four stages.

    Example:
        >>> import timm
        >>> stages_of(timm.create_model("resnet18"))
        ('layer1', 'layer2', 'layer3', 'layer4')
        >>> stages_of(timm.create_model("test_vit", img_size=64))  # of six blocks
        ('blocks.0', 'blocks.1', 'blocks.4', 'blocks.5')
    """
    stages = _known_family(model, name).stages(_bare(model))
    missing = [path for path in stages if path not in module_paths(model)]
    if len(stages) != STAGES or missing:
        raise SetupError(
            f"four stages are looked for in the {name} ({type(model).__name__}), found {list(stages)}"
            f"{f' without modules at {missing}' if missing else ''}: {_advice(name)}"
        )
    return stages


def tail_paths(model: nn.Module, name: str = "model") -> tuple[str, ...]:
    """Find the modules that make the last map of a network from the output of an earlier one.

    Of networks with resolution stages these are the modules of the last stage; of plain transformers and MLPs the last
    two blocks. A final norm in front of the pooling comes last.

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        Path of the module whose output enters, then those of the modules that run on it, one after the other.

    Raises:
        SetupError: If the network's family is not known, or what makes its last map is no chain of modules.

    Example:
        >>> import timm
        >>> tail_paths(timm.create_model("swin_tiny_patch4_window7_224"))
        ('layers.2', 'layers.3', 'norm')
    """
    family = _known_family(model, name)
    if family.tail is None:
        raise SetupError(
            f"the last stage of the {name} ({type(model).__name__}) cannot run alone, as it is no chain of modules: "
            f"choose a {name} of one of {', '.join(sorted({known.name for known in FAMILIES if known.tail}))}."
        )
    return family.tail(_bare(model))


def stage_taps(model: nn.Module, name: str = "model") -> tuple[Tap, ...]:
    """Taps on `stages_of`, with the prefix tokens of networks that do not tell theirs.

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        Four taps.

    Raises:
        SetupError: As `stages_of`.
    """
    return tuple(tap_on(model, path, name) for path in stages_of(model, name))


def last_map_tap(model: nn.Module, name: str = "model") -> Tap:
    """Tap on the last map or tokens before pooling.

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        The tap.

    Raises:
        SetupError: If the network's family is not known.
    """
    return tap_on(model, _known_family(model, name).last_map, name)


def tap_on(model: nn.Module, path: str, name: str = "model") -> Tap:
    """Tap on the module at ``path``, with the prefix tokens if the network does not tell its own.

    Args:
        model: A network of a family in `FAMILIES`.
        path: Where tokens or a map are.
        name: What the network is called in messages.

    Returns:
        The tap.

    Raises:
        SetupError: If the network's family is not known.
    """
    return Tap(path, prefix_tokens=_known_family(model, name).prefix_tokens)


def _bare(model: nn.Module) -> nn.Module:
    """What ``torch.compile`` wrapped, else ``model`` itself."""
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def _known_family(model: nn.Module, name: str) -> Family:
    family = family_of(model)
    if family is None:
        known = ", ".join(sorted({family.name for family in FAMILIES}))
        raise SetupError(
            f"the {name} ({type(model).__name__}) is of no known family ({known}), so its stages are not known: "
            f"{_advice(name)}"
        )
    return family


def _advice(name: str) -> str:
    return f"name the {name}'s taps, or let CKAKD.matched() choose them by similarity."
