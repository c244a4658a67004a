"""Claims about `pre_activation_tap`."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from lightning_kd.errors import TapError
from lightning_kd.pre_activation import pre_activation_tap
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Tap


def read(model, *taps, pixels=64):
    recorder = TapRecorder(model.eval(), taps)
    for _ in range(2):
        with torch.no_grad(), recorder.recording(copy_overwritten=True) as calls:
            model(torch.randn(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(1)))
    recorder.detach()
    return [calls[0].features[tap] for tap in taps]


@pytest.mark.parametrize(
    ("make", "name", "path"),
    [
        (timm.create_model, "resnet18", "layer1"),
        (timm.create_model, "test_resnet", "layer3"),
        (timm.create_model, "resnet50", "layer2.1"),
        (timm.create_model, "regnetx_002", "s3"),
        (timm.create_model, "regnety_002", "s2"),
        (timm.create_model, "test_byobnet", "stages.1"),
        (timm.create_model, "mobilenetv4_conv_small", "blocks.1"),
        (torchvision.models.get_model, "resnet18", "layer2"),
        (torchvision.models.get_model, "resnet50", "layer3.0"),
        (torchvision.models.get_model, "regnet_y_400mf", "trunk_output.block2"),
    ],
)
def test_the_activation_of_what_is_tapped_is_the_blocks_output(make, name, path):
    model = make(name)
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.ones_(norm.weight)  # Some start at 0, so that blocks start as their shortcuts.
    before, after = read(model, pre_activation_tap(model, path), Tap(path))
    assert (before < 0).any()
    assert torch.equal(model.get_submodule(pre_activation_tap(model, path).path)(before.clone()), after)


@pytest.mark.parametrize(
    ("make", "name", "path"),
    [
        (timm.create_model, "mobilenetv2_100", "blocks.2"),
        (timm.create_model, "test_efficientnet", "blocks.2"),
        (timm.create_model, "test_convnext", "stages.1"),
        (timm.create_model, "test_vit", "blocks.3"),
        (timm.create_model, "swin_tiny_patch4_window7_224", "layers.1"),
        (timm.create_model, "pvt_v2_b0", "stages.1"),
        (torchvision.models.get_model, "mobilenet_v2", "features.3"),
        (torchvision.models.get_model, "efficientnet_b0", "features.3"),
    ],
)
def test_a_block_without_a_last_activation_is_tapped_itself(make, name, path):
    assert pre_activation_tap(make(name), path) == Tap(path)


class Block(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.end = end

    def forward(self, x, scale=None):
        y = self.conv(self.act(x))
        if scale is not None:
            y = y * scale
        return {"module": self.act, "dropout": lambda v: self.drop(self.act(v)), "function": F.relu}[self.end](y)


def test_options_keep_their_defaults_and_dropout_is_looked_through():
    for end in ("module", "dropout"):
        assert pre_activation_tap(nn.Sequential(Block(end)), "0") == Tap("0.act", at="input", call=1)


def test_the_model_itself_may_be_the_block():
    assert pre_activation_tap(Block("module"), "") == Tap("act", at="input", call=1)


def test_refuses_a_functional_activation():
    with pytest.raises(TapError, match=r"last activation of '0' \(Block\) is the function relu and no module"):
        pre_activation_tap(nn.Sequential(Block("function")), "0")


def test_refuses_code_that_cannot_be_traced():
    class Branching(nn.Module):
        def forward(self, x):
            return F.relu(x) if x.sum() > 0 else x

    class Constant(nn.Module):
        def forward(self, x):
            return 1

    with pytest.raises(TapError, match=r"the code of '0' \(Branching\) cannot be traced"):
        pre_activation_tap(nn.Sequential(Branching()), "0")
    with pytest.raises(TapError, match=r"the code of '0' \(Constant\) cannot be traced.*does not show"):
        pre_activation_tap(nn.Sequential(Constant()), "0")


def test_refuses_a_path_that_names_no_module():
    with pytest.raises(TapError, match="`layer9` names no module"):
        pre_activation_tap(timm.create_model("test_resnet"), "layer9")
