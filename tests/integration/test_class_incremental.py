"""Classes that come one after another, in real Trainers: what is forgotten, what checkpoints hold, what is refused."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from lightning_kd import Tap, WeightAligning, recipes
from lightning_kd.errors import SetupError, TapError
from lightning_kd.incremental import extend_classifier
from lightning_kd.selection import exemplar_subset, sample_features

OLD, CLASSES, PER_CLASS = 4, 6, 60


class Net(nn.Module):
    """Two layers and a classifier, of points in the plane."""

    def __init__(self, classes):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 32), nn.ReLU())
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        return self.fc(self.trunk(x))


class Module(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def clouds(classes, seed):
    """Points around as many places on a circle, and which place each is of."""
    labels = torch.tensor(classes).repeat_interleave(PER_CLASS)
    angles = labels * 2 * torch.pi / CLASSES
    centres = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    noise = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(centres + 0.6 * noise, labels)


def loader(data):
    return DataLoader(data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0))


def accuracy(net, classes):
    points, labels = clouds(classes, seed=9).tensors
    with torch.no_grad():
        return float((net(points).argmax(1) == labels).float().mean())


@pytest.fixture
def taught(trainer):
    """A network that knows the old classes, and its memory of three samples of each."""
    torch.manual_seed(0)
    data = clouds(range(OLD), seed=0)
    net = Net(OLD)
    trainer(max_epochs=15).fit(Module(net), loader(data))
    features = sample_features(net, DataLoader(data, batch_size=64), Tap("fc", at="input"))
    return net, Subset(data, exemplar_subset(features, data.tensors[1], per_class=3))


def widened(net):
    torch.manual_seed(1)
    student = copy.deepcopy(net).requires_grad_(True)
    student.fc = extend_classifier(student.fc, CLASSES)
    return student


def new_and_memory(memory):
    return loader(ConcatDataset([clouds(range(OLD, CLASSES), seed=1), memory]))


def incremental(net):
    return recipes.class_incremental(
        copy.deepcopy(net), classifier="net.fc", old_classes=OLD, classes=CLASSES, path="net"
    )


def test_distilled_and_aligned_a_network_forgets_less(taught, trainer):
    net, memory = taught
    plain, kept = widened(net), widened(net)
    trainer(max_epochs=15).fit(Module(plain), new_and_memory(memory))
    kd, aligning = incremental(net)
    trainer(max_epochs=15, callbacks=[kd, aligning]).fit(Module(kept), new_and_memory(memory))
    assert accuracy(net, range(OLD)) > 0.95
    assert accuracy(kept, range(OLD)) > accuracy(plain, range(OLD))
    assert accuracy(kept, range(CLASSES)) > 0.9
    lengths = kept.fc.weight.detach().norm(dim=1)
    assert float(lengths[:OLD].mean()) == pytest.approx(float(lengths[OLD:].mean()), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_resumed_run_equals_an_unbroken_one_and_checkpoints_are_those_of_the_bare_student(taught, trainer, tmp_path):
    net, memory = taught
    whole, resumed = Module(widened(net)), Module(widened(net))
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    unshuffled = DataLoader(new_and_memory(memory).dataset, batch_size=32)
    trained = trainer(max_epochs=2, callbacks=[*incremental(net), saver], enable_checkpointing=True)
    trained.fit(whole, unshuffled)
    callbacks = incremental(net)
    path = tmp_path / "epoch=0.ckpt"
    trainer(max_epochs=2, callbacks=callbacks).fit(resumed, unshuffled, ckpt_path=path, weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert callbacks[1].factor is not None
    trained.save_checkpoint(tmp_path / "aligned.ckpt", weights_only=True)
    state = torch.load(tmp_path / "aligned.ckpt", weights_only=True)["state_dict"]
    bare = Module(Net(CLASSES))
    bare.load_state_dict(state, strict=True)
    assert torch.equal(bare.net.fc.weight, whole.net.fc.weight)
    last = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)["state_dict"]["net.fc.weight"]
    assert torch.equal(last[:OLD], bare.net.fc.weight[:OLD])
    torch.testing.assert_close(last[OLD:] * callbacks[1].factor, bare.net.fc.weight[OLD:].detach())


def test_what_cannot_be_aligned_is_refused_before_training(trainer):
    data = loader(clouds(range(CLASSES), seed=0))
    with pytest.raises(SetupError, match=r"among the 6 classes of 'net.fc', got 6"):
        trainer(callbacks=[WeightAligning("net.fc", old_classes=6)]).fit(Module(Net(CLASSES)), data)
    with pytest.raises(SetupError, match=r"path of a linear layer, got Sequential at 'net.trunk'"):
        trainer(callbacks=[WeightAligning("net.trunk", old_classes=4)]).fit(Module(Net(CLASSES)), data)
    with pytest.raises(TapError, match=r"`net.head` names no module of the LightningModule"):
        trainer(callbacks=[WeightAligning("net.head", old_classes=4)]).fit(Module(Net(CLASSES)), data)
