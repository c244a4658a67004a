"""The recipe to which OpenVINO falls back quantises what goes into layers, and nothing else."""

import openvino
import torch
from torch import nn

import exporters
from exporters.quantization import QuantizationOptions

WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}
# What a quantiser is carried past on its way into a layer.
CARRYING = {"Reshape", "Squeeze", "Transpose", "Unsqueeze"}


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.group = nn.GroupNorm(2, 8)
        self.second = nn.Conv2d(8, 8, 3)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        maps = self.second(nn.functional.gelu(self.group(self.first(image))))
        maps = torch.maximum(maps, 0.1 * maps) / (1 + maps.square().mean((2, 3), keepdim=True))
        return self.head(self.norm(maps.flatten(2).transpose(1, 2)))


def read_by(output):
    """Types of the operators that read a value, past what only carries it."""
    for target in output.get_target_inputs():
        node = target.get_node()
        if node.get_type_name() in CARRYING:
            yield from read_by(node.output(0))
        else:
            yield node.get_type_name()


def test_the_recipe_for_layers_leaves_norms_and_sums_in_float(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(20, 3, 12, 12)
    artifact = exporters.export(
        Mixed().eval(),
        images[:1],
        to="openvino",
        path=tmp_path / "n.xml",
        precision="int8",
        calibration=images,
        quantization=QuantizationOptions(recipe="layers"),
    )
    operators = openvino.Core().read_model(artifact.path).get_ops()
    found = {kind for node in operators if node.get_type_name() == "FakeQuantize" for kind in read_by(node.output(0))}
    assert found
    assert found <= WEIGHTED
