"""Reads Fashion-MNIST from the project's data folder, or through torchvision where there is none."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset
from torchvision.datasets import FashionMNIST


@dataclass(frozen=True, slots=True)
class Images:
    """Standardised images ``(N, 1, 28, 28)`` with their labels.

    Attributes:
        train: Training images.
        test: Test images.
        source: Where they came from, and whose division into training and test images it is.
    """

    train: TensorDataset
    test: TensorDataset
    source: str

    def first(self, count: int) -> TensorDataset:
        """The first ``count`` training images."""
        return TensorDataset(*(tensor[:count] for tensor in self.train.tensors))


def read_fashion_mnist(*, train_images: int, test_images: int | None = None) -> Images:
    """Read the images, standardised by mean and deviation of the training images.

    Args:
        train_images: How many of the training images, in one fixed random order.
        test_images: How many of the test images; ``None`` takes all.
    """
    arrays, source = _read()
    chosen = np.random.default_rng(0).permutation(len(arrays["train_x"]))[:train_images]
    pixels, labels = arrays["train_x"][chosen], arrays["train_y"][chosen]
    mean, deviation = pixels.mean() / 255, pixels.std() / 255

    def dataset(pixels: np.ndarray, labels: np.ndarray) -> TensorDataset:
        standardised = ((pixels[:, None] / 255 - mean) / deviation).astype(np.float32)
        return TensorDataset(torch.from_numpy(standardised), torch.from_numpy(labels).long())

    test = dataset(arrays["test_x"][:test_images], arrays["test_y"][:test_images])
    return Images(dataset(pixels, labels), test, source)


def data_folder() -> Path:
    """The project's folder of data sets: ``LIGHTNING_KD_DATA``, or where the project itself has it."""
    return Path(os.environ.get("LIGHTNING_KD_DATA", Path(__file__).parents[2] / "shared" / "data"))


def _read() -> tuple[dict[str, np.ndarray], str]:
    file = data_folder() / "fashion_mnist" / "fashion_mnist_70k.npz"
    names = ("train_x", "train_y", "test_x", "test_y")
    if file.exists():
        with np.load(file) as arrays:
            return {name: arrays[name] for name in names}, "fashion_mnist_70k.npz, whose split is not the official one"
    downloads = Path.home() / ".cache" / "lightning-kd"
    train, test = (FashionMNIST(downloads, train=is_train, download=True) for is_train in (True, False))
    tensors = (train.data, train.targets, test.data, test.targets)
    return {name: t.numpy() for name, t in zip(names, tensors, strict=True)}, "torchvision, official split"
