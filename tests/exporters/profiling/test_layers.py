"""Profiles of layers: every runtime's own counters, mapped to the network's modules."""

import json
import sys

import pytest
import torch
from torch import nn

import exporters
from exporters.executorch import ExecuTorchExporter
from exporters.profiling.layers import LayerProfile, LayerTime, onnxruntime, profile_layers
from exporters.profiling.layers.recording import Request

FILES = {"onnx": "net.onnx", "openvino": "net.xml", "executorch": "net.pte"}


class Net(nn.Module):
    """Heavy enough for whole microseconds to show where the time goes: nearly all of it is in `body.1`."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 256, 5, padding=2), nn.ReLU())
        self.head = nn.Linear(256, 4)

    def forward(self, image):
        return self.head(self.body(self.stem(image)).mean((2, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    folder, net, image = tmp_path_factory.mktemp("layers"), Net().eval(), torch.randn(1, 3, 32, 32)
    return {to: exporters.export(net, image, to=to, path=folder / name) for to, name in FILES.items()}


@pytest.fixture(scope="module")
def profiles(files):
    return {to: profile_layers(artifact, threads=1, runs=20) for to, artifact in files.items()}


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_heaviest_module_is_named_and_takes_most_of_the_time(profiles, runtime):
    times = profiles[runtime].by_module()
    assert max(times, key=times.get) == "body.1"
    assert profiles[runtime].share(times["body.1"]) > 0.5
    assert {"stem", "head"} <= times.keys()


def test_executorch_names_the_kernels_but_no_modules(profiles):
    layers = profiles["executorch"].layers
    assert {layer.module for layer in layers} == {None}
    heaviest = max(layers, key=lambda layer: layer.time_ms)
    assert heaviest.operator.startswith("Convolution")
    assert len({layer.name for layer in layers}) == len(layers)


def test_kernels_of_executorch_itself_are_reported_call_by_call(tmp_path):
    net, image = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(1, 4)
    exporter = ExecuTorchExporter(backend="portable")
    found = profile_layers(exporters.export(net, image, to=exporter, path=tmp_path / "net.pte"), threads=1, runs=3)
    assert sum(layer.operator.startswith("addmm") for layer in found.layers) == 2
    assert all(layer.time_ms > 0 for layer in found.layers)


@pytest.mark.parametrize("runtime", FILES)
def test_layers_do_not_take_longer_than_the_run(profiles, runtime):
    found = profiles[runtime]
    assert 0 < found.layers_ms <= found.run_ms
    assert sum(found.share(layer.time_ms) for layer in found.layers) == pytest.approx(1.0)


@pytest.mark.parametrize("runtime", FILES)
def test_the_subject_says_what_was_measured(profiles, files, runtime):
    subject = profiles[runtime].subject
    assert (subject.name, subject.artifact_sha256) == (FILES[runtime], files[runtime].sha256)
    assert subject.properties["threads"] == 1


@pytest.mark.parametrize("runtime", FILES)
def test_json_gives_an_equal_profile_back(profiles, runtime):
    assert LayerProfile.from_json(profiles[runtime].to_json()) == profiles[runtime]


def test_the_summary_has_the_share_of_every_layer(profiles):
    summary = json.loads(profiles["onnx"].to_json())["summary"]
    assert sum(layer["share"] for layer in summary["layers"]) == pytest.approx(1.0)


def test_times_of_a_module_add_up_and_shares_are_of_their_sum(subject, machine):
    times = (("a/x", "a", 3.0), ("b/y", "b", 1.0), ("a/z", "a", 4.0))
    layers = tuple(LayerTime(name=name, module=module, operator="op", time_ms=ms) for name, module, ms in times)
    found = LayerProfile(subject=subject, machine=machine, runs=1, run_ms=10.0, layers=layers)
    assert found.by_module() == {"a": 7.0, "b": 1.0}
    assert found.share(2.0) == 0.25


def test_shares_are_0_where_nothing_could_be_counted(subject, machine):
    layer = LayerTime(name="a/x", module="a", operator="op", time_ms=0.0)
    found = LayerProfile(subject=subject, machine=machine, runs=1, run_ms=0.1, layers=(layer,))
    assert found.share(0.0) == 0.0


def test_damaged_json_is_refused(profiles):
    content = json.loads(profiles["onnx"].to_json())
    del content["layers"][0]["operator"]
    with pytest.raises(ValueError, match=r"got a damaged field: .*operator"):
        LayerProfile.from_json(json.dumps(content))


def trace(*, runs):
    """What ONNX Runtime writes: per run of 10 us one node of the run's number in us, after the session's own events."""
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5}]
    for run in range(runs):
        events.append({"cat": "Session", "name": "model_run", "ts": 10 * run, "dur": 9})
        node = {"cat": "Node", "name": "a/x_kernel_time", "args": {"op_name": "Conv"}}
        events.append({**node, "ts": 10 * run + 1, "dur": run})
    return events


def test_runs_of_the_warm_up_do_not_count(files):
    request = Request(files["onnx"], threads=1, inputs={}, warm_up_runs=2, runs=3)
    assert onnxruntime._sums_of_nodes(trace(runs=5), request) == {("a/x", "Conv"): 2 + 3 + 4}


def test_a_trace_without_some_of_the_runs_is_refused(files):
    request = Request(files["onnx"], threads=1, inputs={}, warm_up_runs=2, runs=3)
    with pytest.raises(exporters.ExportError, match="got 5 runs with the warm-up, of which it holds 4"):
        onnxruntime._sums_of_nodes(trace(runs=4), request)


def test_a_runtime_without_the_event_tracer_is_refused(files, monkeypatch):
    from executorch.runtime import Program

    monkeypatch.setattr(Program, "write_etdump_result_to_file", lambda *_: None)
    with pytest.raises(exporters.PlatformError, match="EXECUTORCH_ENABLE_EVENT_TRACER=ON"):
        profile_layers(files["executorch"], threads=1, runs=1)


def test_onnx_is_asked_for_by_name(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(exporters.MissingRuntimeError, match=r"pip install 'lightning-kd\[onnx\]'"):
        profile_layers(files["onnx"], threads=1, runs=1)


def test_a_format_whose_runtime_counts_nothing_is_refused(tmp_path):
    artifact = exporters.export(nn.Linear(2, 2), torch.randn(1, 2), to="coreml", path=tmp_path / "n.mlpackage")
    with pytest.raises(exporters.PlatformError, match="got coreml; Xcode's performance report"):
        profile_layers(artifact)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 0}, "`runs` must be at least 1, got 0"),
        ({"batch_size": 2}, "`batch_size` must be 1"),
        ({"threads": 1000}, "`threads` must be"),
    ],
)
def test_wrong_arguments_are_refused(files, arguments, message):
    with pytest.raises(ValueError, match=message):
        profile_layers(files["onnx"], **arguments)
