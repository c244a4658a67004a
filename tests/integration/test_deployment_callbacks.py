"""ExportStudent and LatencyMonitor in real training runs, with real runtimes."""

import builtins
import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

import exporters
from exporters.errors import MissingRuntimeError, ParityError
from exporters.profiling import ProfileOptions
from lightning_kd import ExportStudent, FeatureKD, KnowledgeDistillation, LatencyMonitor, LogitKD
from lightning_kd.errors import SetupError

QUICK = ProfileOptions(min_runs=40, min_seconds=0, min_warm_up_seconds=0, max_warm_up_seconds=1)


def with_validation(classifier):
    class Validated(classifier):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    return Validated


def test_the_best_checkpoint_is_exported_and_verified(classifier, teacher, loader, trainer, tmp_path):
    module = with_validation(classifier)(lr=0.5)
    saver = ModelCheckpoint(tmp_path / "ckpt", monitor="val_loss", filename="best", mode="max")
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD("body", "block")])
    export = ExportStudent(["onnx", "openvino"], folder=str(tmp_path / "out"), student="net")
    trainer(max_epochs=3, enable_checkpointing=True, callbacks=[kd, saver, export]).fit(module, loader(), loader())

    x = torch.randn(1, 3, 8, 8)
    best = classifier()
    best.load_state_dict(torch.load(saver.best_model_path, weights_only=True)["state_dict"])
    expected = best.eval()(x).detach().numpy()
    assert not np.allclose(expected, module.eval()(x).detach().numpy(), rtol=1e-3)
    for target in ("onnx", "openvino"):
        artifact = export.artifacts[target]
        session = exporters.load(artifact)
        (output,) = session.run({artifact.inputs[0].name: x.numpy()}).values()
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
        assert artifact.metadata["checkpoint"] == "best.ckpt"
        manifest = json.loads(artifact.manifest_path.read_text())
        assert "adapter" not in json.dumps(manifest)


def test_a_module_that_is_its_own_student_is_exported_without_adapters(classifier, teacher, loader, trainer, tmp_path):
    kd = KnowledgeDistillation(teacher, objectives=[LogitKD(), FeatureKD("net.body", "block")])
    export = ExportStudent("onnx", folder=str(tmp_path), weights="last", dynamic_batch=True)
    module = own_forward(classifier)()
    trainer(callbacks=[kd, export]).fit(module, loader())
    session = exporters.load(tmp_path / "student.onnx")
    x = torch.randn(5, 3, 8, 8)
    (output,) = session.run({session.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(output, module.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert export.artifacts["onnx"].size_bytes < 10_000


def own_forward(classifier):
    class Own(classifier):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

    return Own


def test_an_averaged_student_is_exported_as_its_average(classifier, teacher, loader, trainer, tmp_path):
    export = ExportStudent("onnx", folder=str(tmp_path), student="net", weights="last")
    kd = KnowledgeDistillation(teacher, student="net")
    module = classifier()
    trainer(callbacks=[kd, EMAWeightAveraging(decay=0.5), export]).fit(module, loader())
    session = exporters.load(tmp_path / "student.onnx")
    x = torch.randn(1, 3, 8, 8)
    (output,) = session.run({session.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(output, module.net.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


class RandomAtInference(nn.Module):
    """Adds noise even in evaluation mode, so no export can agree with it."""

    def __init__(self, net):
        super().__init__()
        self.body, self.head = net.body, net.head

    def forward(self, x):
        y = self.head(self.body(x).mean((2, 3)))
        return y + torch.randn_like(y)


def test_a_student_whose_export_disagrees_fails_the_run_and_leaves_no_file(classifier, cnn, loader, trainer, tmp_path):
    export = ExportStudent("onnx", folder=str(tmp_path / "out"), student="net", weights="last")
    with pytest.raises(ParityError, match="output"):
        trainer(callbacks=[export]).fit(classifier(RandomAtInference(cnn())), loader())
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_missing_is_said_before_training(classifier, loader, trainer, tmp_path, monkeypatch):
    class Counting(classifier):
        steps = 0

        def training_step(self, batch, batch_idx):
            Counting.steps += 1
            return super().training_step(batch, batch_idx)

    def fit(**options):
        trainer(callbacks=[ExportStudent(student="net", **options)]).fit(Counting(), loader())

    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"`weights='best'` needs a checkpoint callback"):
        fit()
    with pytest.raises(SetupError, match=r"`folder` must be a folder that can be written, got .*file/below"):
        fit(weights="last", folder=str(tmp_path / "file" / "below"))
    with pytest.raises(ValueError, match=r"`to` must be one of .*'onnx'.* got 'tflite'"):
        fit(to="tflite")
    with pytest.raises(SetupError, match="`nett` names no module"):
        trainer(callbacks=[ExportStudent(student="nett", weights="last")]).fit(Counting(), loader())
    real_import = builtins.__import__

    def without_openvino(name, *args, **kwargs):
        if name.partition(".")[0] == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'")
        return real_import(name, *args, **kwargs)

    import sys

    for name in [name for name in sys.modules if name.startswith("exporters.") and "openvino" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_openvino)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'lightning-kd\[openvino\]'"):
        fit(to="openvino", weights="last")
    assert Counting.steps <= 4  # the dry runs that look for the student's input, abandoned at its first call


def test_latency_is_logged_for_every_runtime_at_validation(classifier, loader, trainer):
    runtimes = ["pytorch", "onnx", "openvino", "executorch"]
    monitor = LatencyMonitor(runtimes, student="net", every_n_epochs=2, options=QUICK)
    fitted = trainer(max_epochs=4, callbacks=[monitor])
    fitted.fit(with_validation(classifier)(), loader(), loader())
    for runtime in runtimes:
        profiles = monitor.profiles[runtime]
        assert len(profiles) == 2
        logged = fitted.callback_metrics[f"latency/{runtime}_p50_ms"].item()
        assert logged == pytest.approx(profiles[-1].p50_ms.value, rel=1e-5)
        assert fitted.callback_metrics[f"latency/{runtime}_p90_ms"].item() >= logged
        assert (f"latency/{runtime}_bytes" in fitted.callback_metrics) == (runtime != "pytorch")


def test_parameters_and_multiply_accumulates_are_logged_beside_latency(classifier, loader, trainer):
    fitted = trainer(callbacks=[LatencyMonitor("pytorch", student="net", batch_size=2, options=QUICK)])
    fitted.fit(with_validation(classifier)(), loader(), loader())
    # Convolution 3 to 6, 3 by 3, stride 2, on 8 by 8 pixels; BatchNorm of 6; linear 6 to 5.
    assert fitted.callback_metrics["latency/parameters"] == (3 * 9 + 1) * 6 + 2 * 6 + (6 + 1) * 5
    assert fitted.callback_metrics["latency/macs"] == 2 * (4 * 4 * 6 * 27 + 6 * 5)


@pytest.mark.parametrize(("runtimes", "message"), [("tensorrt", "got 'tensorrt'"), ([], "at least one runtime, got")])
def test_an_unknown_runtime_is_refused(runtimes, message):
    with pytest.raises(ValueError, match=message):
        LatencyMonitor(runtimes)


def test_a_batch_size_larger_than_the_data_gives_is_refused(classifier, loader, trainer):
    monitor = LatencyMonitor("pytorch", student="net", batch_size=8, options=QUICK)
    with pytest.raises(SetupError, match="`batch_size` must not exceed the training batch of 4 samples, got 8"):
        trainer(callbacks=[monitor]).fit(classifier(), loader(batch_size=4))


def test_the_example_input_array_serves_where_it_is_large_enough(classifier, loader, trainer):
    module = with_validation(classifier)()
    module.example_input_array = torch.randn(8, 3, 8, 8)
    monitor = LatencyMonitor("pytorch", student="net", batch_size=8, options=QUICK)
    trainer(callbacks=[monitor]).fit(module, loader(batch_size=4), loader())
    assert monitor.profiles["pytorch"][0].subject.batch_size == 8


@pytest.mark.slow
def test_int8_calibrates_on_the_training_data_and_reports_the_drop(classifier, loader, trainer, tmp_path):
    export = ExportStudent(
        "onnx",
        folder=str(tmp_path),
        student="net",
        weights="last",
        precision="int8",
        quantization=exporters.QuantizationOptions(samples=16),
        evaluation=True,
        max_drop=1.0,
    )
    module = with_validation(classifier)()
    trainer(callbacks=[export]).fit(module, loader(), loader())
    artifact = export.artifacts["onnx"]
    assert artifact.precision == "int8"
    assert artifact.quantization.calibration.count <= 16
    assert artifact.task.samples > 0
    assert artifact.task.max_drop == 1.0


def test_a_limit_without_an_evaluation_is_refused():
    with pytest.raises(ValueError, match=r"`evaluation` must be True beside `max_drop`, got False beside 0\.1"):
        ExportStudent(max_drop=0.1)
