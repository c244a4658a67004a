"""The task's metric of a file against that of PyTorch, on the same samples."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import exporters
from exporters.onnx import OnnxExporter
from exporters.signature import DimensionRange, Signature, TensorSpec
from exporters.task import Evaluation, top1


def signature(size=1, **dimensions):
    return Signature(inputs=(TensorSpec("x", (size, 3), "float32"),), outputs=(), dimensions=dimensions)


@pytest.fixture
def samples():
    """Ten points in three dimensions whose class is their largest coordinate."""
    points = torch.randn(10, 3)
    return TensorDataset(points, points.argmax(1))


def test_top1_is_the_fraction_of_right_classes():
    # Largest at 1, 0, 2; targets 1, 2, 2: two of three are right.
    scores = np.array([[0.0, 1.0, 0.5], [3.0, 1.0, 2.0], [-2.0, -1.0, 0.0]])
    assert top1(scores, np.array([1, 2, 2])) == pytest.approx(2 / 3)


def test_top1_of_a_map_counts_pixels():
    scores = np.zeros((1, 2, 2, 2))
    scores[0, 1, 0] = 1.0  # the upper row is of class 1
    assert top1(scores, np.array([[[1, 1], [0, 1]]])) == 0.75


@pytest.mark.parametrize("targets", [np.zeros(2), np.zeros((3, 1))])
def test_top1_refuses_targets_of_another_shape(targets):
    with pytest.raises(exporters.InputError, match=r"targets must have shape \(3,\) for 'top1', got"):
        top1(np.zeros((3, 4)), targets)


def test_the_drop_is_measured_on_the_same_samples_in_both(samples, tmp_path):
    artifact = exporters.export(
        nn.Identity(), samples[:1][0], to="onnx", path=tmp_path / "n.onnx", evaluation=DataLoader(samples, 4)
    )
    task = artifact.task
    assert (task.reference, task.exported, task.drop, task.samples) == (1.0, 1.0, 0.0, 10)
    assert task.metric == "top1"
    points, classes = samples.tensors
    digest = hashlib.sha256()
    for row in points.numpy():
        digest.update(b"float32 (1, 3)\n" + row.tobytes())
    digest.update(b"int64 (10,)\n" + classes.numpy().tobytes())
    assert task.sha256 == digest.hexdigest()
    assert exporters.Artifact.read(artifact.path) == artifact
    assert json.loads(artifact.manifest_path.read_text())["task"]["samples"] == 10


def test_a_drop_beyond_the_limit_raises_and_leaves_no_file(samples, tmp_path, broken_exporter):
    def negate(module):
        module.weight.data *= -1
        return module

    net = nn.Linear(3, 3, bias=False)
    net.weight.data = torch.eye(3)
    exporter = broken_exporter(exporter=OnnxExporter(), mistake=negate)
    options = {"evaluation": samples, "tolerance": exporters.Tolerance(relative_l2=10.0)}
    # The largest of three distinct numbers is never the largest of their negatives: everything is lost.
    with pytest.raises(exporters.TaskError, match=r"at most `max_drop` 0\.1 of top1, got 1 \(1 in PyTorch, 0 exported"):
        exporters.export(net, samples[:1][0], to=exporter, path=tmp_path / "n.onnx", max_drop=0.1, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_of_ones_own_sees_all_outputs_and_targets(samples, tmp_path):
    class TwoHeads(nn.Module):
        def forward(self, x):
            return {"sum": x.sum(1), "scores": 2 * x}

    def negative_error(outputs, targets):
        assert outputs["sum"].shape == targets.shape == (10,)
        return -float(np.abs(outputs["scores"].argmax(1) - targets).sum())

    artifact = exporters.export(
        TwoHeads(),
        torch.randn(2, 3),
        to="onnx",
        path=tmp_path / "n.onnx",
        dynamic_batch=(1, 4),
        evaluation=samples,
        metric=negative_error,
    )
    assert artifact.task.metric == "negative_error"
    assert artifact.task.reference == 0.0


def test_top1_needs_one_output(samples, tmp_path):
    class TwoHeads(nn.Module):
        def forward(self, x):
            return x, 2 * x

    with pytest.raises(exporters.InputError, match=r"`metric` must be a function .* \['output_0', 'output_1'\]"):
        exporters.export(TwoHeads(), torch.randn(1, 3), to="onnx", path=tmp_path / "n.onnx", evaluation=samples)


def test_validation_data_of_a_data_module_is_taken(samples):
    class Data:
        def setup(self, stage):
            self.stage = stage

        def train_dataloader(self):
            raise AssertionError

        def val_dataloader(self):
            assert self.stage == "validate"
            return DataLoader(samples, 3)

    evaluation = Evaluation.from_data(Data(), signature())
    assert len(evaluation.batches) == len(evaluation.targets) == 10


def test_targets_are_found_by_name():
    batches = [{"x": np.ones((2, 3), np.float32), "labels": np.array([4, 5]), "index": np.array([0, 1])}]
    assert Evaluation.from_data(batches, signature()).targets.tolist() == [4, 5]


def test_single_samples_with_targets_are_accepted():
    pairs = [(np.ones(3, np.float32), 1), (np.zeros(3, np.float32), 0)]
    assert Evaluation.from_data(pairs, signature()).targets.tolist() == [1, 0]


def test_a_dynamic_batch_takes_the_rest_and_a_fixed_one_leaves_it_out():
    data = [(np.ones((70, 3), np.float32), np.arange(70))]
    dynamic = Evaluation.from_data(data, signature("batch", batch=DimensionRange(1, 64)))
    assert [len(batch["x"]) for batch in dynamic.batches] == [32, 32, 6]
    fixed = Evaluation.from_data(data, signature(16))
    assert [len(batch["x"]) for batch in fixed.batches] == [16] * 4
    assert len(fixed.targets) == 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one whole batch of samples with targets, got none"),
        ([np.ones((2, 3), np.float32)], r"must hold 1 input\(s\) followed by a target, got one array"),
        ([(np.ones((2, 3), np.float32), np.ones(3))], "one target per sample, got 3 for 2"),
        ([{"x": np.ones((2, 3), np.float32)}], r"target under one of labels, .*, got \['x'\]"),
        ([(np.ones((2, 4), np.float32), np.ones(2))], r"must have shape \(1, 3\), got \(1, 4\)"),
        ([(np.full((2, 3), np.nan, np.float32), np.ones(2))], "`evaluation` must hold finite values for input `x`"),
    ],
)
def test_data_that_cannot_be_evaluated_is_refused(data, message):
    with pytest.raises(exporters.InputError, match=message):
        Evaluation.from_data(data, signature())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_drop": 0.1}, exporters.InputError, "`evaluation` must be given beside `max_drop`, got None beside 0.1"),
        ({"max_drop": -1.0}, ValueError, "`max_drop` must be None or a finite number of at least 0, got -1.0"),
        ({"metric": "f1"}, ValueError, "`metric` must be 'top1' or a function, got 'f1'"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        exporters.export(nn.ReLU(), torch.randn(1, 3), to="onnx", path=tmp_path / "n.onnx", **options)


def test_a_metric_that_is_not_a_number_is_refused(samples, tmp_path):
    def nothing(outputs, targets):
        return float("nan")

    with pytest.raises(exporters.InputError, match="finite number, got nan from nothing"):
        exporters.export(
            nn.ReLU(), torch.randn(1, 3), to="onnx", path=tmp_path / "n.onnx", evaluation=samples, metric=nothing
        )
