"""What the examples share: handwritten digits, a plain LightningModule and a trained teacher. No distillation here."""

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TRAINING_IMAGES = 1297


class Digits(L.LightningDataModule):
    """The 1797 grey digits that ship with scikit-learn: the first 1297 to train on, the last 500 to validate on.

    Images have shape ``(1, size, size)`` and values from 0 to 1; labels are 0 to 9.

    Args:
        size: Height and width in pixels; beyond the original 8 the images are enlarged.
        batch_size: Images per batch.
    """

    def __init__(self, size: int = 8, batch_size: int = 64) -> None:
        super().__init__()
        bunch = load_digits()
        images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
        if size != 8:
            images = F.interpolate(images, size=(size, size), mode="bilinear")
        labels = torch.tensor(bunch.target)
        self.training = TensorDataset(images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES])
        self.validation = TensorDataset(images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:])
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.training, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=500)


class Classifier(L.LightningModule):
    """A LightningModule as anyone would write it: it knows nothing of distillation or export.

    Args:
        net: A network that returns class scores.
        learning_rate: Learning rate of AdamW.
    """

    def __init__(self, net: nn.Module, learning_rate: float = 5e-3) -> None:
        super().__init__()
        self.net = net
        self.learning_rate = learning_rate

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        images, labels, *_ = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(dim=1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def convolutional(width: int) -> nn.Sequential:
    """A convolutional network for digits of 8 by 8 pixels: three convolutions and a classifier.

    Args:
        width: Channels of the first convolution; the others have twice as many.

    Returns:
        The network, with random weights.
    """
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(2 * 2 * 2 * width, 10),
    )


def trained_teacher(epochs: int = 15) -> nn.Module:
    """Train a wide convolutional network on the digits.

    Args:
        epochs: How long.

    Returns:
        The trained network.
    """
    L.seed_everything(0)
    module = Classifier(convolutional(width=32))
    quiet_trainer(epochs).fit(module, Digits())
    return module.net


def quiet_trainer(epochs: int, callbacks: list[L.Callback] | None = None) -> L.Trainer:
    """A Trainer on the CPU that writes nothing.

    Args:
        epochs: How long it trains.
        callbacks: What takes part.

    Returns:
        The Trainer.
    """
    return L.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
