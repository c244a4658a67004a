import pytest
import timm
import torch
from torch import nn


@pytest.fixture(scope="session")
def small_cnn() -> nn.Module:
    """Two convolutions with statistics that are not those of a new network, and a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    net = nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    for tensor, low, high in (
        (net[1].weight, 0.5, 1.5),
        (net[1].running_mean, -0.5, 0.5),
        (net[1].running_var, 0.5, 1.5),
    ):
        tensor.data.uniform_(low, high)
    return net


@pytest.fixture(scope="session")
def small_vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, in_chans=1, depth=1, embed_dim=32, num_heads=2, num_classes=5
    ).eval()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(30, 1, 16, 16, generator=torch.Generator().manual_seed(1))
