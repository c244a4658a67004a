"""int8 for ExecuTorch: what is quantised, by which recipe, and what the runtime makes of it."""

import pytest
import torch
from torch import Tensor, nn

import exporters
from exporters.errors import InputError
from exporters.network import prepare
from exporters.pipeline import Order, build_request
from exporters.quantization import QuantizationOptions
from exporters.quantization.fake import calibrate, prepare_qat
from exporters.quantization.pt2e import AS_TRAINED, quantize

PIXELS = 8


class ConvolutionNet(nn.Module):
    """Convolutions with a sum, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image).relu()
        return self.head((features + self.block(features)).relu().mean((2, 3)))


class AttentionNet(nn.Module):
    """One block of attention between two linear layers."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.ModuleDict({"qkv": nn.Linear(8, 24), "mix": Attention()})
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        return self.head((tokens + self.block["mix"](self.block["qkv"](tokens)))[:, 0])


class Attention(nn.Module):
    def forward(self, qkv: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(*qkv.chunk(3, -1))


@pytest.fixture(scope="module")
def images():
    return torch.randn(20, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1))


def export(model, images, path, **options):
    return exporters.export(
        model, images[:1], to="executorch", path=path, precision="int8", calibration=images, **options
    )


@pytest.fixture(scope="module")
def quantised(images, tmp_path_factory):
    """Both networks in int8, with every recipe that suits them tried."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pt2e")
    return {
        name: export(model, images, folder / f"{name}.pte")
        for name, model in (("convolutions", ConvolutionNet()), ("attention", AttentionNet()))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolutions", "attention"])
def test_the_best_of_several_recipes_is_chosen_and_keeps_the_outputs(quantised, name):
    report = quantised[name].quantization
    cosines = {trial.recipe: trial.cosine for trial in report.trials}
    assert len(cosines) >= 2
    assert report.recipe == max(cosines, key=cosines.get)
    assert quantised[name].parity.outputs[0].cosine >= 0.99
    assert report.calibration.count == 20


@pytest.mark.slow
def test_attention_tries_ranges_at_run_time_first(quantised):
    recipes = {name: [trial.recipe for trial in artifact.quantization.trials] for name, artifact in quantised.items()}
    assert recipes == {
        "convolutions": ["static", "static-layers"],
        "attention": ["dynamic-linear", "static-layers", "static"],
    }


@pytest.mark.slow
def test_weights_and_products_of_layers_are_in_int8(quantised):
    audit = quantised["convolutions"].audit
    # 8 x 3 x 9 + 8 x 8 x 9 + 5 x 8 weights of one byte each.
    assert audit.weight_bytes == {"int8": 832}
    assert audit.operators == {"int8": 3}
    assert audit.left_in_float == ()


@pytest.mark.slow
def test_products_of_activations_stay_in_float_and_are_named(quantised):
    audit = quantised["attention"].audit
    # 8 x 3 x 16 + 24 x 8 + 5 x 8 weights.
    assert audit.weight_bytes == {"int8": 616}
    assert audit.operators == {"int8": 3, "float32": 2}
    assert audit.left_in_float == ("block.mix",)


@pytest.mark.slow
def test_layers_to_keep_stay_in_float_with_everything_in_them(images, tmp_path):
    options = QuantizationOptions(recipe="static-layers", keep_float=("block",))
    artifact = export(AttentionNet(), images, tmp_path / "n.pte", quantization=options)
    assert artifact.audit.operators == {"int8": 2, "float32": 3}
    assert artifact.quantization.left_in_float == ("block.qkv", "block.mix")
    assert [trial.recipe for trial in artifact.quantization.trials] == ["static-layers"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "smooth"}, r"one of \['dynamic-linear', .*'static'\], got 'smooth'"),
        (
            {"keep_float": ("blok",)},
            r"`keep_float` must name layers of the network, got 'blok'; it has .*block.qkv",
        ),
    ],
)
def test_what_is_not_there_is_refused(images, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export(AttentionNet(), images, tmp_path / "n.pte", quantization=QuantizationOptions(**options))
    assert list(tmp_path.iterdir()) == []


class TrainedLinear(nn.Module):
    """A linear layer that rounds as after quantisation-aware training: activations per tensor, weights per row."""

    def __init__(self):
        super().__init__()
        weight = torch.linspace(-1.0, 1.0, 15).reshape(5, 3)
        self.register_buffer("scales", weight.abs().amax(1) / 127)
        self.register_buffer("zeros", torch.zeros(5, dtype=torch.int64))
        self.register_buffer("weight", (weight / self.scales[:, None]).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        operators = torch.ops.quantized_decomposed
        steps = (0.05, 0, -128, 127, torch.int8)
        x = operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *steps), *steps)
        weight = operators.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        y = nn.functional.linear(x, weight)
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(y, *steps), *steps)


@pytest.mark.slow
def test_a_network_that_came_with_its_ranges_is_lowered_as_it_is(tmp_path):
    artifact = exporters.export(
        TrainedLinear(), torch.randn(2, 3), to="executorch", path=tmp_path / "n.pte", precision="int8"
    )
    assert artifact.quantization.recipe == AS_TRAINED
    assert artifact.quantization.calibration is None
    assert artifact.audit.weight_bytes == {"int8": 15}
    assert artifact.audit.operators == {"int8": 1}
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5


@pytest.mark.slow
def test_a_network_of_our_own_training_computes_every_layer_in_int8(images, tmp_path):
    model = ConvolutionNet()
    prepare_qat(model, images[:2])
    calibrate(model, [images])
    artifact = exporters.export(model, images[:1], to="executorch", path=tmp_path / "n.pte", precision="int8")
    assert artifact.quantization.recipe == AS_TRAINED
    assert artifact.audit.operators == {"int8": 3}
    assert artifact.details["delegation"]["outside"] == {}
    assert artifact.parity.outputs[0].cosine >= 0.9999


class Joined(nn.Module):
    """Two convolutions of very different outputs, side by side."""

    def __init__(self):
        super().__init__()
        self.small, self.large, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)
        self.large.weight.data *= 50

    def forward(self, image: Tensor) -> Tensor:
        return self.last(torch.cat([self.small(image).relu(), self.large(image).relu()], 1))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["static", "static-layers"])
def test_tensors_of_different_ranges_can_be_joined(images, tmp_path, recipe):
    options = QuantizationOptions(recipe=recipe)
    artifact = export(Joined(), images, tmp_path / "n.pte", quantization=options)
    assert artifact.audit.operators == {"int8": 3}


class WithClassToken(nn.Module):
    """Normalised tokens joined with a learned one, then a linear layer."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 5)
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.norm(self.patches(image).flatten(2).transpose(1, 2))
        return self.head(torch.cat([self.token.expand(len(image), -1, -1), tokens], 1).mean(1))


@pytest.mark.parametrize(("model", "is_rounded"), [(WithClassToken, False), (Joined, True)])
@pytest.mark.parametrize("recipe", ["static", "static-layers"])
def test_only_tensors_that_layers_rounded_are_joined_in_int8(images, model, is_rounded, recipe):
    order = Order(precision="int8", calibration=images, quantization=QuantizationOptions(recipe=recipe))
    request, network = build_request(order, prepare(model(), images[:1]))
    graph = quantize(network, request)[0].module.module.graph
    (join,) = graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default)
    assert [("dequantize" in str(source.target)) for source in join.all_input_nodes] == [is_rounded] * 2


class Gated(nn.Module):
    """A concatenation of int8 tensors, averaged to a gate that multiplies it in float; GhostNet slices it first."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        joined = torch.cat([self.left(image), self.right(image)], 1)[:, :8]
        return self.last(joined * nn.functional.hardsigmoid(self.gate(joined.mean((2, 3), keepdim=True))))


@pytest.mark.slow
def test_an_int8_tensor_may_be_read_in_int8_and_in_float(images, tmp_path):
    options = QuantizationOptions(recipe="static-layers")
    artifact = export(Gated(), images, tmp_path / "n.pte", quantization=options)
    assert artifact.audit.operators == {"int8": 4}
    assert artifact.parity.outputs[0].cosine >= 0.99


class Branched(nn.Module):
    """A convolution beside a batch norm of its own, as in MobileOne."""

    def __init__(self):
        super().__init__()
        self.convolution, self.after = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.beside, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
        for norm in (self.after, self.beside):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        return self.head((self.after(self.convolution(image)) + self.beside(image)).relu())


@pytest.mark.slow
def test_a_batch_norm_behind_no_convolution_is_computed_as_it_is(images, tmp_path):
    options = QuantizationOptions(recipe="static-layers")
    artifact = export(Branched(), images, tmp_path / "n.pte", quantization=options)
    assert artifact.audit.operators == {"float32": 1, "int8": 2}
    assert artifact.parity.outputs[0].cosine >= 0.999


class Looked(nn.Module):
    """Values of a table at computed indices, scaled, then a linear layer: WavLM's positions."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 192), nn.Linear(192, 5)

    def forward(self, image: Tensor) -> Tensor:
        indices = (torch.arange(4) + 1) * 2 + (image[0, 0, 0, :4] > 0).long() * 3
        return self.head(image.flatten(1) + self.table(indices).mean(0) * 2 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["static", "static-layers"])
def test_indices_stay_whole_numbers(images, tmp_path, recipe):
    artifact = export(Looked(), images, tmp_path / "n.pte", quantization=QuantizationOptions(recipe=recipe))
    assert artifact.audit.operators["int8"] == 1
    assert artifact.parity.outputs[0].cosine >= 0.99
