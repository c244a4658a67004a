"""A small student, a small teacher of another family, and real Trainers without anything that is not under test."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# Programs that tests start, and that import one another as programs do.
collect_ignore_glob = ["*_run.py"]


class TinyCNN(nn.Module):
    """Convolution, BatchNorm, ReLU in place, pooling, linear."""

    def __init__(self, width=6, classes=5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class TinyViT(nn.Module):
    """Patch embedding, class token, one transformer block, linear."""

    num_prefix_tokens = 1

    def __init__(self, width=8, classes=5, patch=2, size=8):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.block(tokens)[:, 0])


class Classifier(L.LightningModule):
    """What a user has: a network, a cross-entropy, an optimiser and a scheduler on the network's parameters."""

    def __init__(self, net=None, lr=0.05):
        super().__init__()
        self.net = TinyCNN() if net is None else net
        self.lr = lr

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.net.parameters(), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]


def make_loader(samples=24, batch_size=4, shuffle=False):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(samples) % 5), batch_size=batch_size, shuffle=shuffle)


@pytest.fixture
def classifier():
    """The class, so that a test can derive its own training step."""
    return Classifier


@pytest.fixture
def cnn():
    """The class of the student."""
    return TinyCNN


@pytest.fixture
def teacher():
    """A transformer with BatchNorm-free layers and dropout; deterministic."""
    torch.manual_seed(7)
    return TinyViT()


@pytest.fixture
def loader():
    """Factory of data loaders over one fixed data set."""
    return make_loader


@pytest.fixture
def trainer(tmp_path):
    """Factory of silent Trainers that write below the test's own folder."""

    def make(**options):
        defaults = {
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        return L.Trainer(**{**defaults, **options})

    return make


@pytest.fixture
def weights():
    """Copy of a module's state, to compare with later."""
    return lambda module: copy.deepcopy(dict(module.state_dict()))


@pytest.fixture
def precision_options():
    """Makes the Trainer's options for a precision; on a CPU, Lightning takes float16 with a scaler only as a plugin."""

    def make(precision):
        if precision != "16-mixed":
            return {"precision": precision}
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}

    return make
