"""Networks by name, for command lines and YAML: from timm, from torchvision, or from any function."""

import ast
import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn

from lightning_kd._checks import nearest
from lightning_kd.checkpoints import load_weights
from lightning_kd.errors import SetupError

FORMS = "'timm:NAME', 'torchvision:NAME' or 'package.module:function'"
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def load_model(
    spec: str, *, pretrained: bool = False, checkpoint: Path | str | None = None, prefix: str | None = None
) -> nn.Module:
    """Make a network from its name, and fill it with weights.

    Keyword arguments of the network follow its name, separated by commas: ``"timm:resnet18,num_classes=10"``. Numbers,
    tuples without commas, true, false and none are read as such, everything else as text.

    In the YAML of ``lightning-kd fit`` this function makes a teacher::

        teacher:
          class_path: lightning_kd.models.load_model
          init_args:
            spec: timm:resnet18,num_classes=10
            checkpoint: teacher.ckpt

    Args:
        spec: ``"timm:NAME"``, ``"torchvision:NAME"``, or ``"package.module:function"`` for a function or class that
            returns a module.
        pretrained: Whether to download the weights that timm or torchvision publish for this name.
        checkpoint: File with the weights, see `load_weights`; ``None`` keeps those the network starts with.
        prefix: What precedes the network's names in the checkpoint, see `load_weights`.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        SetupError: If ``spec`` names no network, its arguments do not fit, or the checkpoint does not fit it.

    Example:
        >>> load_model("timm:resnet18,num_classes=10,in_chans=1").fc
        Linear(in_features=512, out_features=10, bias=True)
        >>> load_model("timm:resnet18,10")
        Traceback (most recent call last):
        lightning_kd.errors.SetupError: a network's arguments must be written key=value, got '10' in 'timm:resnet18,10'.
    """
    source, name, options = parse_spec(spec)
    make = _SOURCES.get(source, _from_function)
    try:
        model = make(source, name, options, pretrained)
    except TypeError as error:
        raise SetupError(f"the arguments in {spec!r} do not fit the network: {error}.") from error
    if not isinstance(model, nn.Module):
        raise SetupError(f"`model` must return a torch.nn.Module, got {type(model).__name__} from {spec!r}.")
    if checkpoint is not None:
        load_weights(model, checkpoint, prefix=prefix)
    elif prefix is not None:
        raise SetupError(f"`prefix` is what precedes names in a checkpoint, got {prefix!r} without `checkpoint`.")
    return model


def parse_spec(spec: str) -> tuple[str, str, dict[str, Any]]:
    """Split the name of a network into source, name and keyword arguments.

    Args:
        spec: As for `load_model`.

    Returns:
        What stands before the colon, what stands behind it, and the arguments.

    Raises:
        SetupError: If ``spec`` is not of this form.

    Example:
        >>> parse_spec("timm:vit_tiny_patch16_224,img_size=64,class_token=false,global_pool=avg")
        ('timm', 'vit_tiny_patch16_224', {'img_size': 64, 'class_token': False, 'global_pool': 'avg'})
    """
    head, *pairs = spec.split(",")
    source, colon, name = head.partition(":")
    if not (source and colon and name):
        hint = f"; did you mean 'timm:{spec}'?" if timm.is_model(head) else "."
        raise SetupError(f"`model` must be {FORMS}, got {spec!r}{hint}")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key.isidentifier()):
            raise SetupError(f"a network's arguments must be written key=value, got {pair!r} in {spec!r}.")
        options[key] = _literal(value)
    return source, name, options


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _from_timm(_: str, name: str, options: Mapping[str, Any], pretrained: bool) -> object:
    if not timm.is_model(name):
        raise _unknown(name, "a network of timm", timm.list_models())
    return timm.create_model(name, pretrained=pretrained, **options)


def _from_torchvision(_: str, name: str, options: Mapping[str, Any], pretrained: bool) -> object:
    names = torchvision.models.list_models()
    if name not in names:
        raise _unknown(name, "a network of torchvision", names)
    return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **options)


def make_object(spec: str) -> object:
    """Call any function by its name, a data set's for example.

    Args:
        spec: ``"package.module:function"``, with keyword arguments as for `load_model`.

    Returns:
        What it returns.

    Raises:
        SetupError: If there is no such function, or its arguments do not fit.
    """
    source, name, options = parse_spec(spec)
    try:
        return _call(source, name, options)
    except TypeError as error:
        raise SetupError(f"the arguments in {spec!r} do not fit the function: {error}.") from error


def _from_function(source: str, name: str, options: Mapping[str, Any], pretrained: bool) -> object:
    if pretrained:
        raise SetupError(
            f"`pretrained` applies to timm and torchvision only, got {source}:{name}; use `checkpoint`, or an argument "
            f"of the function: {source}:{name},key=value."
        )
    return _call(source, name, options)


def _call(source: str, name: str, options: Mapping[str, Any]) -> object:
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise SetupError(f"`model` must be {FORMS}, got {source}:{name}, and {error}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        candidates = [key for key, value in vars(module).items() if callable(value)]
        raise _unknown(name, f"a function of {source}", candidates)
    return function(**options)


_SOURCES: Mapping[str, Callable[[str, str, Mapping[str, Any], bool], object]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}


def _unknown(name: str, what: str, candidates: Iterable[str]) -> SetupError:
    similar = ", ".join(map(repr, nearest(name, candidates, count=3)))
    return SetupError(f"`model` must name {what}, got {name!r}; the nearest names are {similar}.")
