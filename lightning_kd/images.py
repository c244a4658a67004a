"""Images from a folder, or arrays from a file, as one batch of inputs."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from lightning_kd.errors import SetupError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_images(
    path: Path | str,
    shape: Sequence[int],
    *,
    samples: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Read inputs for a network.

    From a folder: its image files, those of subfolders too, evenly spaced in the order of their paths; the shorter side
    is scaled to the network's size, the centre cropped, the range 0 to 1 normalised. From a ``.npy`` file: its first
    rows, which must be inputs already.

    Args:
        path: Folder or ``.npy`` file.
        shape: Shape of one input; for images channels (1 for grey, 3 for colour), height and width.
        samples: How many inputs to read at most.
        mean: Mean of each channel in the network's training data, of values between 0 and 1.
        std: Standard deviation of each channel, likewise.

    Returns:
        Inputs, float32, shape ``(samples, *shape)``.

    Raises:
        SetupError: If ``path`` holds no images, one cannot be read, or an array has another shape.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, shape, samples=samples, mean=mean, std=std)
    if path.suffix != ".npy" or not path.is_file():
        raise SetupError(f"`data` must be a folder of images or a .npy file, got {path}.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise SetupError(f"`data` must be a readable .npy file of numbers, got {path}: {error}") from error
    if array.shape[1:] != tuple(shape):
        raise SetupError(f"`data` must hold inputs of shape {tuple(shape)}, got an array of shape {array.shape}.")
    return torch.from_numpy(array[:samples]).float()


def normalised(mean: Sequence[float], std: Sequence[float]) -> v2.Compose:
    """The transform of PIL images to tensors, the range 0 to 1 normalised.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def centred(size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> v2.Compose:
    """The transform of PIL images to the centre at a network's size, normalised.

    Args:
        size: Height and width in pixels; the shorter side is scaled to the larger of them.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """
    pixels = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    crop = [v2.Resize(max(size), antialias=True), v2.CenterCrop(list(size))]
    return v2.Compose([*pixels, *crop, v2.Normalize(mean, std)])


def _from_folder(
    folder: Path, shape: Sequence[int], *, samples: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise SetupError(f"`input_shape` must be channels (1 or 3), height and width for images, got {tuple(shape)}.")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise SetupError(f"`data` must hold images ({', '.join(sorted(SUFFIXES))}), got none in {folder}.")
    transform = centred(shape[1:], mean[: shape[0]], std[: shape[0]])
    spaced = islice(files, 0, None, max(1, len(files) // samples))
    mode = "L" if shape[0] == 1 else "RGB"
    return torch.stack([transform(_open(file, mode)) for file in islice(spaced, samples)])


def _open(file: Path, mode: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert(mode)
    except (OSError, UnidentifiedImageError) as error:
        raise SetupError(f"`data` must hold readable images, got {file}: {error}") from error
