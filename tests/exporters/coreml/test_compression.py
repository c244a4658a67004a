import pytest
import torch
from torch import nn

import exporters
from exporters.coreml import CoreMLExporter, LinearWeights, Palette, Sparsity
from exporters.errors import ConversionError
from exporters.parity import Tolerance
from exporters.quantization.fake import calibrate, prepare_qat

DATA = torch.randn(12, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def perceptron():
    """Two weights large enough to be compressed, 2048 elements at least, and one too small."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 3))


@pytest.fixture
def export_int8(perceptron, tmp_path):
    def export(exporter, **options):
        return exporters.export(
            perceptron,
            DATA[:1],
            to=exporter,
            path=tmp_path / "n.mlpackage",
            precision="int8",
            calibration=DATA,
            tolerance=Tolerance(cosine=0.9),
            **options,
        )

    return export


def test_int8_takes_the_closer_of_two_recipes_and_says_what_stayed_in_float(export_int8):
    artifact = export_int8("coreml")
    report = artifact.quantization
    assert [trial.recipe for trial in report.trials] == ["linear", "palette"]
    assert report.recipe == max(report.trials, key=lambda trial: trial.sqnr_db).recipe
    assert min(trial.cosine for trial in report.trials) > 0.999
    assert report.left_in_float == artifact.audit.left_in_float == ("4",)
    assert report.calibration.count == 12
    # One byte per weight of the two large layers.
    assert artifact.audit.weight_bytes.get("int8", artifact.audit.weight_bytes.get("uint8")) == 2 * 64 * 96


@pytest.mark.parametrize(
    ("weights", "dtype", "bits", "cosine"),
    [
        (LinearWeights(bits=4, block_size=16), "int4", 4, 0.99),
        (Palette(bits=6), "uint6", 6, 0.999),
        (Palette(bits=4, group_size=16), "uint4", 4, 0.98),
    ],
)
def test_fewer_bits_are_stored_and_decoded(export_int8, weights, dtype, bits, cosine):
    artifact = export_int8(CoreMLExporter(minimum_deployment_target="iOS18", weights=weights))
    assert artifact.audit.weight_bytes[dtype] == 2 * 64 * 96 * bits // 8
    assert artifact.quantization.recipe == weights.recipe
    assert artifact.parity.outputs[0].cosine > cosine


@pytest.mark.parametrize("weights", [LinearWeights(), Palette(bits=6)])
def test_joint_compression_stores_only_the_weights_that_are_left(export_int8, weights):
    exporter = CoreMLExporter(minimum_deployment_target="iOS18", weights=weights, sparsity=Sparsity(target=0.25))
    artifact = export_int8(exporter)
    dtype, bits = ("int8", 8) if isinstance(weights, LinearWeights) else ("uint6", 6)
    assert artifact.audit.weight_bytes[dtype] == pytest.approx(0.75 * 2 * 64 * 96 * bits / 8, rel=0.01)
    assert artifact.parity.outputs[0].cosine > 0.95


def test_layers_can_be_kept_in_float(export_int8):
    options = exporters.QuantizationOptions(recipe="linear", keep_float=("2",))
    artifact = export_int8("coreml", quantization=options)
    assert artifact.quantization.left_in_float == ("2", "4")
    assert artifact.audit.weight_bytes["int8"] == 64 * 96


def test_layers_to_keep_must_exist(export_int8):
    exporter = CoreMLExporter(weights=LinearWeights())
    with pytest.raises(ConversionError, match=r"`keep_float` must name modules .* got \['neck'\]"):
        export_int8(exporter, quantization=exporters.QuantizationOptions(keep_float=("neck",)))


def test_an_unknown_recipe_is_refused(export_int8):
    with pytest.raises(exporters.InputError, match=r"'auto' or one of \['linear', 'palette'\], got 'entropy'"):
        export_int8("coreml", quantization=exporters.QuantizationOptions(recipe="entropy"))
    exporter = CoreMLExporter(weights=LinearWeights())
    with pytest.raises(ConversionError, match="'auto' beside `weights`, got 'palette'"):
        export_int8(exporter, quantization=exporters.QuantizationOptions(recipe="palette"))


def test_a_network_trained_for_int8_keeps_its_ranges(perceptron, tmp_path):
    prepare_qat(perceptron, DATA[:2])
    calibrate(perceptron, [DATA])
    artifact = exporters.export(perceptron, DATA[:1], to="coreml", path=tmp_path / "n.mlpackage", precision="int8")
    assert artifact.quantization.recipe == "from training"
    # Every weight is one byte, small ones too, and the activations between the layers are quantised.
    assert artifact.audit.weight_bytes == {"int8": 64 * 96 + 96 * 64 + 64 * 3}
    assert exporters.load(artifact).properties["active_precision"] == "int8"
    assert artifact.parity.outputs[0].cosine > 0.99


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weights": LinearWeights(bits=4)}, "'linear 4 bit, per channel'"),
        ({"weights": LinearWeights(block_size=32)}, "'linear 8 bit, blocks of 32'"),
        ({"weights": Palette(bits=4, group_size=8)}, "'palette 4 bit, groups of 8'"),
        ({"weights": Palette(bits=3)}, "'palette 3 bit, one table'"),
        ({"sparsity": Sparsity(target=0.5), "weights": LinearWeights()}, "50 % pruned and linear 8 bit"),
    ],
)
def test_what_an_old_target_lacks_is_refused_with_the_way_out(export_int8, options, what):
    with pytest.raises(ConversionError, match=f"must be 'iOS18' or newer for .*{what}.* got 'iOS17'; raise it"):
        export_int8(CoreMLExporter(**options))


def test_zeros_that_training_made_are_not_stored(perceptron, tmp_path):
    with torch.no_grad():
        perceptron[0].weight[:, ::2] = 0
    exporter = CoreMLExporter(sparsity=Sparsity())
    artifact = exporters.export(perceptron, DATA[:1], to=exporter, path=tmp_path / "n.mlpackage", precision="fp16")
    # Two bytes for every weight, but for half of those of the first layer.
    assert artifact.audit.weight_bytes["float16"] == 2 * (64 * 96 / 2 + 64 * 96 + 64 * 3)
