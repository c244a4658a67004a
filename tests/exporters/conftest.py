"""Networks whose every layer matters, and ways to break an export."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from exporters.sessions.pytorch import torch_threads


def _randomise_batch_norm(model: nn.Module) -> nn.Module:
    """Give every batch norm an affine map and statistics: initial values make whole branches of a network vanish."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model


class SmallNet(nn.Module):
    """A convolution with batch norm, and a linear layer with its own."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, (3, 3))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.convolution(image)).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def _one_thread():
    """On a busy machine the threads of many small operators wait for each other far longer than they work."""
    with torch_threads(1):
        yield


@pytest.fixture
def randomise_batch_norm() -> Callable[[nn.Module], nn.Module]:
    return _randomise_batch_norm


@pytest.fixture(scope="session")
def make_small_net() -> Callable[[], nn.Module]:
    return lambda: _randomise_batch_norm(SmallNet())


@pytest.fixture
def small_net(make_small_net) -> nn.Module:
    return make_small_net()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 8, 8)


@dataclass(frozen=True, kw_only=True)
class BrokenExporter:
    """An exporter around another one that does what a faulty converter would.

    Args:
        exporter: Writes and checks.
        damage: Changes the written file, given its path.
        mistake: Changes the copy of the module that is converted.
    """

    exporter: object
    damage: Callable = lambda path: None
    mistake: Callable = lambda module: module

    format = property(lambda self: self.exporter.format)
    suffix = property(lambda self: self.exporter.suffix)
    precisions = property(lambda self: self.exporter.precisions)
    versions = property(lambda self: self.exporter.versions)

    def convert(self, network, path, request):
        wrong = copy.deepcopy(network.module)
        wrong.module = self.mistake(wrong.module)
        conversion = self.exporter.convert(replace(network, module=wrong), path, request)
        self.damage(path)
        return conversion

    def verify(self, artifact, network, *, tolerance):
        return self.exporter.verify(artifact, network, tolerance=tolerance)


@pytest.fixture
def broken_exporter() -> type[BrokenExporter]:
    return BrokenExporter


def _with_swapped_axes(module):
    module.convolution.register_forward_pre_hook(lambda _, inputs: (inputs[0].transpose(2, 3),))
    return module


def _without_statistics(module):
    module.norm.reset_running_stats()
    return module


def _with_another_activation(module):
    module.norm = nn.Sequential(module.norm, nn.Tanh())
    return module


def _one_weight_changed(module):
    module.head.weight.data[1, 2] += 0.01
    return module


def _normalised_by_the_batch(norm, inputs, _):
    (features,) = inputs
    mean = features.mean((0, 2, 3), keepdim=True)
    variance = ((features - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scaled = (features - mean) / (variance + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def _in_training_mode(module):
    module.norm.register_forward_hook(_normalised_by_the_batch)
    return module


MISTAKES = {
    "swapped axes": (_with_swapped_axes, "`convolution`"),
    "lost statistics": (_without_statistics, "`norm`"),
    "norm in training mode": (_in_training_mode, "`norm`"),
    # Between the norm and the ReLU, which the network computes itself: the last value that is right is the norm's.
    "another activation": (_with_another_activation, "(`norm`|the network itself)"),
    "changed weight": (_one_weight_changed, "`head`"),
}
"""What a faulty conversion may do to a network without changing names and shapes, and a pattern of whom to blame."""


@pytest.fixture(params=MISTAKES.values(), ids=MISTAKES)
def blamed_mistake(request) -> tuple[Callable[[nn.Module], nn.Module], str]:
    return request.param


@pytest.fixture
def mistake(blamed_mistake) -> Callable[[nn.Module], nn.Module]:
    return blamed_mistake[0]
