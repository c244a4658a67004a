"""What a command line says about a network's inputs: shapes, ranges, and files with real ones."""

import inspect
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import exporters
from exporters.preprocessing import ImagePreprocessing
from lightning_kd.errors import SetupError
from lightning_kd.images import load_images

LABELS = "labels"


def size_or_name(text: str | int) -> int | str:
    """Read a size above 0, or the name of a dynamic dimension; jsonargparse passes what was read through again."""
    text = str(text)
    if text.isidentifier():
        return text
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a whole number above 0 or a name, got {text!r}")
    return int(text)


def dimension(text: str | tuple[str, exporters.DimensionRange]) -> tuple[str, exporters.DimensionRange]:
    """Read ``NAME=MIN:MAX`` or ``NAME=MIN:OPTIMUM:MAX``, with ``*STEP`` behind it for multiples only.

    Example:
        >>> dimension("time=8000:16000:160000*320")[1].optimum
        16000
    """
    if isinstance(text, tuple):
        return text  # jsonargparse passes what was read through again
    name, _, sizes = text.partition("=")
    ends, _, step = sizes.partition("*")
    numbers = [*ends.split(":"), step or "1"]
    if not name.isidentifier() or len(numbers) not in (3, 4) or not all(part.isdecimal() for part in numbers):
        raise ArgumentTypeError(f"must be NAME=MIN:MAX, NAME=MIN:OPTIMUM:MAX, or either with *STEP, got {text!r}")
    minimum, *optimum, maximum, multiple = map(int, numbers)
    return name, exporters.DimensionRange(minimum, maximum, optimum[0] if optimum else None, multiple)


def published_shape(model: nn.Module, given: Sequence[int | str] | None) -> tuple[int | str, ...]:
    """Shape of the network's input: as given, or the one that timm publishes for it with a batch of one."""
    if given is not None:
        return tuple(given)
    published = getattr(model, "default_cfg", {}).get("input_size")
    if published is None:
        raise SetupError(
            f"`--input-shape` must be given for {type(model).__name__}, which publishes none, got none: "
            "for example --input-shape 1 3 224 224."
        )
    return (1, *published)


def example_inputs(
    model: nn.Module,
    shape: Sequence[int | str],
    dimensions: Mapping[str, exporters.DimensionRange],
    preprocessing: ImagePreprocessing | None,
) -> Tensor | exporters.ExportSpec:
    """A random example, or with dynamic dimensions a declaration of the input."""
    dtype = "float32" if preprocessing is None else preprocessing.dtype
    value_range = None if preprocessing is None else preprocessing.value_range
    if preprocessing is not None and preprocessing.layout == "NHWC":
        shape = (shape[0], *shape[2:], shape[1])
    if dimensions or any(isinstance(size, str) for size in shape):
        # The module that preprocesses calls its input so.
        name = "image" if preprocessing is not None else next(iter(inspect.signature(model.forward).parameters))
        tensor = exporters.TensorSpec(name, tuple(shape), dtype, value_range=value_range)
        return exporters.ExportSpec(inputs=(tensor,), dimensions=dimensions)
    sizes = [int(size) for size in shape]
    if preprocessing is not None and dtype == "uint8":
        return torch.randint(256, sizes, dtype=torch.uint8)
    return torch.rand(sizes) if preprocessing is not None else torch.randn(sizes)


def normalization(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Mean and spread that timm publishes for the network, if it does."""
    config = getattr(model, "default_cfg", {})
    return {name: tuple(config[name]) for name in ("mean", "std") if name in config}


class Files:
    """Reads inputs from folders of images and from arrays.

    Args:
        model: The network, for its published mean and deviation.
        shape: Shape of its input with the batch dimension, channels before height and width.
        preprocessing: What the exported file does itself; ``None`` if inputs come preprocessed.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int | str], preprocessing: ImagePreprocessing | None) -> None:
        self._normalization = normalization(model)
        self._shape = tuple(shape[1:])
        self._preprocessing = preprocessing

    def samples(self, path: str, *, count: int) -> Any:
        """Inputs from a folder of images or an ``.npz`` file."""
        if Path(path).suffix == ".npz":
            return _arrays(path)
        return [(image,) for image in self._images(path, count=count)]

    def labelled(self, path: str, *, count: int) -> Any:
        """Inputs with labels: a folder with one subfolder per class, in the order of names, or an ``.npz`` file."""
        if Path(path).suffix == ".npz":
            arrays = _arrays(path)
            if LABELS not in arrays[0]:
                raise SetupError(f"`--evaluation` must hold an array `{LABELS}`, got {sorted(arrays[0])} in {path}.")
            return arrays
        folders = sorted(folder for folder in Path(path).iterdir() if folder.is_dir()) if Path(path).is_dir() else []
        if not folders:
            raise SetupError(f"`--evaluation` must be a folder with one subfolder per class, or .npz, got {path}.")
        each = max(1, count // len(folders))
        return [
            (image, label) for label, folder in enumerate(folders) for image in self._images(str(folder), count=each)
        ]

    def _images(self, path: str, *, count: int) -> Tensor:
        sizes = [size for size in self._shape if isinstance(size, int)]
        if len(sizes) < len(self._shape):
            raise SetupError(f"images need a fixed height and width, got {self._shape}; give arrays (.npz) instead.")
        if self._preprocessing is None:
            return load_images(path, sizes, samples=count, **self._normalization)
        raw = load_images(path, sizes, samples=count, mean=(0.0,) * 3, std=(1.0,) * 3)
        if self._preprocessing.dtype == "uint8":
            raw = (raw * 255).round().to(torch.uint8)
        return raw.permute(0, 2, 3, 1) if self._preprocessing.layout == "NHWC" else raw


def _arrays(path: str) -> list[dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return [dict(content)]
    except (ValueError, OSError) as error:
        raise SetupError(f"{path} must be a readable .npz file of arrays by input name, got: {error}") from error
