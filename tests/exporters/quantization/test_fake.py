"""Fake quantisation attached to real networks, taken off again, and frozen into integers."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from exporters.capture import capture, is_quantized
from exporters.errors import QuantizationError
from exporters.network import prepare
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat, quantization_of, strip_qat


class Residual(nn.Module):
    """A convolution with batch norm around which the input is added, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, image):
        stem = self.stem_norm(self.stem(image)).relu()
        inner = self.inner_norm(self.inner(stem))
        return self.head(self.last((stem + inner).relu()).relu().mean((2, 3)))


@pytest.fixture
def residual(randomise_batch_norm):
    return randomise_batch_norm(Residual()).eval()


@pytest.fixture
def images():
    return torch.randn(16, 3, 8, 8)


NETWORKS = {
    "resnet": lambda: timm.create_model("test_resnet", num_classes=5),
    "vit": lambda: timm.create_model("test_vit", num_classes=5, img_size=32),
    "efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "own padding": lambda: nn.Sequential(
        Conv2dSame(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
    ),
    "encoder": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
    ),
}


@pytest.fixture(params=list(NETWORKS))
def network(request, randomise_batch_norm):
    return randomise_batch_norm(NETWORKS[request.param]()).eval()


def test_nothing_of_a_network_changes_until_it_rounds_and_everything_is_back_after_stripping(network):
    images = torch.randn(2, 3, 32, 32)
    before, expected = copy.deepcopy(network.state_dict()), network(images)
    tree = [(path, type(module)) for path, module in network.named_modules()]

    prepare_qat(network, images)

    assert [entry for entry in _tree(network) if not entry[0].startswith("fake_quantization")] == tree
    assert list(network.state_dict()) == list(before)
    network.load_state_dict(before, strict=True)
    assert torch.equal(network(images), expected)
    calibrate(network, [images])
    assert not torch.equal(network(images), expected)
    strip_qat(network)
    assert _tree(network) == tree
    assert quantization_of(network) is None
    assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(network(images), expected)


def _tree(network):
    return [(path, type(module)) for path, module in network.named_modules()]


def test_the_frozen_integers_compute_what_training_saw(network):
    images = torch.randn(8, 3, 32, 32)
    expected = network(images)
    prepare_qat(network, images)
    calibrate(network, [images])
    fake = network(images)

    frozen = prepare(network, images)

    (exact,) = frozen.module(images)
    torch.testing.assert_close(exact, fake, rtol=1e-4, atol=1e-4)
    assert F.cosine_similarity(exact.flatten(), expected.flatten(), dim=0) > 0.99
    assert is_quantized(frozen)
    kinds = {str(node.target) for node in capture(frozen).graph.nodes}
    assert not any("batch_norm" in kind for kind in kinds)
    unused = [node.name for node in capture(frozen).graph.nodes if node.op == "placeholder" and not node.users]
    assert [name for name in unused if not name.startswith("inputs")] == []
    assert torch.equal(network(images), fake)


def test_every_layer_is_quantised_where_its_readers_need_it(residual, images):
    quantization = prepare_qat(residual, images)
    layers = dict(quantization.each())
    assert list(layers) == ["stem", "inner", "last", "head"]
    assert layers["stem"].owners[1] is residual.stem_norm
    # A ReLU, whose value two readers take.
    assert layers["stem"].output.non_negative
    # Read by an addition.
    assert not layers["inner"].output.non_negative
    # A mean follows the ReLU, and nothing the head.
    assert layers["last"].output.non_negative
    assert layers["head"].output is not None
    assert quantization.left_in_float == ()


def test_a_value_that_only_a_quantised_layer_reads_is_rounded_once(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    layers = dict(prepare_qat(network, images).each())
    assert [layer.output is None for layer in layers.values()] == [True, True, False]


def test_a_batch_norm_with_negative_and_zero_factors_is_multiplied_into_the_integers(residual, images):
    residual.stem_norm.weight.data = torch.tensor([-1.5, 0.0, 0.5, -0.1])
    prepare_qat(residual, images)
    calibrate(residual, [images])
    (exact,) = prepare(residual, images).module(images)
    torch.testing.assert_close(exact, residual(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pattern", ["inner", "inn*"])
def test_a_layer_can_be_kept_in_float(residual, images, pattern):
    quantization = prepare_qat(residual, images, FakeQuantization(keep_float=(pattern,)))
    assert quantization.left_in_float == ("inner",)
    assert "inner" not in dict(quantization.each())


def test_outputs_can_be_left_as_they_are(residual, images):
    quantization = prepare_qat(residual, images, FakeQuantization(outputs=False))
    assert all(len(layer.activations) == 1 for _, layer in quantization.each())


def test_a_path_stands_for_all_that_is_in_it(images):
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Conv2d(4, 2, 1))
    quantization = prepare_qat(network, images, FakeQuantization(keep_float=("0",)))
    assert quantization.left_in_float == ("0.0", "0.1")


def test_weights_that_attention_reads_without_their_layer_are_named_as_left_in_float(images):
    network = NETWORKS["encoder"]().eval()
    quantization = prepare_qat(network, torch.randn(2, 3, 32, 32))
    assert quantization.left_in_float == ("2.self_attn.in_proj_weight", "2.self_attn.out_proj.weight")
    assert [path for path, _ in quantization.each()] == ["0", "2.linear1", "2.linear2"]


def test_a_layer_that_runs_twice_has_one_range_for_both(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, image):
            return self.layer(self.layer(image) * 10)

    network = Twice()
    quantization = prepare_qat(network, images)
    calibrate(network, [images])
    (layer,) = [layer for _, layer in quantization.each()]
    assert layer.input.batches.item() == 2
    (exact,) = prepare(network, images).module(images)
    torch.testing.assert_close(exact, network(images), rtol=1e-4, atol=1e-4)


def test_shared_weights_stay_in_float(images):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1))
    network[1].weight = network[0].weight
    assert [path for path, _ in prepare_qat(network, images).each()] == ["2"]


def test_hooks_see_what_they_saw_before(residual, images):
    seen = []
    residual.inner.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prepare_qat(residual, images)
    calibrate(residual, [images])
    seen.clear()
    residual(images)
    # The input as the network computes it, not as the layer rounds it.
    assert seen[0].unique().numel() > 256 or seen[0].min() == 0
    assert len(seen) == 1


@pytest.mark.parametrize("learned", [False, True])
def test_everything_learns_through_the_rounding(residual, images, learned):
    quantization = prepare_qat(residual, images, FakeQuantization(learned_scales=learned, weight_bits=4))
    quantization.set_phase(rounding=True, observing="with_gradients")
    optimizer = torch.optim.Adam(residual.parameters(), lr=0.02)
    labels = torch.arange(16) % 5
    losses = []
    residual.train()
    for _ in range(40):
        loss = F.cross_entropy(residual(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and bool(p.grad.ne(0).any()) for p in residual.parameters())
    assert len(list(quantization.parameters())) == (4 + 4 + 4 if learned else 0)


def test_the_state_carries_ranges_and_learned_scales_over(residual, images):
    other = copy.deepcopy(residual)
    options = FakeQuantization(learned_scales=True)
    calibrated = prepare_qat(residual, images, options)
    calibrate(residual, [images])
    fresh = prepare_qat(other, images, options)
    fresh.load_state(calibrated.state())
    fresh.set_phase(rounding=True, observing="never")
    assert torch.equal(other(images), residual(images))


def test_a_copy_has_its_own_quantisers(residual, images):
    prepare_qat(residual, images)
    calibrate(residual, [images])
    expected = residual(images)
    other = copy.deepcopy(residual)
    calibrate(other, [10 * images])
    assert torch.equal(residual(images), expected)
    assert quantization_of(other) is not quantization_of(residual)


def test_quantisers_may_be_held_by_another_module(residual, images):
    holder = nn.ModuleDict({"net": residual})
    quantization = prepare_qat(residual, images, holder=holder)
    assert holder.fake_quantization is quantization
    assert not hasattr(residual, "fake_quantization")
    assert quantization_of(copy.deepcopy(residual)) is not None


def test_misuse_is_refused(residual, images):
    with pytest.raises(QuantizationError, match="got a plain Residual"):
        calibrate(residual, [images])
    with pytest.raises(QuantizationError, match="no layer with 'outer'"):
        prepare_qat(residual, images, FakeQuantization(keep_float=("outer",)))
    with pytest.raises(QuantizationError, match="layer to quantise, got none"):
        prepare_qat(nn.ReLU(), images)
    prepare_qat(residual, images)
    with pytest.raises(QuantizationError, match="already"):
        prepare_qat(residual, images)
    with pytest.raises(QuantizationError, match="'stem' has seen no input"):
        prepare(residual, images)
    with pytest.raises(QuantizationError, match="at least one batch"):
        calibrate(residual, [])
    with pytest.raises(QuantizationError, match="same options"):
        quantization_of(residual).load_state({})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("weight_bits", 1),
        ("weight_bits", 9),
        ("activations", "dynamic"),
        ("momentum", 0.0),
        ("percentile", 50.0),
        ("keep_float", "head"),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"`{option}` .* {value!r}"):
        FakeQuantization(**{option: value})
