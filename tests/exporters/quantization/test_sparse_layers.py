import torch
from torch import nn

import exporters


def test_layers_in_two_four_are_named_in_the_details(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4, bias=False))
    net[0].weight.data[:, ::2] = 0
    artifact = exporters.export(net, torch.randn(1, 8), to="onnx", path=tmp_path / "n.onnx")
    # 16 of the 32 weights of the first layer are zero, none of the 16 of the second.
    assert artifact.details == {"two_four_layers": ["0"], "zero_share": 16 / 48}


def test_a_dense_network_has_no_such_detail(tmp_path):
    artifact = exporters.export(nn.Linear(4, 4), torch.randn(1, 4), to="onnx", path=tmp_path / "n.onnx")
    assert artifact.details == {}
