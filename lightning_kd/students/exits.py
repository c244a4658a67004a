"""Early exits: classifiers on the way through a network, which learn from its end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd._modes import looking_only
from lightning_kd.adapters import Geometry, Probe, as_map
from lightning_kd.errors import SetupError, TapError
from lightning_kd.layout import Layout, pooled
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Inputs, Tap, pick_tensor, resolve_module

Kind = Literal["local", "global"]
_OUTPUTS = "_early_exit_outputs"


@dataclass(frozen=True, slots=True)
class Exit:
    """Where a network can be left early, and what stands there.

    Attributes:
        place: Path of the module whose output the exit reads, or a tap on it.
        kind: ``"local"`` for convolutions (early places, where features are of one region), ``"global"`` for attention
            over a coarser grid.
        reduction: Side of the squares of cells that a global exit averages to one before its attention.

    Raises:
        ValueError: If ``kind`` is unknown, or ``reduction`` is below 1 or set for a local exit.

    Example:
        >>> Exit("blocks.9", "global", reduction=2)
        Exit(place='blocks.9', kind='global', reduction=2)
    """

    place: str | Tap
    kind: Kind = "local"
    reduction: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("kind", self.kind, ("local", "global"))
        if self.reduction < 1 or (self.kind == "local" and self.reduction != 1):
            raise ValueError(f"`reduction` must be at least 1, and 1 for local exits, got {self.reduction}.")


def lgvit_exits(places: Sequence[str | Tap]) -> list[Exit]:
    """LGViT's arrangement: the first half of the exits is local, the second global.

    Published are eight exits, and reductions of 2 and 3 at the first and the last global one; those between take 2 in
    the first half and 3 in the second, which is ours, and so is the choice of places.

    Args:
        places: From shallow to deep, at least one.

    Returns:
        One exit per place.

    Example:
        >>> [(exit_.kind, exit_.reduction) for exit_ in lgvit_exits([f"blocks.{i}" for i in range(3, 9)])]
        [('local', 1), ('local', 1), ('local', 1), ('global', 2), ('global', 2), ('global', 3)]
    """
    local = len(places) // 2
    coarse = len(places) - (len(places) - local) // 2
    return [
        Exit(place) if index < local else Exit(place, "global", 2 if index < coarse else 3)
        for index, place in enumerate(places)
    ]


class EarlyExits(nn.Module):
    """A network with classifiers on the way.

    A call returns the logits of every exit and then the network's own, ``(z_1, ..., z_E, z_final)``, in training and in
    evaluation mode; train on all of them, validate on ``[-1]``. ``backbone`` is the network itself, unchanged and
    without exits: export it to drop them.

    Published (LGViT): local exits are convolutional and early, global exits attend over a grid reduced two to three
    times and late. Ours: the layers inside. A local exit is ``Conv1x1, GroupNorm, GELU, depthwise Conv3x3, GroupNorm,
    GELU, Conv1x1``, a global one ``Conv1x1``, an average over squares of cells and one transformer block; both end in
    an average over the grid and a linear classifier. No layer depends on the other samples, so that a batch of 1 is
    nothing special.

    Args:
        backbone: Any network that returns logits; of several outputs, the first or ``"logits"`` is taken.
        exits: From shallow to deep.
        final: Place of the features that the network's own classifier reads. Every exit's features have their width,
            so that they can be compared.
        example: An input of ``backbone``, for the shapes: a tensor, a tuple of positional or a dict of keyword
            arguments.

    Raises:
        LayoutError: If a feature's layout must be declared, see `Tap`.
        SetupError: If there is no exit, or one reads something else than an output.
        TapError: If a place names no module, or it does not run exactly once.

    Source:
        Xu et al., "LGViT: Dynamic Early Exiting for Accelerating Vision Transformer", arXiv:2308.00255.

    Example:
        >>> import timm, torch
        >>> images = torch.zeros(2, 3, 64, 64)
        >>> vit = timm.create_model("test_vit", img_size=64, num_classes=10)
        >>> exits = [Exit("blocks.2"), Exit("blocks.4", "global", reduction=2)]
        >>> student = EarlyExits(vit, exits, final="norm", example=images)
        >>> [z.shape for z in student(images)]
        [torch.Size([2, 10]), torch.Size([2, 10]), torch.Size([2, 10])]
    """

    def __init__(self, backbone: nn.Module, exits: Sequence[Exit], *, final: str | Tap, example: Any) -> None:
        super().__init__()
        if not exits:
            raise SetupError("`exits` must hold at least one Exit, got none.")
        self.backbone = backbone
        self.kinds = tuple(exit_.kind for exit_ in exits)
        self.taps = tuple(Tap.of(exit_.place) for exit_ in exits)
        self.final = Tap.of(final)
        for tap in self.taps:
            if tap.at != "output" or tap.call is not None:
                raise SetupError(f"an exit must read the output of a module that runs once, got {tap}.")
        geometries, classes = _look(backbone, (*self.taps, self.final), Inputs.of(example))
        self.final_layout = geometries[self.final].layout
        width = geometries[self.final].width
        self.exits = nn.ModuleList(
            ExitHead(exit_, geometries[tap], width, classes) for exit_, tap in zip(exits, self.taps, strict=True)
        )
        self._tapped = [resolve_module(backbone, tap.path, "backbone") for tap in self.taps]
        for module in dict.fromkeys(self._tapped):
            module.register_forward_hook(_keep_output)

    @override
    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return the logits of each exit, then the backbone's.

        Args:
            args: Of the backbone.
            kwargs: Of the backbone.

        Returns:
            As many tensors of shape ``(N, K)`` as there are exits, and one more.

        Raises:
            TapError: If an exit's module did not run, or ran twice.
        """
        for module in self._tapped:
            vars(module)[_OUTPUTS] = []
        try:
            final = pick_tensor(self.backbone(*args, **kwargs), None, "the backbone's output")
            features = [self._feature(*place) for place in zip(self.taps, self._tapped, strict=True)]
        finally:
            for module in self._tapped:
                vars(module).pop(_OUTPUTS, None)
        return (*(head(feature) for head, feature in zip(self.exits, features, strict=True)), final)

    def _feature(self, tap: Tap, module: nn.Module) -> Tensor:
        outputs = vars(module)[_OUTPUTS]
        if len(outputs) != 1:
            raise TapError(f"the module {tap.path!r} ran {len(outputs)} times: an exit needs one that runs once.")
        return pick_tensor(outputs[0], tap.select, f"the output of {tap.path!r}")


class ExitHead(nn.Module):
    """One exit: features of the final width, and a classifier of their average.

    Args:
        exit_: What stands here.
        geometry: Of the feature that is read.
        width: Width of the exit's features.
        classes: Number of classes.
    """

    def __init__(self, exit_: Exit, geometry: Geometry, width: int, classes: int) -> None:
        super().__init__()
        self.layout: Layout = geometry.layout
        self.features: nn.Module
        if exit_.kind == "local":
            self.features = _local_features(geometry.width, width)
        else:
            self.features = _GlobalFeatures(geometry.width, width, exit_.reduction)
        self.classifier = nn.Linear(width, classes)

    @override
    def forward(self, feature: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pooled(self.features(as_map(self.layout.channels_first(feature)))))
        return logits


def _local_features(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1),
        nn.GroupNorm(1, width),
        nn.GELU(),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.GroupNorm(1, width),
        nn.GELU(),
        nn.Conv2d(width, width, 1),
    )


class _GlobalFeatures(nn.Module):
    def __init__(self, inputs: int, width: int, reduction: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 1)
        self.reduction = reduction
        self.block = Block(width, num_heads=math.gcd(width, max(1, width // 64)), qkv_bias=True)
        self.norm = LayerNorm2d(width)

    @override
    def forward(self, map_: Tensor) -> Tensor:
        reduced = F.avg_pool2d(self.enter(map_), self.reduction, ceil_mode=True)
        tokens = self.block(reduced.flatten(2).transpose(1, 2))
        normalized: Tensor = self.norm(tokens.transpose(1, 2).reshape(reduced.shape))
        return normalized


def _keep_output(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
    """Hook of every exit's module; it knows no network, so that copies may share it, and rests outside of a call."""
    outputs = vars(module).get(_OUTPUTS)
    if outputs is not None:
        outputs.append(output)


def _look(backbone: nn.Module, taps: Sequence[Tap], example: Inputs) -> tuple[dict[Tap, Geometry], int]:
    """Geometry at each tap and the number of classes, from one call in evaluation mode."""
    recorder = TapRecorder(backbone, taps, name="backbone")
    try:
        with looking_only(backbone), recorder.recording(copy_overwritten=True) as calls:
            backbone(*example.args, **example.kwargs)
    finally:
        recorder.detach()
    probe = Probe(backbone, calls[0])
    logits = pick_tensor(calls[0].output, None, "the backbone's output")
    return {tap: probe.geometry(tap) for tap in taps}, logits.shape[1]
