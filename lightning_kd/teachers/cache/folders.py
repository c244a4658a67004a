"""Folders of images as data sets whose samples can be repeated."""

from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import ImageFolder

from lightning_kd.errors import SetupError
from lightning_kd.images import IMAGENET_MEAN, IMAGENET_STD, centred, normalised
from lightning_kd.teachers.cache.replay import CropReplay, NoReplay, Replay


def image_folder(
    path: Path | str,
    size: tuple[int, int],
    *,
    crops: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    seed: int = 0,
) -> tuple[ImageFolder, Replay]:
    """A folder with one subfolder per class, and how its images are replayed.

    Args:
        path: The folder.
        size: Height and width in pixels.
        crops: Whether random crops are taken, whose places are stored; else the centre.
        mean: Mean of each channel of values between 0 and 1.
        std: Standard deviation of each channel.
        seed: From which crops are drawn.

    Returns:
        The data set, of colour images and labels, and its replay.

    Raises:
        SetupError: If there are no images in subfolders.
    """
    try:
        if crops:
            return ImageFolder(path), CropReplay(size=size, then=normalised(mean, std), seed=seed)
        return ImageFolder(path, transform=centred(size, mean, std)), NoReplay()
    except FileNotFoundError as error:
        raise SetupError(
            f"`data` must be a folder with one subfolder of images per class, got {path}: {error}"
        ) from error
