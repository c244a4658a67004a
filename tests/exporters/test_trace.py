"""Intermediate values of a file, by the names of the captured program."""

import numpy as np
import pytest
import torch
from torch import fx

import exporters
from exporters.capture import capture
from exporters.network import prepare

FILES = {"onnx": "n.onnx", "openvino": "n.xml"}


class Recorder(fx.Interpreter):
    def __init__(self, module):
        super().__init__(module)
        self.values = {}

    def run_node(self, n):
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


@pytest.mark.parametrize("runtime", FILES)
def test_every_value_is_that_of_the_node_of_its_name(small_net, image, tmp_path, runtime):
    artifact = exporters.export(small_net, image, to=runtime, path=tmp_path / FILES[runtime])
    recorder = Recorder(capture(prepare(small_net, image)).run_decompositions({}).module())
    recorder.run(image)
    found = exporters.load(artifact, threads=1).trace({"image": image.numpy()})
    common = [name for name in found if torch.is_tensor(recorder.values.get(name))]
    assert {"getitem", "relu", "mean"} <= set(common)
    for name in common:
        np.testing.assert_allclose(found[name], recorder.values[name].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", FILES)
def test_inputs_are_checked(small_net, image, tmp_path, runtime):
    session = exporters.load(exporters.export(small_net, image, to=runtime, path=tmp_path / FILES[runtime]))
    with pytest.raises(exporters.InputError, match="`image`"):
        session.trace({"picture": image.numpy()})
