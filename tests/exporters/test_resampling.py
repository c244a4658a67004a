"""Images brought to another size: as PyTorch does it, in every format, between sizes that are not known too."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import exporters
from exporters import DimensionRange, ExportSpec, TensorSpec
from exporters.capture import capture
from exporters.network import prepare
from exporters.plain import PlainOperators
from exporters.resampling import resample
from exporters.runtimes import EXPORTERS, import_runtime

KINDS = {
    "nearest": {"mode": "nearest"},
    "nearest-exact": {"mode": "nearest-exact"},
    "bilinear": {"mode": "bilinear"},
    "bilinear, aligned": {"mode": "bilinear", "align_corners": True},
    "bilinear, antialiased": {"mode": "bilinear", "antialias": True},
    "bicubic": {"mode": "bicubic"},
    "bicubic, aligned": {"mode": "bicubic", "align_corners": True},
    "bicubic, antialiased": {"mode": "bicubic", "antialias": True},
    "bicubic, both": {"mode": "bicubic", "align_corners": True, "antialias": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(7, 13), (40, 60), (20, 24), (1, 1), (20, 1), (63, 95)])
def test_any_size_is_what_pytorch_makes_of_it(kind, size):
    image = torch.randn(2, 3, 20, 24)
    actual = resample(image, size, None, **KINDS[kind])
    torch.testing.assert_close(actual, F.interpolate(image, size=size, **KINDS[kind]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factors", [(2.0, 2.0), (0.5, 0.5), (1.7, 1.7), (0.3, 3.3)])
def test_any_factor_is_what_pytorch_makes_of_it(kind, factors):
    image = torch.randn(2, 3, 20, 24)
    actual = resample(image, None, factors, **KINDS[kind])
    torch.testing.assert_close(actual, F.interpolate(image, scale_factor=factors, **KINDS[kind]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "arguments", [{"size": 9}, {"size": (9, 30)}, {"scale_factor": 1.7}, {"scale_factor": (2, 1.3)}]
)
def test_every_way_to_say_a_size_is_understood(arguments, recompute):
    options = {"mode": "bilinear", "antialias": True, **arguments}
    if "scale_factor" in arguments:
        options["recompute_scale_factor"] = recompute
    image = torch.randn(1, 2, 20, 24)
    with PlainOperators():
        actual = F.interpolate(image, **options)
    torch.testing.assert_close(actual, F.interpolate(image, **options), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_result_lies_in_memory_as_pytorchs_does(kind, memory_format):
    image = torch.randn(2, 3, 20, 24).to(memory_format=memory_format)
    expected = F.interpolate(image, size=(7, 30), **KINDS[kind])
    assert resample(image, (7, 30), None, **KINDS[kind]).stride() == expected.stride()


class Resized(nn.Module):
    """An image, and whatever it is resized to."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image, **self.options)


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ({"size": (9, 9), "mode": "bilinear"}, True),
        ({"size": (9, 9), "mode": "nearest-exact"}, True),
        ({"size": (9, 9), "mode": "bilinear", "antialias": True}, False),
        ({"scale_factor": 1.7, "mode": "bicubic", "antialias": True}, False),
    ],
)
def test_only_what_converters_do_not_know_is_replaced(options, stays):
    program = capture(prepare(Resized(**options), torch.randn(1, 3, 8, 8)))
    assert any("upsample" in str(node.target) for node in program.graph.nodes) == stays


@pytest.mark.parametrize("antialias", [False, True])
def test_mistakes_are_those_of_pytorch(antialias):
    with PlainOperators(), pytest.raises(ValueError, match="only one of size or scale_factor"):
        F.interpolate(torch.randn(1, 3, 8, 8), size=4, scale_factor=2, mode="bilinear", antialias=antialias)


class Positioned(nn.Module):
    """Tokens of patches with positions of another grid, channels last, and their map at the size of the image."""

    KINDS = ("nearest", "nearest-exact", "bilinear, aligned", "bicubic", "bicubic, antialiased")

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.positions = nn.Parameter(torch.randn(len(self.KINDS), 6, 7, 4))

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image)
        size = patches.shape[-2:]
        tokens = patches.flatten(2).mT
        for positions, kind in zip(self.positions, self.KINDS, strict=True):
            grid = F.interpolate(positions[None].permute(0, 3, 1, 2), size=size, **KINDS[kind])
            tokens = tokens + grid.permute(0, 2, 3, 1).view(1, -1, 4)
        return F.interpolate(tokens.mT.reshape(1, 4, *size), size=image.shape[-2:], mode="bilinear")


@pytest.mark.slow
@pytest.mark.parametrize("to", EXPORTERS)
def test_positions_follow_images_of_any_size_in_every_format(to, tmp_path):
    size = DimensionRange(32, 64, multiple=8)
    spec = ExportSpec(
        inputs=(TensorSpec("image", (1, 3, "height", "width"), "float32", value_range=(-1.0, 1.0)),),
        dimensions={"height": size, "width": size},
    )
    path = tmp_path / f"n{import_runtime(EXPORTERS, to)().suffix}"
    artifact = exporters.export(Positioned(), spec, to=to, path=path)
    assert artifact.parity.outputs[0].relative_l2 < 1e-5


@pytest.mark.parametrize("to", ["coreml", "coreai"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("options", [{"scale_factor": 1.7}, {"scale_factor": 0.5}, {"size": (7, 13)}])
def test_factors_need_not_be_whole_for_apple(to, mode, options, tmp_path):
    path = tmp_path / f"n{import_runtime(EXPORTERS, to)().suffix}"
    artifact = exporters.export(Resized(mode=mode, **options), torch.randn(1, 3, 8, 10), to=to, path=path)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6
