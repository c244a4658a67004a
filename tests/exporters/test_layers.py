import onnx
import pytest
import torch
from torch import nn

from exporters.capture import capture
from exporters.layers import COMPUTING, decomposed_names, layer_name, producer
from exporters.network import prepare
from exporters.onnx_graph import to_onnx
from exporters.onnx_names import layer_of
from exporters.quantization.recipes import contents
from exporters.quiet import errors_only
from exporters.signature import DimensionRange


@pytest.fixture
def network(small_net, image):
    return prepare(small_net, image, batch=DimensionRange(1, 4))


def test_layers_are_the_paths_of_modules(network):
    nodes = [node for node in capture(network).graph.nodes if node.target in COMPUTING]
    assert [layer_name(node) for node in nodes] == ["convolution", "head"]


def test_a_normalisation_leads_back_to_the_convolution_before_it(network):
    nodes = {node.name: node for node in capture(network).run_decompositions({}).graph.nodes}
    assert producer(nodes["getitem"]).name == "conv2d"
    assert producer(next(iter(nodes.values()))) is None


def test_values_of_another_decomposition_are_matched_by_their_origin(network):
    program = capture(network)
    with errors_only("root"):
        table = torch.export.default_decompositions()
        other = program.run_decompositions(table)
    names = decomposed_names(other.graph.nodes, program)
    assert names["convolution"] == "conv2d"
    assert names["relu"] == "relu"


def test_onnx_nodes_say_which_module_they_come_from_and_nothing_of_this_machine(network):
    model = to_onnx(network)
    assert {(node.op_type, layer_of(node)) for node in model.graph.node if node.op_type in ("Conv", "Gemm")} == {
        ("Conv", "convolution"),
        ("Gemm", "head"),
    }
    text = onnx.printer.to_text(model)
    assert "site-packages" not in text
    assert __file__ not in text


def test_attention_is_told_from_convolutions():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(8, 8)

        def forward(self, tokens):
            projected = self.project(tokens)
            return nn.functional.scaled_dot_product_attention(projected, projected, projected)

    convolutional = contents(capture(prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))))
    attending = contents(capture(prepare(Attention(), torch.zeros(1, 4, 8))))
    assert not convolutional.token_mixing
    assert attending.token_mixing
    assert not attending.mixed
    assert attending.products == ("scaled_dot_product_attention",)


def test_convolutions_all_through_a_transformer_make_it_mixed():
    class Block(nn.Sequential):
        def forward(self, image):
            return super().forward(image).softmax(1)

    network = prepare(nn.Sequential(*(Block(nn.Conv2d(3, 3, 3)) for _ in range(3))), torch.zeros(1, 3, 8, 8))
    assert contents(capture(network)).mixed
