"""A user's project folder, and two small networks exported from it."""

import pytest

PROJECT = """
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def network(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def not_a_network():
    return "a text"


class Classifier(pl.LightningModule):
    def __init__(self, width: int = 8):
        super().__init__()
        self.net = network(width)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        data = TensorDataset(torch.randn(64, 1, 4, 4), torch.arange(64) % 3)
        return DataLoader(data, batch_size=16)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with a module `project_NAME` of the user's; a new module name for each test."""
    name = f"project_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def run(capsys):
    """Run the command line in this process; returns exit status, standard output and standard error."""
    from lightning_kd.cli import main

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = exit.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """A small network as ONNX and as OpenVINO files."""
    import torch
    from torch import nn

    import exporters

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("artifacts")
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
    example = torch.randn(1, 1, 4, 4)
    return [
        exporters.export(net, example, to=to, path=folder / f"net{suffix}").path
        for to, suffix in (("onnx", ".onnx"), ("openvino", ".xml"))
    ]
