"""Handwritten digits that ship with scikit-learn, in a fixed split."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

TRAIN, VALIDATION, TEST = 1000, 297, 500
BATCH = 50
SPLIT = (
    f"1797 grey images of 8 by 8 pixels, our split with equal class shares: {TRAIN} to train, {VALIDATION} to choose "
    f"hyper-parameters by, {TEST} for every accuracy shown"
)


class Digits(pl.LightningDataModule):
    """The UCI handwritten digits: grey images of shape ``(1, 8, 8)``, standardised over the training part.

    Args:
        seed: Seed of the order in which training batches come.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        digits = load_digits()
        images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None], torch.tensor(digits.target)
        train, rest = train_test_split(torch.arange(len(labels)), train_size=TRAIN, random_state=0, stratify=labels)
        validation, test = train_test_split(rest, train_size=VALIDATION, random_state=0, stratify=labels[rest])
        images = (images - images[train].mean()) / images[train].std()
        self.train, self.validation, self.test = (
            TensorDataset(images[part], labels[part]) for part in (train, validation, test)
        )

    @property
    def train_images(self) -> Tensor:
        """Images of the training part, shape ``(1000, 1, 8, 8)``."""
        return self.train.tensors[0]

    @override
    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(self.train, batch_size=BATCH, shuffle=True, generator=order)
