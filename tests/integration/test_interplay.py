"""Distillation beside what users already have: averaging, compilation, clipping, checkpointing, odd steps."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_kd import Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Ramp, Tap
from lightning_kd.errors import SetupError, TapError, TermError


class Record(L.Callback):
    """Every value that was logged, step by step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def distillation(teacher, **options):
    defaults = {"student": "net", "objectives": [LogitKD(), FeatureKD("body", "block")]}
    return KnowledgeDistillation(teacher, **{**defaults, **options})


def fit(trainer, module, loader, *callbacks, **options):
    record = Record()
    trainer(callbacks=[*callbacks, record], **options).fit(module, loader())
    return record.steps


def test_terms_weights_task_and_total_are_logged(classifier, teacher, loader, trainer):
    kd = distillation(
        teacher, objectives=[LogitKD(weight=0.9), FeatureKD("body", "block", weight=0.5)], task_weight=0.1
    )
    step = fit(trainer, classifier(), loader, kd)[0]
    assert set(step) == {
        f"kd/{name}" for name in ("task", "task_weight", "logit", "logit_weight", "feature", "feature_weight", "total")
    }
    expected = 0.1 * step["kd/task"] + 0.9 * step["kd/logit"] + 0.5 * step["kd/feature"]
    assert step["kd/total"] == pytest.approx(expected, rel=1e-6)
    assert step["kd/logit_weight"] == pytest.approx(0.9)


def test_a_changing_weight_is_logged_whenever_loggers_record(classifier, teacher, loader, trainer):
    kd = distillation(teacher, objectives=[LogitKD(weight=Ramp(0.0, 1.0, over=5, unit="step"))])
    steps = fit(trainer, classifier(), loader, kd, log_every_n_steps=3)
    weights = [step["kd/logit_weight"] for step in steps]
    assert weights == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.4, 1.0])
    values = [step["kd/total"] - step["kd/task"] for step in steps]
    assert "kd/logit" not in steps[0]
    assert values == pytest.approx([step.get("kd/logit", 0.0) * i / 5 for i, step in enumerate(steps)], abs=1e-5)


@pytest.mark.parametrize("averaging", [WeightAveraging, EMAWeightAveraging])
def test_averaging_after_distillation_works_and_saves_the_bare_average(
    averaging, classifier, teacher, loader, trainer, tmp_path
):
    steps = fit(trainer, classifier(), loader, distillation(teacher), averaging())
    assert all(step["kd/logit"] > 0 for step in steps)
    module = classifier()
    fitted = trainer(callbacks=[distillation(teacher), averaging()], max_epochs=1)
    fitted.fit(module, loader())
    fitted.save_checkpoint(tmp_path / "average.ckpt")
    state = torch.load(tmp_path / "average.ckpt", weights_only=True)["state_dict"]
    assert list(state) == list(classifier().state_dict())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_with_averaging_resumes(classifier, teacher, loader, trainer, tmp_path):
    def run(epochs, **options):
        torch.manual_seed(2)
        module = classifier()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        callbacks = [distillation(teacher), EMAWeightAveraging(decay=0.5), saver]
        trainer(callbacks=callbacks, max_epochs=epochs, enable_checkpointing=True).fit(module, loader(), **options)
        return module

    run(1)
    resumed = run(2, ckpt_path=tmp_path / "epoch=0.ckpt")
    whole = run(2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("averaging", [EMAWeightAveraging, lambda: StochasticWeightAveraging(swa_lrs=0.01)])
def test_averaging_before_distillation_is_refused(averaging, classifier, teacher, loader, trainer):
    with pytest.raises(SetupError, match="before KnowledgeDistillation"):
        fit(trainer, classifier(), loader, averaging(), distillation(teacher))


def test_stochastic_weight_averaging_after_distillation_works(classifier, teacher, loader, trainer):
    swa = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    steps = fit(trainer, classifier(), loader, distillation(teacher), swa, max_epochs=3)
    assert len(steps) >= 18
    assert steps[-1]["kd/feature"] > 0


def trained(trainer, module, loader, teacher):
    torch.manual_seed(11)
    steps = fit(trainer, module, loader, distillation(copy.deepcopy(teacher)))
    return steps, module


@pytest.mark.slow
@pytest.mark.parametrize("how", ["network", "network that ran before", "module", "module that ran before"])
def test_compiled_students_distil_like_eager_ones(how, classifier, cnn, teacher, loader, trainer):
    torch.compiler.reset()
    torch.manual_seed(4)
    net = cnn()
    eager, _ = trained(trainer, classifier(copy.deepcopy(net)), loader, teacher)
    module = classifier(torch.compile(net, backend="aot_eager") if how.startswith("network") else net)
    if how.startswith("module"):
        module = torch.compile(module, backend="aot_eager")
    if how.endswith("before"):
        module.train()
        before = copy.deepcopy(net.state_dict())
        next_batch = next(iter(loader()))
        module.training_step(next_batch, 0) if how.startswith("module") else module(next_batch[0])
        net.load_state_dict(before)
    compiled, _ = trained(trainer, module, loader, teacher)
    for ours, reference in zip(compiled, eager, strict=True):
        assert ours == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradient_clipping_reaches_the_adapters(algorithm, classifier, teacher, loader, trainer):
    norms = []

    class Watch(L.Callback):
        def on_before_optimizer_step(self, tr, module, optimizer):
            norms.append([p.grad.norm().item() for p in module._kd_adapters.parameters()])

        def on_before_zero_grad(self, tr, module, optimizer):
            grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            if grads:
                norms.append([torch.cat([g.flatten() for g in grads]).abs().max().item()])

    clip = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    fit(trainer, classifier(), loader, distillation(teacher), Watch(), **clip)
    before_clipping = [n for n in norms if len(n) == 2]
    assert any(norm > 1e-3 for pair in before_clipping for norm in pair)
    assert all(n[0] <= 1e-3 + 1e-9 for n in norms if len(n) == 1)


class Checkpointed(nn.Module):
    """A network whose body is recomputed in the backward pass."""

    def __init__(self, net, *, use_reentrant):
        super().__init__()
        self.body, self.head, self.use_reentrant = net.body, net.head, use_reentrant

    def forward(self, x):
        feature = checkpoint(self.body, x.requires_grad_(), use_reentrant=self.use_reentrant)
        return self.head(feature.mean((2, 3)))


def test_activation_checkpointing_trains_the_same_weights(classifier, cnn, teacher, loader, trainer):
    torch.manual_seed(8)
    net = cnn()
    net.body[1] = nn.Identity()  # BatchNorm's statistics would move twice, with or without distillation
    plain = classifier(copy.deepcopy(net))
    trained(trainer, plain, loader, teacher)
    recomputed = classifier(Checkpointed(copy.deepcopy(net), use_reentrant=False))
    trained(trainer, recomputed, loader, teacher)
    assert torch.equal(plain.net.body[0].weight, recomputed.net.body[0].weight)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_of_a_tap_is_refused(classifier, cnn, teacher, loader, trainer):
    inside = distillation(teacher, objectives=[FeatureKD("body.1", "block")])
    with pytest.raises(TermError, match="use_reentrant=False"):
        fit(trainer, classifier(Checkpointed(cnn(), use_reentrant=True)), loader, inside)


def test_a_student_called_twice_is_distilled_on_both_calls(classifier, teacher, loader, trainer):
    class TwoViews(classifier):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.net(x), y) + F.cross_entropy(self.net(-x), y)

    seen = []
    handle = teacher.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    steps = fit(trainer, TwoViews(), loader, distillation(teacher, objectives=[LogitKD()]), max_steps=1)
    handle.remove()
    assert len(seen) == 2
    assert torch.equal(seen[0], -seen[1])
    assert steps[0]["kd/logit"] > 0


def test_term_of_several_calls_is_their_mean(cnn, teacher):
    net, x = cnn(), torch.randn(4, 3, 8, 8)
    net.eval()
    distiller = Distiller(net, teacher)

    def term(*inputs):
        with distiller.watch() as calls:
            loss = sum(net(i).sum() for i in inputs)
        return distiller.losses(loss, calls).terms["logit"].item()

    assert term(x, -x) == pytest.approx((term(x) + term(-x)) / 2, rel=1e-6)


def test_calls_without_gradients_are_not_distilled(cnn, teacher):
    net, x = cnn(), torch.randn(4, 3, 8, 8)
    distiller = Distiller(net, teacher)
    with distiller.watch() as calls:
        with torch.no_grad():
            net(torch.zeros_like(x))
        net(x)
    assert [call.inputs.args[0] is x for call in calls] == [True]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("kind", ["tensor", "dict", "none"])
def test_training_step_may_return_tensor_dict_or_none(kind, classifier, teacher, loader, trainer):
    class Kinds(classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if kind == "dict":
                return {"loss": loss, "extra": batch_idx}
            return None if kind == "none" and batch_idx == 1 else loss

    outputs = []

    class Watch(L.Callback):
        def on_train_batch_end(self, tr, module, output, batch, batch_idx):
            outputs.append(output)

    steps = fit(trainer, Kinds(), loader, distillation(teacher), Watch())
    if kind == "dict":
        assert [output["extra"] for output in outputs] == list(range(6))
        assert outputs[0]["loss"].item() == pytest.approx(steps[0]["kd/total"])
    assert len(steps) == 6


def test_other_results_of_training_step_are_refused(classifier, teacher, loader, trainer):
    class Listing(classifier):
        def training_step(self, batch, batch_idx):
            return [super().training_step(batch, batch_idx)]

    with pytest.raises(SetupError, match="training_step must return a tensor, a dict"):
        fit(trainer, Listing(), loader, distillation(teacher))


def test_a_tap_before_an_inplace_activation_reads_what_the_module_gave(cnn, teacher):
    net, x = cnn(), torch.randn(4, 3, 8, 8)
    distiller = Distiller(net, teacher, [FeatureKD("body.1", "block")]).build([x])
    with distiller.watch() as calls:
        net(x)
    feature = calls[0].features[Tap("body.1")]
    assert feature.min() < 0
    torch.testing.assert_close(feature.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)


def test_an_inplace_change_that_the_dry_run_did_not_show_is_refused(cnn, teacher):
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.inplace = cnn(), False

        def forward(self, x):
            feature = self.net.body[0](x)
            if self.inplace:
                feature += 1
            return self.net.head(feature.mean((2, 3)))

    late, x = Late(), torch.randn(4, 3, 8, 8)
    distiller = Distiller(late, teacher, [FeatureKD("net.body.0", "block")]).build([x])
    late.inplace = True
    with pytest.raises(TapError, match=r"'net\.body\.0' was changed in place"), distiller.watch():
        late(x)


def test_frozen_layers_are_refused_unless_allowed(classifier, teacher, loader, trainer):
    module = classifier()
    module.net.body.requires_grad_(False)
    with pytest.raises(TermError, match=r"tap 'body' carries no gradient.*allow=\('frozen',\)"):
        fit(trainer, module, loader, distillation(teacher))
    steps = fit(trainer, module, loader, distillation(teacher, allow=("frozen",)))
    assert steps[0]["kd/feature"] > 0


def test_a_student_that_starts_as_its_teacher_is_refused_unless_allowed(classifier, cnn, loader, trainer):
    net = cnn()
    net.body[1] = nn.Identity()
    same = copy.deepcopy(net)
    with pytest.raises(TermError, match=r"'logit' is exactly 0 on the first step.*allow=\('zero',\)"):
        fit(trainer, classifier(net), loader, KnowledgeDistillation(same, student="net"))
    steps = fit(trainer, classifier(net), loader, KnowledgeDistillation(same, student="net", allow=("zero",)))
    assert steps[0]["kd/logit"] == 0
    assert steps[-1]["kd/logit"] > 0


def test_two_teachers_distil_side_by_side(classifier, cnn, teacher, loader, trainer):
    first, second = distillation(teacher), distillation(cnn(), name="second", objectives=[FeatureKD("body", "body")])
    step = fit(trainer, classifier(), loader, first, second)[0]
    assert step["second/task"] == pytest.approx(step["kd/total"], rel=1e-6)
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `KnowledgeDistillation`"):
        fit(trainer, classifier(), loader, distillation(teacher), distillation(cnn(), objectives=[LogitKD()]))
