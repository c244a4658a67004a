from typing import NamedTuple

import pytest
import torch
from torch import nn

from exporters.errors import CaptureError
from exporters.network import as_type, prepare
from exporters.signature import DimensionRange, TensorSpec


class Function(nn.Module):
    """A module that does one thing."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, scale=None):
        return self.function(x) if scale is None else self.function(x) * scale


class Pair(NamedTuple):
    left: torch.Tensor
    right: object


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: x + 1, ["output"]),
        (lambda x: (x + 1, x + 2), ["output_0", "output_1"]),
        (lambda x: [x + 1, (x + 2, None, x + 3)], ["output_0", "output_1_0", "output_1_2"]),
        (lambda x: {"logits": x + 1, "features": [x + 2]}, ["logits", "features_0"]),
        (lambda x: Pair(x + 1, {"a/b": x + 2}), ["left", "right_a_b"]),
        (lambda x: {"0": x + 1, 1: {"0": x + 2}}, ["output_0", "output_1_0"]),
        (lambda x: {"x": x + 1}, ["x_out"]),  # an input is already named x
    ],
)
def test_outputs_are_named_after_their_place(function, names):
    network = prepare(Function(function), torch.zeros(1, 2))
    assert [spec.name for spec in network.signature.outputs] == names
    assert len(network.module(*network.example)) == len(names)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (torch.zeros(1, 2), ["x"]),
        ((torch.zeros(1, 2), torch.ones(1)), ["x", "scale"]),
        ({"x": torch.zeros(1, 2), "scale": torch.ones(1)}, ["x", "scale"]),
        ({"scale": torch.ones(1), "x": torch.zeros(1, 2)}, ["x", "scale"]),
    ],
)
def test_inputs_are_named_after_the_parameters_of_forward(inputs, names):
    network = prepare(Function(lambda x: x + 1), inputs)
    assert [spec.name for spec in network.signature.inputs] == names
    torch.testing.assert_close(network.module(*network.example)[0], torch.ones(1, 2), rtol=0, atol=0)


def test_variadic_inputs_are_numbered_and_keyword_ones_keep_their_names():
    class Variadic(nn.Module):
        def forward(self, *parts, **named):
            return sum(parts) + sum(named.values())

    by_position = prepare(Variadic(), (torch.ones(1), torch.ones(1)))
    assert [spec.name for spec in by_position.signature.inputs] == ["parts_0", "parts_1"]
    by_name = prepare(Variadic(), {"a": torch.ones(1), "b": torch.ones(1)})
    assert [spec.name for spec in by_name.signature.inputs] == ["a", "b"]


def test_the_module_is_left_as_it_is():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout()).double().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = prepare(model, torch.randn(4, 2))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
    assert not network.module.training
    assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}


def test_hooks_belong_to_the_network_and_are_not_copied(small_net, image):
    class Holder:
        """A hook with state that cannot be copied, as a callback around a Trainer is."""

        def __deepcopy__(self, memo):
            raise TypeError("cannot be copied")

        def __call__(self, module, args, output):
            return output + 1

    plain = prepare(small_net, image).module(image)[0]
    small_net.head.register_forward_hook(Holder())
    torch.testing.assert_close(prepare(small_net, image).module(image)[0], plain + 1, rtol=0, atol=0)
    assert len(small_net.head._forward_hooks) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_module_stands_for_the_one_it_compiles(small_net, image, inside):
    expected = prepare(small_net, image).module(image)[0]
    if inside:
        small_net.head = torch.compile(small_net.head)
        model = small_net
    else:
        model = torch.compile(small_net)
    network = prepare(model, image)
    assert not any(type(module).__name__ == "OptimizedModule" for module in network.module.modules())
    torch.testing.assert_close(network.module(image)[0], expected, rtol=0, atol=0)


def test_a_dynamic_batch_is_named_in_inputs_and_outputs():
    model = Function(
        lambda x: {"same": x * 2, "tokens": x.reshape(-1, 1), "one": x.sum(0), "more": torch.cat([x, x[:1]])}
    )
    network = prepare(model, torch.zeros(1, 3), batch=DimensionRange(1, 4))
    assert network.signature.inputs == (TensorSpec("x", ("batch", 3), "float32"),)
    shapes = {spec.name: spec.shape for spec in network.signature.outputs}
    assert shapes == {"same": ("batch", 3), "tokens": ("3*batch", 1), "one": (3,), "more": ("batch+1", 3)}
    assert network.example[0].shape == (2, 3)


@pytest.mark.parametrize(("size", "ends", "expected"), [(1, (1, 4), 2), (3, (1, 4), 3), (9, (1, 4), 4), (2, (5, 8), 5)])
def test_the_example_is_repeated_or_cut_to_the_range(size, ends, expected):
    network = prepare(nn.Linear(3, 2), torch.zeros(size, 3), batch=DimensionRange(*ends))
    assert len(network.example[0]) == expected


def test_half_computes_in_float16_between_float32_tensors(small_net, image):
    network = prepare(small_net, image)
    half = as_type(network, torch.float16)
    assert {parameter.dtype for parameter in half.module.parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}
    output, expected = half.module(image)[0], network.module(image)[0]
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], r"must be a tensor, a tuple of tensors or a dict of tensors, got \[\]"),
        ((torch.zeros(1), 3), "got Tensor, int"),
        ("image", "got str"),
        ({"image": torch.zeros(1)}, r"must fit forward\(x, scale=None\), got the names \['image'\]"),
        ((torch.zeros(1),) * 3, "got 3 by position: too many"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(CaptureError, match=message):
        prepare(Function(lambda x: x + 1), inputs)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: 3, "got int"),
        (lambda x: {"logits": "high"}, "got str in `logits`"),
        (lambda x: {"a b": x, "a_b": x}, r"distinct names, got \['a_b', 'a_b'\]"),
        (lambda x: x @ torch.zeros(7, 7), r"inputs of shape \(1, 2\) .* RuntimeError"),
    ],
)
def test_outputs_that_cannot_be_exported_are_refused(function, message):
    with pytest.raises(CaptureError, match=message):
        prepare(Function(function), torch.zeros(1, 2))


def test_what_is_not_a_module_is_refused():
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module, got function"):
        prepare(lambda x: x, torch.zeros(1))


def test_a_stored_activation_is_named_as_what_prevents_the_copy():
    model = nn.Linear(2, 2)
    model.activation = model(torch.zeros(1, 2))
    with pytest.raises(CaptureError, match=r"Linear is not: Only Tensors created explicitly .* Remove tensors"):
        prepare(model, torch.zeros(1, 2))


def test_inputs_must_agree_on_a_dynamic_batch():
    with pytest.raises(CaptureError, match=r"got \{'x': 2, 'scale': 3\}"):
        prepare(Function(torch.sum), (torch.zeros(2, 1), torch.zeros(3, 1)), batch=DimensionRange(1, 4))
    with pytest.raises(CaptureError, match=r"got \{'x': 0\}"):
        prepare(Function(torch.sum), torch.tensor(1.0), batch=DimensionRange(1, 4))
