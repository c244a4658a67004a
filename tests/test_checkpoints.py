"""Weights from files, strictly."""

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_kd.checkpoints import load_weights
from lightning_kd.errors import SetupError


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.student = nn.Linear(2, 3)
        self.metric = nn.Linear(1, 1)


def _prefixed(module, prefix):
    return {prefix + key: value for key, value in module.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "model.", "net.backbone."])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_finds_the_network_in_every_kind_of_file(tmp_path, prefix, suffix):
    saved, network = nn.Linear(2, 3), nn.Linear(2, 3)
    path, state = tmp_path / f"weights{suffix}", _prefixed(saved, prefix)
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if suffix == ".ckpt" else state, path)
    load_weights(network, path)
    torch.testing.assert_close(network.weight, saved.weight, rtol=0, atol=0)
    torch.testing.assert_close(network.bias, saved.bias, rtol=0, atol=0)


def test_reads_what_the_trainer_saves(tmp_path):
    module = Module()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    network = nn.Linear(2, 3)
    load_weights(network, tmp_path / "last.ckpt")
    torch.testing.assert_close(network.weight, module.student.weight, rtol=0, atol=0)


def test_two_networks_in_one_file_need_the_prefix(tmp_path):
    ema = nn.Linear(2, 3)
    torch.save(_prefixed(nn.Linear(2, 3), "model.") | _prefixed(ema, "ema.model."), tmp_path / "a.pt")
    network = nn.Linear(2, 3)
    with pytest.raises(SetupError, match=r"a\.pt holds the network more than once: 'model\.', 'ema\.model\.'"):
        load_weights(network, tmp_path / "a.pt")
    load_weights(network, tmp_path / "a.pt", prefix="ema.model.")
    torch.testing.assert_close(network.weight, ema.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, "missing 'bias'"),
        ({**nn.Linear(2, 3).state_dict(), "scale": torch.zeros(1)}, "unexpected 'scale'"),
        (nn.Linear(4, 3).state_dict(), "size mismatch for weight"),
        ({"other": torch.zeros(1)}, "missing 'bias', 'weight'; unexpected 'other'"),
        ([torch.zeros(1)], r"must hold a state_dict, got a\.pt with list"),
        ({"state_dict": {"weight": 3}}, "must hold a state_dict"),
        ({"weight": nn.Linear(1, 1)}, "other objects, which are not loaded because they run code"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, saved, message):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(SetupError, match=message):
        load_weights(nn.Linear(2, 3), tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(SetupError, match=rf"`checkpoint` must be a readable file of weights, got .*{name}"):
        load_weights(nn.Linear(2, 3), tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x02not weights")
    with pytest.raises(SetupError, match=rf"`checkpoint` must .*{name}"):
        load_weights(nn.Linear(2, 3), tmp_path / name)
