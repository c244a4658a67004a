"""Small images, a small teacher, and caches of them."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from lightning_kd.teachers.cache import CacheSpec, CacheWriter

CLASSES, PIXELS = 6, 8


class Net(nn.Module):
    """A block and a head, with dropout that would show if the teacher were in training mode."""

    def __init__(self, width=5):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.drop(self.block(x).mean((2, 3))))


class Augmented:
    """Images with random transforms, as a user's data set has them."""

    def __init__(self, count=20, transform=None):
        generator = torch.Generator().manual_seed(2)
        self.images = torch.rand(count, 3, PIXELS, PIXELS, generator=generator)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return (image if self.transform is None else self.transform(image)), index % CLASSES


@pytest.fixture
def teacher():
    torch.manual_seed(3)
    net = Net()
    net.block[1].running_mean.uniform_(-0.1, 0.1)
    net.block[1].running_var.uniform_(0.5, 2.0)
    return net


@pytest.fixture
def make_teacher():
    return Net


@pytest.fixture
def plain():
    """Twenty images that never change."""
    dataset = Augmented()
    return TensorDataset(dataset.images, torch.arange(len(dataset)) % CLASSES)


@pytest.fixture
def augmented():
    """Factory of data sets with random crops, flips and colours."""

    def make(count=20, **options):
        scale = options.pop("scale", (0.3, 1.0))
        return Augmented(
            count,
            v2.Compose(
                [v2.RandomResizedCrop(PIXELS, scale=scale), v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4)]
            ),
        )

    return make


@pytest.fixture
def whole():
    """Factory of data sets of whole images, larger than the crops taken of them."""
    return Augmented


@pytest.fixture
def write(tmp_path):
    """Write a cache; returns its folder."""

    def write(teacher, dataset, *, name="cache", batch_size=8, workers=0, part=(0, 1), **spec):
        folder = tmp_path / name
        CacheWriter(folder, teacher, dataset, CacheSpec(**spec)).write(
            batch_size=batch_size, workers=workers, part=part
        )
        return folder

    return write


@pytest.fixture
def content():
    """Every file of a folder with its bytes, by relative path."""

    def read(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return read
