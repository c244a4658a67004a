import sys

import numpy as np
import pytest
import torch

import exporters
from exporters.capture import capture
from exporters.network import prepare


@pytest.fixture
def package(small_net, image, tmp_path):
    return exporters.export(small_net, image, to="coreml", path=tmp_path / "n.mlpackage", precision="fp16")


def test_a_loaded_package_says_what_runs_it(package, small_net, image):
    session = exporters.load(package, threads=1)
    assert session.properties["runtime"] == "coreml-evaluator"
    assert session.properties["active_precision"] == "fp16"
    expected = small_net.eval()(image).detach().numpy()
    np.testing.assert_allclose(session.run({"image": image.numpy()})["output"], expected, rtol=1e-2, atol=2e-3)


def test_intermediate_values_have_the_names_of_the_captured_graph(package, small_net, image):
    values = exporters.load(package, threads=1).trace({"image": image.numpy()})
    network = prepare(small_net, image)
    nodes = {node.name for node in capture(network).run_decompositions({}).graph.nodes}
    assert {"relu", "mean"} <= nodes & values.keys()
    hidden = small_net.eval().norm(small_net.convolution(image)).relu()
    np.testing.assert_allclose(values["relu"], hidden.detach().numpy(), rtol=1e-2, atol=5e-3)


def test_inputs_that_do_not_fit_are_refused(package):
    with pytest.raises(exporters.InputError, match=r"must have shape \(1, 3, 8, 8\), got \(1, 3, 8, 9\)"):
        exporters.load(package).run({"image": torch.zeros(1, 3, 8, 9).numpy()})


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs there")
def test_the_evaluator_has_no_latency_worth_measuring(package):
    with pytest.raises(exporters.PlatformError, match=r"profiled where Core ML runs, got n.mlpackage"):
        exporters.profile(package)
