"""Quantisation-aware training in real Trainers: beside distillation, resumed, exported, under DDP."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

import exporters
from exporters.errors import QuantizationError
from exporters.quantization.fake import FakeQuantization, prepare_qat, quantization_of, strip_qat
from lightning_kd import ExportStudent, FeatureKD, KnowledgeDistillation, LogitKD, QuantizationAwareTraining
from lightning_kd.callbacks.quantization import Plan, load_ranges
from lightning_kd.errors import SetupError


def distillation(teacher):
    return KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD("body", "block")])


@pytest.mark.parametrize("distillation_first", [True, False])
def test_distils_beside_knowledge_distillation_in_any_order(
    classifier, teacher, loader, trainer, weights, distillation_first
):
    module = classifier()
    before, names = weights(module), list(module.state_dict())
    kd, qat = distillation(teacher), QuantizationAwareTraining(student="net")
    fitted = trainer(max_epochs=3, callbacks=[kd, qat] if distillation_first else [qat, kd])
    fitted.fit(module, loader())

    assert list(module.state_dict()) == names
    assert fitted.callback_metrics["kd/feature"] > 0
    handle = quantization_of(module.net)
    assert [path for path, _ in handle.each()] == ["body.0", "head"]
    assert handle.unseen == []
    assert not torch.equal(module.net.head.weight, before["net.head.weight"])
    # Nothing else stays: the step is the class's own, and no adapter is left.
    assert "training_step" not in vars(module)
    plain = classifier()
    plain.load_state_dict(module.state_dict(), strict=True)
    images = torch.randn(4, 3, 8, 8)
    assert not torch.equal(module.eval()(images), plain.eval()(images))
    strip_qat(module)
    assert torch.equal(module.eval()(images), plain(images))


def test_both_orders_train_the_same_weights(classifier, teacher, loader, trainer):
    states = []
    for first in (True, False):
        torch.manual_seed(3)
        module, callbacks = classifier(), [distillation(teacher), QuantizationAwareTraining(student="net")]
        trainer(max_epochs=2, callbacks=callbacks if first else callbacks[::-1]).fit(module, loader())
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_until_it_starts_training_is_that_of_the_plain_student(classifier, loader, trainer):
    states = []
    for callbacks in ([], [QuantizationAwareTraining(student="net", start=12, freeze_norm=None)]):
        torch.manual_seed(3)
        module = classifier()
        trainer(max_epochs=2, callbacks=callbacks).fit(module, loader())  # 12 steps
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("options", [FakeQuantization(), FakeQuantization(weight_bits=4, learned_scales=True)])
def test_a_resumed_run_equals_an_unbroken_one(classifier, teacher, loader, trainer, tmp_path, options):
    def start():
        torch.manual_seed(5)
        qat = QuantizationAwareTraining(options, student="net", start=3, freeze_ranges=9, freeze_norm=15)
        return classifier(lr=0.01), [distillation(teacher), qat]

    whole, callbacks = start()
    trainer(max_epochs=3, callbacks=callbacks).fit(whole, loader())
    broken, callbacks = start()
    first = trainer(max_epochs=2, callbacks=callbacks)
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    resumed, callbacks = start()
    trainer(max_epochs=3, callbacks=callbacks).fit(resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt")

    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    expected, found = quantization_of(whole.net).state(), quantization_of(resumed.net).state()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_checkpoints_load_strictly_into_the_plain_student(classifier, loader, trainer, tmp_path):
    module = classifier()
    qat = QuantizationAwareTraining(FakeQuantization(learned_scales=True), student="net")
    fitted = trainer(callbacks=[qat])
    fitted.fit(module, loader())
    for name, weights_only in (("whole", False), ("weights", True)):
        fitted.save_checkpoint(tmp_path / name, weights_only=weights_only)
        state = torch.load(tmp_path / name, weights_only=True)["state_dict"]
        classifier().load_state_dict(state, strict=True)
        assert list(state) == list(classifier().state_dict())


def test_learned_scales_learn_in_the_optimisers_own_group(classifier, loader, trainer):
    class Watched(classifier):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            states.append(quantization_of(self.net).state())

    states = []
    module = Watched()
    qat = QuantizationAwareTraining(FakeQuantization(weight_bits=3, learned_scales=True), student="net")
    fitted = trainer(callbacks=[qat])
    fitted.fit(module, loader())
    learned = dict(quantization_of(module.net).named_parameters())
    (group,) = fitted.optimizers[0].param_groups
    assert {id(p) for p in learned.values()} <= {id(p) for p in group["params"]}
    assert len(learned) == 6  # weight, input and output of two layers
    assert all(not torch.equal(states[0][name], states[-1][name]) for name in learned)


def test_ranges_and_batch_norms_stop_when_they_should(classifier, loader, trainer):
    seen = []

    class Watched(classifier):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            layer = dict(quantization_of(self.net).each())["head"]
            norm = self.net.body[1]
            seen.append((layer.input.batches.item(), norm.num_batches_tracked.item(), norm.training))

    module = Watched()
    qat = QuantizationAwareTraining(student="net", freeze_ranges=4, freeze_norm=0.5)
    trainer(max_epochs=2, callbacks=[qat]).fit(module, loader())
    # 12 steps; the norm also counts no dry run, the ranges four batches.
    assert [batches for batches, _, _ in seen] == [1, 2, 3, *[4] * 9]
    assert [tracked for _, tracked, _ in seen] == [1, 2, 3, 4, 5, *[6] * 7]
    assert [training for _, _, training in seen] == [True] * 6 + [False] * 6
    assert module.net.body[1].training


def test_validation_sees_the_rounded_student_once_rounding_has_started(classifier, loader, trainer):
    class Validated(classifier):
        def validation_step(self, batch, batch_idx):
            plain = copy.deepcopy(self.net)
            strip_qat(plain)
            rounds.append(not torch.equal(plain(batch[0]), self.net(batch[0])))

    rounds = []
    qat = QuantizationAwareTraining(student="net", start=6)
    trainer(max_epochs=2, callbacks=[qat]).fit(Validated(), loader(), loader(batch_size=24))
    # The check before training, the epoch without, the epoch with rounding.
    assert rounds == [False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_best_student_is_exported_without_calibration(classifier, teacher, loader, trainer, tmp_path, target):
    class Validated(classifier):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    module = Validated()
    saver = ModelCheckpoint(tmp_path / "ckpt", monitor="val_loss", filename="best", mode="max")
    export = ExportStudent(target, folder=str(tmp_path / "out"), student="net", precision="int8")
    qat = QuantizationAwareTraining(student="net", freeze_ranges=1.0)
    callbacks = [distillation(teacher), qat, saver, export]
    trainer(max_epochs=3, enable_checkpointing=True, callbacks=callbacks).fit(module, loader(), loader())

    artifact = export.artifacts[target]
    assert artifact.precision == "int8"
    assert artifact.audit.active("int8") > 0
    images = torch.randn(1, 3, 8, 8)
    best = classifier().net
    prepare_qat(best, images)
    state = torch.load(saver.best_model_path, weights_only=True)["state_dict"]
    best.load_state_dict({name.removeprefix("net."): value for name, value in state.items()})
    load_ranges(best, saver.best_model_path)
    (found,) = exporters.load(artifact).run({artifact.inputs[0].name: images.numpy()}).values()
    torch.testing.assert_close(torch.from_numpy(found), best.eval()(images).detach(), rtol=0, atol=0.05)


def test_the_best_weights_without_their_ranges_are_not_exported(classifier, loader, trainer, tmp_path):
    class Validated(classifier):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    saver = ModelCheckpoint(tmp_path / "ckpt", monitor="val_loss", filename="best", save_weights_only=True)
    export = ExportStudent("onnx", folder=str(tmp_path / "out"), student="net", precision="int8")
    callbacks = [QuantizationAwareTraining(student="net"), saver, export]
    with pytest.raises(SetupError, match=r"got 0 in best\.ckpt"):
        trainer(enable_checkpointing=True, callbacks=callbacks).fit(Validated(), loader(), loader())


def test_a_float_export_of_a_rounding_student_is_refused(classifier, loader, trainer, tmp_path):
    module = classifier()
    trainer(callbacks=[QuantizationAwareTraining(student="net")]).fit(module, loader())
    with pytest.raises(QuantizationError, match=r"'int8' .* got 'fp32'"):
        exporters.export(module.net, torch.randn(1, 3, 8, 8), to="onnx", path=tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_second_fit_goes_on_and_another_quantisation_is_refused(classifier, loader, trainer):
    module = classifier()
    trainer(callbacks=[QuantizationAwareTraining(student="net")]).fit(module, loader())
    handle = quantization_of(module.net)
    trainer(callbacks=[QuantizationAwareTraining(student="net")]).fit(module, loader())
    assert quantization_of(module.net) is handle
    other = QuantizationAwareTraining(FakeQuantization(weight_bits=4), student="net")
    with pytest.raises(SetupError, match=r"quantised already by .*weight_bits=8"):
        trainer(callbacks=[other]).fit(module, loader())


def test_weight_averaging_is_refused_before_and_works_after(classifier, loader, trainer):
    qat = QuantizationAwareTraining(student="net")
    with pytest.raises(SetupError, match="EMAWeightAveraging before QuantizationAwareTraining"):
        trainer(callbacks=[EMAWeightAveraging(), qat]).fit(classifier(), loader())
    module = classifier()
    trainer(callbacks=[QuantizationAwareTraining(student="net"), EMAWeightAveraging()]).fit(module, loader())
    assert quantization_of(module.net).unseen == []


def test_replaced_batch_norms_are_noticed(classifier, loader, trainer):
    class Converted(classifier):
        def configure_optimizers(self):
            self.net.body[1] = nn.BatchNorm2d(6)
            return super().configure_optimizers()

    with pytest.raises(SetupError, match="replaced after setup"):
        trainer(callbacks=[QuantizationAwareTraining(student="net")]).fit(Converted(), loader())


def test_a_share_of_a_training_without_end_is_refused(classifier, loader, trainer):
    with pytest.raises(SetupError, match=r"`freeze_ranges` .* the share 0\.5"):
        trainer(max_epochs=-1, callbacks=[QuantizationAwareTraining(student="net")]).fit(classifier(), loader())


@pytest.mark.parametrize("moment", [-1, 1.5, True, "half"])
def test_moments_out_of_range_are_refused(moment):
    with pytest.raises(SetupError, match=f"`start` .* got {moment!r}"):
        QuantizationAwareTraining(start=moment)


def test_a_plan_counts_steps_and_shares():
    plan = Plan.of({"start": 0.1, "freeze_ranges": 30, "freeze_norm": 0.5}, 100)
    assert plan == Plan(start=10, freeze_ranges=30, freeze_norm=50)
    assert [plan.rounds(9), plan.rounds(10)] == [False, True]
    assert [plan.observing(29), plan.observing(30)] == ["with_gradients", "never"]
    assert [plan.stops_norms(49), plan.stops_norms(50)] == [False, True]
    # One batch is measured in any case.
    assert Plan.of({"start": 0, "freeze_ranges": 0.0}, 100).freeze_ranges == 1


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_scales_and_ranges(tmp_path):
    script = Path(__file__).with_name("quantization_ddp_run.py")
    finished = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert first["weights"].keys() == second["weights"].keys()
    for part in ("weights", "ranges"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items()), part
    assert any("log_ratio" in name for name in first["ranges"])
