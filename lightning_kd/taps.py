"""Where a tensor is read in a model, and what one forward call of the model showed."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_choice, nearest
from lightning_kd.errors import TapError
from lightning_kd.frames import mask_at_rate
from lightning_kd.layout import AXES, Axes, Layout, LayoutHints, detect_layout


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of one forward call.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        ready: Moment on the GPU's stream at which they were ready, where a teacher asked for it.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    ready: torch.cuda.Event | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Read ``value`` as arguments: a tuple positionally, a mapping by keyword, anything else as the only one."""
        if isinstance(value, cls):
            return value
        if isinstance(value, tuple):
            return cls(value)
        return cls(kwargs=dict(value)) if isinstance(value, Mapping) else cls((value,))

    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments, in order."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)]

    def argument(self, place: int | str, model: nn.Module | None = None) -> Any:
        """One argument, or ``None`` if it was not given.

        Args:
            place: Its position or its name.
            model: What was called; it knows the names of positional arguments.
        """
        if isinstance(place, str):
            if place in self.kwargs or model is None:
                return self.kwargs.get(place)
            names = list(inspect.signature(model.forward).parameters)
            place = names.index(place) if place in names else len(self.args)
        return self.args[place] if -len(self.args) <= place < len(self.args) else None

    def steps(self) -> int | None:
        """Time steps of the padded input: of the first tensor ``(N, steps)`` or ``(N, steps, D)``; ``None`` without."""
        sequences = [tensor for tensor in self.tensors() if tensor.ndim in (2, 3) and tensor.is_floating_point()]
        return sequences[0].shape[1] if sequences else None

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Inputs":
        """The same arguments on ``device``, floating-point tensors among them in ``dtype`` if one is given."""

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        return Inputs(tuple(move(v) for v in self.args), {key: move(v) for key, v in self.kwargs.items()})


# Not slotted: jsonargparse reads a default that is a dataclass by vars().
@dataclass(frozen=True)
class Tap:
    """A place in a model where a tensor is read.

    Attributes:
        path: Dotted path of a module inside the model, ``""`` for the model itself. The wrapper that
            ``torch.compile`` puts around a module is not spelled.
        at: ``"output"`` of the module, or its ``"input"``.
        axes: Layout of the tensor, see `lightning_kd.layout`; ``None`` detects it.
        prefix_tokens: Class, distillation and register tokens before the patches; ``None`` asks the model.
        grid: Height and width of the patch grid of a non-square image; ``None`` works it out.
        select: Which tensor of a tuple (index) or mapping (key); ``None`` takes the only or first one.
        call: Which of several calls when the module runs more than once in a forward pass.
        lengths: Where the call says how long its samples are, see `Observation.frame_mask`: position or name of an
            argument, or a function of the arguments; ``None`` takes the argument ``attention_mask`` if there is one.

    Raises:
        ValueError: If ``at`` or ``axes`` is unknown, or ``prefix_tokens`` is negative.

    Example:
        >>> Tap("blocks.11", prefix_tokens=1)
        Tap(path='blocks.11', at='output', axes=None, prefix_tokens=1, grid=None, select=None, call=None, lengths=None)
    """

    path: str
    at: Literal["output", "input"] = "output"
    axes: Axes | None = None
    prefix_tokens: int | None = None
    grid: tuple[int, int] | None = None
    select: int | str | None = None
    call: int | None = None
    lengths: int | str | Callable[[Inputs], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.path, str):
            raise TypeError(f"`path` must be the dotted path of a module, got {self.path!r}.")
        check_choice("at", self.at, ("output", "input"))
        if self.axes is not None:
            check_choice("axes", self.axes, AXES)
        if self.lengths is not None and not (isinstance(self.lengths, int | str) or callable(self.lengths)):
            raise TypeError(
                f"`lengths` must be the position or name of an argument or a function, got {self.lengths!r}."
            )
        if self.prefix_tokens is not None and self.prefix_tokens < 0:
            raise ValueError(f"`prefix_tokens` must not be negative, got {self.prefix_tokens}.")

    @classmethod
    def of(cls, place: "Tap | str") -> "Tap":
        """Return ``place`` itself, or a tap on the output of the module with that path."""
        return place if isinstance(place, Tap) else cls(place)

    def layout(self, shape: Sequence[int], hints: LayoutHints) -> Layout:
        """Layout of the tapped tensor: as far as declared here, else detected.

        Args:
            shape: Shape of the tapped tensor.
            hints: What the model and its input say.

        Returns:
            The layout.

        Raises:
            LayoutError: If the layout can be told neither from the tap nor from the shape.
        """
        if self.axes not in (None, "NLD"):
            return Layout(self.axes)
        if self.prefix_tokens is None and self.grid is None and self.axes is None:
            return detect_layout(tuple(shape), hints)
        prefix = hints.prefix_tokens if self.prefix_tokens is None else self.prefix_tokens
        if self.grid is not None or hints.image_size is None:
            return Layout("NLD", prefix_tokens=prefix, grid=self.grid)
        tokens_only = LayoutHints(image_size=hints.image_size)
        grid = detect_layout((shape[0], shape[1] - prefix, shape[2]), tokens_only).grid
        return Layout("NLD", prefix_tokens=prefix, grid=grid)


@dataclass(slots=True)
class Observation:
    """What one forward call of a model showed.

    Attributes:
        inputs: Its arguments.
        output: What it returned.
        features: Tensor read at each tap.
        model: What was called; ``None`` if that is not known.
    """

    inputs: Inputs
    output: Any = None
    features: dict[Tap, Tensor] = field(default_factory=dict)
    model: nn.Module | None = None

    def frame_mask(self, frames: int, tap: Tap | None = None) -> Tensor | None:
        """Which frames of a feature, or of the output, are valid and not padding.

        It follows from the call's ``attention_mask``, through the model's own count of frames, see `mask_at_rate`; or
        from what ``tap.lengths`` names: lengths along the second axis of the input, shape ``(N,)``, or a mask of them
        or of the frames.

        Args:
            frames: Frames of the feature.
            tap: Where it was read; ``None`` for the output.

        Returns:
            Shape ``(N, frames)``, boolean; ``None`` if the call says nothing of lengths, and all frames count.

        Raises:
            TapError: If ``tap.lengths`` names no tensor of the call, or the rates do not fit together.
            ShapeError: If the lengths are of another shape.

        Example:
            >>> mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
            >>> call = Observation(Inputs((torch.zeros(2, 6),), {"attention_mask": mask}))
            >>> call.frame_mask(3)
            tensor([[ True,  True,  True],
                    [ True,  True, False]])
        """
        declared = None if tap is None else tap.lengths
        if callable(declared):
            given = declared(self.inputs)
        else:
            given = self.inputs.argument("attention_mask" if declared is None else declared, self.model)
        if given is None and declared is None:
            return None
        if not isinstance(given, Tensor):
            raise TapError(f"`lengths={declared!r}` must name lengths or a mask in the call, got {given!r}.")
        return mask_at_rate(given, frames, steps=self.inputs.steps(), model=self.model)


def pick_tensor(value: Any, select: int | str | None, where: str) -> Tensor:
    """Choose one tensor out of what a module returned.

    Args:
        value: A tensor, a sequence or a mapping (transformers' ``ModelOutput`` is one).
        select: Index or key; ``None`` takes the tensor itself, the first of a sequence, or ``"logits"`` of a mapping.
        where: What is being read, for the message.

    Returns:
        The tensor.

    Raises:
        TapError: If there is no such tensor; the message lists what there is.

    Example:
        >>> import torch
        >>> pick_tensor({"logits": torch.ones(1), "loss": None}, None, "the output")
        tensor([1.])
    """
    if isinstance(value, Tensor) and select is None:
        return value
    if isinstance(value, Mapping):
        key = "logits" if select is None else select
        if isinstance(value.get(key), Tensor):
            chosen: Tensor = value[key]
            return chosen
        raise TapError(f"{where} is a mapping without a tensor {key!r}: choose a key with select=, of {list(value)}.")
    if isinstance(value, Sequence) and not isinstance(value, str) and not isinstance(select, str):
        index = 0 if select is None else select
        if -len(value) <= index < len(value) and isinstance(value[index], Tensor):
            picked: Tensor = value[index]
            return picked
    raise TapError(f"{where} holds no tensor at select={select!r}: it is {_describe(value)}.")


def _describe(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {[type(item).__name__ for item in value]}"
    return f"of type {type(value).__name__}"


def module_paths(model: nn.Module) -> dict[str, nn.Module]:
    """Every module under ``model`` by dotted path; a compiled module stands for what it wraps.

    Args:
        model: Any module.

    Returns:
        Path to module, ``""`` for the model itself, in registration order.
    """
    paths: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        paths.setdefault(".".join(name for name in path.split(".") if name != "_orig_mod"), module)
    return paths


def resolve_module(model: nn.Module, path: str, name: str = "model") -> nn.Module:
    """Find the module at ``path``.

    Args:
        model: Where to look.
        path: Dotted path, ``""`` for ``model`` itself.
        name: What ``model`` is called in the message.

    Returns:
        The module.

    Raises:
        TapError: If there is none; the message lists the nearest paths.

    Example:
        >>> import torch
        >>> resolve_module(torch.nn.Sequential(torch.nn.ReLU()), "O", "student")
        Traceback (most recent call last):
        lightning_kd.errors.TapError: `O` names no module of the student (Sequential); nearest: '0'.
    """
    paths = module_paths(model)
    if path in paths:
        return paths[path]
    known = [candidate for candidate in paths if candidate]
    found = ", ".join(repr(candidate) for candidate in nearest(path, known)) or "it has no submodules"
    raise TapError(f"`{path}` names no module of the {name} ({type(model).__name__}); nearest: {found}.")


class NoNetwork(nn.Module):
    """Stands for the network of a teacher that has none: it declares nothing about its features."""


def layout_hints(model: nn.Module, path: str, inputs: Inputs) -> LayoutHints:
    """Collect what a model says about the features below it.

    timm's models declare ``num_prefix_tokens`` and ``output_fmt``; the innermost module on the way to ``path`` that
    declares one is believed.

    Args:
        model: The model.
        path: Path of the tapped module.
        inputs: Arguments of a forward call; the first four-dimensional tensor is the image, channels first.

    Returns:
        The hints.
    """
    names = path.split(".") if path and not isinstance(model, NoNetwork) else []
    owners = [resolve_module(model, ".".join(names[:depth])) for depth in range(len(names) + 1)]
    images = [tensor for tensor in inputs.tensors() if tensor.ndim == 4]
    declared: list[object] = [getattr(owner, "num_prefix_tokens", None) for owner in owners]
    prefixes = [count for count in declared if isinstance(count, int)]
    formats = [str(owner.output_fmt) for owner in owners if getattr(owner, "output_fmt", None) is not None]
    return LayoutHints(
        prefix_tokens=prefixes[-1] if prefixes else 0,
        channels_last=any(text.endswith("NHWC") for text in formats[-1:]),
        image_size=(images[0].shape[2], images[0].shape[3]) if images else None,
    )
