"""The networks of the CIFAR-100 protocol for images of 32x32 pixels, and the places that its methods read.

Residual networks, Wide ResNets, VGGs and ShuffleNetV1 are written from their papers; ResNet-50 is timm's, MobileNetV2
and ShuffleNetV2 are torchvision's, each with the strides of small images. Where papers leave a choice, or the
protocol's networks are not those of the papers, these are the protocol's: projection shortcuts in the residual
networks, convolutions with bias and a last stage on the grid of the one before in the VGGs, a ReLU after every
convolution but the last of a unit in ShuffleNetV1, ReLU in place of ReLU6 and an expansion in the first block, too, in
MobileNetV2 of width 1/2, and 1x1 stems in the ShuffleNets. So are their initial weights.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.ops import Conv2dNormActivation

from lightning_kd import Tap


def _convolution(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def _initialised(network: nn.Module) -> nn.Module:
    """Draw convolutions as He et al. do, by fan-out: those of all networks but the ShuffleNets, which keep torch's."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _network(stem: nn.Module, stages: Sequence[nn.Module], width: int, classes: int, *end: nn.Module) -> nn.Module:
    """Stem, stages, global average pooling and a linear classifier, by these names; ``end`` comes before pooling."""
    parts = OrderedDict(stem=stem, stages=nn.Sequential(*stages), end=nn.Sequential(*end))
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, classes)}
    return nn.Sequential(parts)


def _with_linear(network: nn.Module, *, std: float | None = None) -> nn.Module:
    """Zero the classifier's bias, and draw its weight with the deviation ``std``, if given."""
    nn.init.zeros_(network.get_parameter("classifier.bias"))
    if std is not None:
        nn.init.normal_(network.get_parameter("classifier.weight"), std=std)
    return network


def residual(classes: int, *, depth: int, widths: Sequence[int]) -> nn.Module:
    """ResNet of ``depth`` = 6n + 2 layers: stem of ``widths[0]``, three stages of n basic blocks (arXiv:1512.03385)."""
    stem = nn.Sequential(_convolution(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
    stages, inputs = [], widths[0]
    for index, width in enumerate(widths[1:]):
        blocks = []
        for block in range((depth - 2) // 6):
            stride = 2 if index and not block else 1
            shortcut = None
            if inputs != width:
                shortcut = nn.Sequential(_convolution(inputs, width, 1, stride=stride), nn.BatchNorm2d(width))
            blocks.append(BasicBlock(inputs, width, stride, shortcut))
            inputs = width
        stages.append(nn.Sequential(*blocks))
    return _initialised(_network(stem, stages, inputs, classes))


class PreActivationBlock(nn.Module):
    """Block of a Wide ResNet: BatchNorm and ReLU before each of two 3x3 convolutions.

    Where the width changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _convolution(inputs, outputs, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _convolution(outputs, outputs)
        self.shortcut = None if inputs == outputs else _convolution(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        active = F.relu(self.norm1(x))
        branch = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return branch + (x if self.shortcut is None else self.shortcut(active))


def wide_residual(classes: int, *, depth: int, factor: int) -> nn.Module:
    """Wide ResNet of ``depth`` = 6n + 4 layers, widths 16, 32, 64 times ``factor``, no dropout (arXiv:1605.07146)."""
    stages, inputs = [], 16
    for index, width in enumerate((16 * factor, 32 * factor, 64 * factor)):
        blocks = []
        for block in range((depth - 4) // 6):
            blocks.append(PreActivationBlock(inputs, width, 2 if index and not block else 1))
            inputs = width
        stages.append(nn.Sequential(*blocks))
    end = nn.BatchNorm2d(inputs), nn.ReLU()
    return _with_linear(_initialised(_network(_convolution(3, 16), stages, inputs, classes, *end)))


def vgg(classes: int, *, convolutions: int) -> nn.Module:
    """VGG of five stages of ``convolutions`` 3x3 convolutions with BatchNorm (arXiv:1409.1556); grids 32 to 4."""
    stages, inputs = [], 3
    for index, width in enumerate((64, 128, 256, 512, 512)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if index in (1, 2, 3) else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        stages.append(nn.Sequential(*layers))
    return _with_linear(_initialised(_network(nn.Identity(), stages, inputs, classes)), std=0.01)


class ShuffleUnit(nn.Module):
    """Unit of ShuffleNet: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, beside a shortcut (arXiv:1707.01083).

    A unit of stride 2 concatenates its branch with the averaged input, another adds the input. The ReLU after the
    depthwise convolution is the protocol's, not the paper's.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, groups: int, grouped_entry: bool) -> None:
        super().__init__()
        self.shortcut = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        branch = outputs - inputs if stride == 2 else outputs
        middle = branch // 4
        self.branch = nn.Sequential(
            _convolution(inputs, middle, 1, groups=groups if grouped_entry else 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.ChannelShuffle(groups if grouped_entry else 1),
            _convolution(middle, middle, stride=stride, groups=middle),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            _convolution(middle, branch, 1, groups=groups),
            nn.BatchNorm2d(branch),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        branch = self.branch(x)
        return F.relu(x + branch if self.shortcut is None else torch.cat([branch, self.shortcut(x)], dim=1))


def shufflenet_v1(classes: int) -> nn.Module:
    """ShuffleNet with three groups, widths 240, 480, 960; its first grouped 1x1 convolution is not grouped."""
    stages, inputs = [], 24
    for width, units in ((240, 4), (480, 8), (960, 4)):
        stage = []
        for unit in range(units):
            stage.append(ShuffleUnit(inputs, width, 1 if unit else 2, groups=3, grouped_entry=inputs != 24))
            inputs = width
        stages.append(nn.Sequential(*stage))
    return _network(nn.Sequential(_convolution(3, 24, 1), nn.BatchNorm2d(24), nn.ReLU()), stages, inputs, classes)


def shufflenet_v2(classes: int) -> nn.Module:
    """ShuffleNetV2 of width 1 (arXiv:1807.11164) on the whole grid: stem 1x1 of stride 1, no pooling after it."""
    network = ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], num_classes=classes)
    network.conv1[0] = _convolution(3, 24, 1)
    network.maxpool = nn.Identity()
    return network


def mobilenet_v2(classes: int) -> nn.Module:
    """MobileNetV2 of width 1/2 (arXiv:1801.04381): stride 1 where the paper's second stage has 2, no dropout.

    The protocol's has ReLU, and its first block too begins with a 1x1 convolution, though it expands nothing.
    """
    settings = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network = MobileNetV2(
        num_classes=classes, width_mult=0.5, inverted_residual_setting=settings, round_nearest=1, dropout=0.0
    )
    network.get_submodule("features.1.conv").insert(0, _initialised(Conv2dNormActivation(16, 16, kernel_size=1)))
    for block in list(network.modules()):
        for name, child in block.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(block, name, nn.ReLU())
    return network


def resnet50(classes: int) -> nn.Module:
    """ResNet-50 with a 3x3 stem of stride 1 and no pooling after it; grids 32, 16, 8, 4."""
    network = timm.create_model("resnet50", num_classes=classes, zero_init_last=False)
    network.conv1 = _convolution(3, 64)
    network.maxpool = nn.Identity()
    return _initialised(network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network of the protocol, and the places that methods read.

    Attributes:
        make: Makes it with random weights, from the number of classes.
        stages: Paths of its stages, from fine to coarse, without what comes before the first of three or four.
        before_activation: The stages read before their last ReLU, for teachers only.
        classifier: Path of the classifier, whose input is the pooled feature.
        learning_rate: Of the published recipe, where it is the student.
    """

    make: Callable[[int], nn.Module]
    stages: tuple[str, ...]
    before_activation: tuple[Tap, ...] = ()
    classifier: str = "classifier"
    learning_rate: float = 0.05

    @property
    def pooled(self) -> Tap:
        """Where the pooled feature is read."""
        return Tap(self.classifier, at="input")


def _residual(depth: int, widths: tuple[int, ...] = (16, 16, 32, 64)) -> Architecture:
    last = (depth - 2) // 6 - 1
    return Architecture(
        make=partial(residual, depth=depth, widths=widths),
        stages=("stages.0", "stages.1", "stages.2"),
        before_activation=tuple(Tap(f"stages.{stage}.{last}.act2", at="input") for stage in range(3)),
    )


def _wide_residual(depth: int, factor: int) -> Architecture:
    return Architecture(
        make=partial(wide_residual, depth=depth, factor=factor),
        stages=("stages.0", "stages.1", "stages.2"),
        before_activation=(Tap("stages.1.0.norm1"), Tap("stages.2.0.norm1"), Tap("end.0")),
    )


def _vgg(convolutions: int) -> Architecture:
    norms = [3 * convolutions - 2 + pooling for pooling in (1, 1, 1, 0)]
    return Architecture(
        make=partial(vgg, convolutions=convolutions),
        stages=("stages.1", "stages.2", "stages.3", "stages.4"),
        before_activation=tuple(Tap(f"stages.{stage}.{norm}") for stage, norm in enumerate(norms, start=1)),
    )


_FOUR_TIMES = (32, 64, 128, 256)
ARCHITECTURES = {
    "resnet20": _residual(20),
    "resnet32": _residual(32),
    "resnet56": _residual(56),
    "resnet110": _residual(110),
    "resnet8x4": _residual(8, _FOUR_TIMES),
    "resnet32x4": _residual(32, _FOUR_TIMES),
    "wrn_16_2": _wide_residual(16, 2),
    "wrn_40_1": _wide_residual(40, 1),
    "wrn_40_2": _wide_residual(40, 2),
    "vgg8": _vgg(1),
    "vgg13": _vgg(2),
    "ResNet50": Architecture(
        make=resnet50,
        stages=("layer1", "layer2", "layer3", "layer4"),
        before_activation=tuple(
            Tap(f"layer{stage}.{last}.act3", at="input") for stage, last in enumerate((2, 3, 5, 2), start=1)
        ),
        classifier="fc",
    ),
    "MobileNetV2": Architecture(
        make=mobilenet_v2,
        stages=("features.3", "features.6", "features.13", "features.17"),
        learning_rate=0.01,
    ),
    "ShuffleV1": Architecture(make=shufflenet_v1, stages=("stages.0", "stages.1", "stages.2"), learning_rate=0.01),
    "ShuffleV2": Architecture(
        make=shufflenet_v2, stages=("stage2", "stage3", "stage4"), classifier="fc", learning_rate=0.01
    ),
}
