"""CIFAR-100 from torchvision, from a folder of arrays, or images generated in its form; and batches of it.

A data set stays in memory as bytes. Batches are cut out of it all at once, on whatever device it lies: on the host, or
on the GPU, where an epoch then waits for nothing but the networks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import CIFAR100

MEAN, DEVIATION = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
PIXELS, PADDING = 32, 4
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, slots=True)
class Split:
    """Images with their labels.

    Attributes:
        images: Shape ``(N, 3, 32, 32)``, uint8.
        labels: Shape ``(N,)``, int64.
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        """Read arrays as they are published: images of shape ``(N, 32, 32, 3)``, channels last."""
        shape = (len(labels), PIXELS, PIXELS, 3)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(
                f"`images` must be uint8 of shape {shape}, one for each label, got {images.dtype} of {images.shape}."
            )
        channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        return cls(channels_first, torch.from_numpy(labels.astype(np.int64)))

    def to(self, device: torch.device) -> "Split":
        """The same on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class Images:
    """Training and test images.

    Attributes:
        train: Training images.
        test: Test images.
        classes: Number of classes.
        source: Where they came from.
    """

    train: Split
    test: Split
    classes: int
    source: str

    def to(self, device: torch.device) -> "Images":
        """The same on ``device``."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def read_cifar100(folder: Path, *, download: bool = False) -> Images:
    """Read CIFAR-100 from ``folder``: from four arrays, ``train_images.npy`` and so on, or else through torchvision.

    Args:
        folder: Holds ``train_images.npy`` and ``test_images.npy``, uint8 ``(N, 32, 32, 3)``, and ``train_labels.npy``
            and ``test_labels.npy``, fine labels ``(N,)``; or what torchvision keeps there.
        download: Whether torchvision may download it to ``folder``.

    Raises:
        FileNotFoundError: If ``folder`` holds neither.
        ValueError: If arrays have another form.
    """
    if (folder / f"{ARRAYS[0]}.npy").exists():
        arrays = [np.load(folder / f"{name}.npy") for name in ARRAYS]
        source = "arrays in a folder"
    else:
        try:
            train, test = (CIFAR100(folder, train=is_train, download=download) for is_train in (True, False))
        except RuntimeError as error:
            raise FileNotFoundError(
                f"`--data` must hold {ARRAYS[0]}.npy and its fellows, or torchvision's CIFAR-100, got {folder}: "
                f"{error} Here that is --download."
            ) from error
        arrays = [train.data, np.array(train.targets), test.data, np.array(test.targets)]
        source = "torchvision"
    train_images, train_labels, test_images, test_labels = arrays
    return Images(Split.of(train_images, train_labels), Split.of(test_images, test_labels), 100, source)


def generated_images(*, train: int, test: int, classes: int) -> Images:
    """Images in the form of CIFAR-100 that show nothing: a blurred random pattern for each class, in noise."""
    generator = np.random.default_rng(0)
    patterns = torch.from_numpy(generator.uniform(64, 192, size=(classes, 3, 4, 4)))
    blurred = F.interpolate(patterns, size=PIXELS, mode="bilinear").numpy()

    def split(count: int) -> Split:
        labels = np.arange(count) % classes
        noisy = blurred[labels] + generator.normal(scale=64, size=(count, 3, PIXELS, PIXELS))
        return Split.of(noisy.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1), labels)

    source = "generated images: they show the machinery and say nothing about the methods"
    return Images(split(train), split(test), classes, source)


class Batches:
    """One epoch of batches at each iteration: standardised images, labels, and their indices in the data set.

    Training images are padded with 4 black pixels, cropped to 32x32 anywhere, and mirrored half of the time, each on
    its own. The last batch is smaller where the images do not divide.

    Args:
        data: The images; batches are made on their device.
        size: Images per batch.
        seed: Of the order, the crops and the mirroring; ``None`` gives the images as they are, in their order.
    """

    def __init__(self, data: Split, *, size: int, seed: int | None = None) -> None:
        self.data = data
        self.size = size
        device = data.images.device
        self._generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        self._padded = None if seed is None else F.pad(data.images, (PADDING,) * 4)
        self._mean, self._deviation = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, DEVIATION))
        self._along = torch.arange(PIXELS, device=device)
        self._channels = torch.arange(3, device=device).view(1, 3, 1, 1)

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.data.labels) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches of one epoch."""
        count, device = len(self.data.labels), self.data.images.device
        if self._generator is None:
            order = torch.arange(count, device=device)
        else:
            order = torch.randperm(count, generator=self._generator, device=device)
        for rows in order.split(self.size):
            pixels = self.data.images[rows] if self._padded is None else self._cropped(self._padded, rows)
            yield (pixels / 255 - self._mean) / self._deviation, self.data.labels[rows], rows

    def _cropped(self, padded: Tensor, rows: Tensor) -> Tensor:
        """Crops of the images ``rows``, each at its own place and mirrored or not: one gathering for all."""
        places = (len(rows), 1)
        down, right, mirrored = (
            torch.randint(ends, places, generator=self._generator, device=rows.device)
            for ends in (2 * PADDING + 1, 2 * PADDING + 1, 2)
        )
        across = torch.where(mirrored.bool(), self._along.flip(0), self._along) + right
        height, width = (self._along + down)[:, None, :, None], across[:, None, None, :]
        return padded[rows[:, None, None, None], self._channels, height, width]
