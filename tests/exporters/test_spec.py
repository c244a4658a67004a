import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exporters
from exporters.capture import capture
from exporters.errors import CaptureError, InputError
from exporters.network import prepare, resized
from exporters.samples import verification_batches
from exporters.signature import DimensionRange, TensorSpec
from exporters.spec import ExportSpec

IMAGE = TensorSpec("input", ("batch", 3, "height", "width"), "float32", value_range=(0.0, 1.0))
RANGES = {
    "batch": DimensionRange(1, 4),
    "height": DimensionRange(8, 64),
    "width": DimensionRange(8, 64, optimum=16),
}


class FullyConvolutional(nn.Sequential):
    """Maps an image of any size to a map of half the size."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.ReLU())


@given(low=st.integers(1, 50), extra=st.integers(1, 500), multiple=st.integers(1, 7), size=st.integers(0, 600))
def test_the_nearest_size_is_accepted_and_no_other_is_nearer(low, extra, multiple, size):
    accepted = DimensionRange(low, low + extra, multiple=multiple)
    every = [value for value in range(low, low + extra + 1) if value % multiple == 0]
    if not every:
        return
    assert accepted.accepts(accepted.nearest(size))
    assert abs(accepted.nearest(size) - size) == min(abs(value - size) for value in every)
    assert (accepted.smallest, accepted.largest) == (every[0], every[-1])


@pytest.mark.parametrize(
    ("inputs", "dimensions", "message"),
    [
        ((), {}, "distinct names, at least one, got \\[\\]"),
        ((IMAGE, IMAGE), RANGES, "got \\['input', 'input'\\]"),
        ((IMAGE,), {}, "which are \\['batch', 'height', 'width'\\], got \\[\\]"),
        ((IMAGE,), RANGES | {"depth": DimensionRange(1, 2)}, "got \\['batch', 'depth', 'height', 'width'\\]"),
        ((IMAGE,), RANGES | {"width": DimensionRange(8, 8)}, "`width` must have at least two sizes, got 8 to 8"),
        ((IMAGE,), RANGES | {"width": DimensionRange(0, 8)}, "`width` must have whole numbers above 0"),
        (
            (IMAGE,),
            RANGES | {"width": DimensionRange(8, 64, optimum=65)},
            "optimum of dimension `width` must be 8 to 64",
        ),
        ((TensorSpec("x", (1, 0), "float32"),), {}, "sizes of input `x` must be above 0"),
        ((TensorSpec("x", (1,), "float"),), {}, "must be one of float16, .*, got 'float'"),
        ((TensorSpec("x", (1,), "float32", (1.0, 0.0)),), {}, "`value_range` of input `x` must rise"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(inputs, dimensions, message):
    with pytest.raises(InputError, match=message):
        ExportSpec(inputs=inputs, dimensions=dimensions)


def test_drawn_inputs_keep_to_the_declared_values():
    drawn = ExportSpec(inputs=(IMAGE,), dimensions=RANGES).draw({"batch": 2, "height": 9, "width": 10}, seed=0)["input"]
    assert drawn.shape == (2, 3, 9, 10)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_every_extreme_and_an_odd_size_are_verified():
    batches = verification_batches(
        {"input": np.ones((2, 3, 8, 8), np.float32)}, prepare(FullyConvolutional(), _spec()).signature
    )
    sizes = [batch["input"].shape[2:] for batch in batches]
    # Smallest; odd; each in turn at its largest (the batch first); typical: the middle of 8 to 64, and the optimum.
    assert sizes == [(8, 8), (37, 37), (8, 8), (64, 8), (8, 64), (36, 16)]
    assert [len(batch["input"]) for batch in batches] == [1, 3, 4, 1, 1, 3]


def _spec() -> ExportSpec:
    return ExportSpec(inputs=(IMAGE,), dimensions=RANGES)


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_image_sizes_may_be_dynamic(to, suffix, tmp_path):
    artifact = exporters.export(FullyConvolutional(), _spec(), to=to, path=tmp_path / f"net{suffix}")
    assert exporters.Artifact.read(artifact.path) == artifact
    session = exporters.load(artifact)
    assert session.run({"input": np.zeros((3, 3, 63, 9), np.float32)})["output"].shape == (3, 2, 32, 5)
    with pytest.raises(InputError, match="dimension `height` of input `input` must be 8 to 64, got 65"):
        session.run({"input": np.zeros((3, 3, 65, 9), np.float32)})


def test_a_size_that_the_network_fixes_is_not_declared_in_vain(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    with pytest.raises(CaptureError, match="must run on inputs of shape"):
        exporters.export(network, _spec(), to="onnx", path=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_sizes_in_steps_are_captured_as_such():
    class Frames(nn.Module):
        def forward(self, wave):
            return wave.unflatten(1, (-1, 4)).mean(2)

    wave = TensorSpec("wave", (1, "time"), "float32")
    network = prepare(Frames(), ExportSpec(inputs=(wave,), dimensions={"time": DimensionRange(8, 400, multiple=4)}))
    assert capture(network).module()(torch.zeros(1, 40))[0].shape == (1, 10)
    assert network.signature.outputs[0].shape == (1, "output_1")
    with pytest.raises(CaptureError, match="must run on inputs of shape \\(1, 81\\)"):
        prepare(Frames(), ExportSpec(inputs=(wave,), dimensions={"time": DimensionRange(8, 400, optimum=40)}))


def test_a_network_is_captured_once_whatever_it_is_exported_to():
    network = prepare(FullyConvolutional(), _spec())
    assert capture(network) is capture(network)
    larger = resized(network, {"batch": 4, "height": 64, "width": 64})
    assert larger.example[0].shape == (4, 3, 64, 64)
    assert capture(larger) is not capture(network)


def test_a_spec_has_its_own_batch():
    with pytest.raises(ValueError, match="`dynamic_batch` must be left out with an ExportSpec"):
        prepare(FullyConvolutional(), _spec(), batch=DimensionRange(1, 2))
