"""Distillation in a module's own step, in a bare loop and under Fabric: one Distiller, the same numbers."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from lightning_kd import DistillationMixin, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Ramp
from lightning_kd.errors import SetupError


def objectives():
    return [LogitKD(weight=0.9), FeatureKD("body", "block", weight=Ramp(0.1, 0.5, over=4, unit="step"))]


def manual_module(teacher, net, adapters=None):
    class Manual(DistillationMixin, L.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = net
            self.setup_distillation(
                teacher, student="net", objectives=objectives(), example_inputs=torch.zeros(2, 3, 8, 8), task_weight=0.1
            )

        def training_step(self, batch, batch_idx):
            x, y = batch
            with self.distill() as calls:
                task_loss = F.cross_entropy(self.net(x), y)
            losses = self.distillation_losses(task_loss, calls)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(losses.total)
            optimizer.step()

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)

    module = Manual()
    if adapters is not None:
        module.distiller.adapters.load_state_dict(adapters)
    return module


def test_mixin_callback_bare_loop_and_fabric_train_the_same_weights(classifier, cnn, teacher, loader, trainer):
    torch.manual_seed(3)
    net = cnn()
    manual = manual_module(teacher, copy.deepcopy(net))
    adapters = copy.deepcopy(manual.distiller.adapters.state_dict())
    trainer().fit(manual, loader())

    class Plain(classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)

    class SameAdapters(L.Callback):
        def on_train_start(self, tr, module):
            module._kd_adapters.load_state_dict(adapters)

    automatic = Plain(copy.deepcopy(net))
    kd = KnowledgeDistillation(teacher, student="net", objectives=objectives(), task_weight=0.1)
    trainer(callbacks=[kd, SameAdapters()]).fit(automatic, loader())

    bare, fabric = (
        loop(copy.deepcopy(net), teacher, adapters, loader(), use_fabric=use_fabric) for use_fabric in (False, True)
    )
    for name, value in manual.net.state_dict().items():
        assert torch.equal(value, automatic.net.state_dict()[name]), name
        assert torch.equal(value, bare.state_dict()[name]), name
        assert torch.equal(value, fabric.state_dict()[name]), name
    assert not torch.equal(manual.net.head.weight, net.head.weight)


def loop(net, teacher, adapters, batches, *, use_fabric):
    from lightning_kd import Progress

    distiller = Distiller(net, teacher, objectives(), task_weight=0.1).build([torch.zeros(2, 3, 8, 8)])
    distiller.adapters.load_state_dict(adapters)
    parameters = [*net.parameters(), *distiller.adapters.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    model, backward = net, torch.Tensor.backward
    if use_fabric:
        fabric = L.Fabric(accelerator="cpu", devices=1)
        model, optimizer = fabric.setup(net, optimizer)
        batches, backward = fabric.setup_dataloaders(batches), fabric.backward
    for step, (x, y) in enumerate(batches):
        with distiller.watch() as calls:
            task_loss = F.cross_entropy(model(x), y)
        losses = distiller.losses(task_loss, calls, Progress(step=step))
        optimizer.zero_grad()
        backward(losses.total)
        optimizer.step()
    distiller.detach()
    return net


def test_terms_are_logged_by_the_mixin(cnn, teacher, loader, trainer):
    fitted = trainer(log_every_n_steps=6)
    fitted.fit(manual_module(teacher, cnn()), loader())
    assert fitted.callback_metrics["kd/logit"] > 0
    assert fitted.callback_metrics["kd/feature_weight"].item() == pytest.approx(0.5)
    assert fitted.global_step == 6


def test_a_manual_run_resumes_exactly_and_its_checkpoint_is_bare(cnn, teacher, loader, trainer, tmp_path):
    torch.manual_seed(1)
    net = cnn()
    torch.manual_seed(2)
    whole = manual_module(teacher, copy.deepcopy(net))
    trainer(max_epochs=2).fit(whole, loader())
    torch.manual_seed(2)
    first = trainer(max_epochs=1)
    first.fit(manual_module(teacher, copy.deepcopy(net)), loader())
    first.save_checkpoint(tmp_path / "full.ckpt")
    first.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    resumed = manual_module(teacher, cnn())
    trainer(max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "full.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    full, weights = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("full", "weights"))
    assert list(full["state_dict"]) == [f"net.{name}" for name in net.state_dict()]
    assert "lightning_kd" in full
    assert "lightning_kd" not in weights


def test_what_the_mixin_misses_is_said(cnn, teacher):
    class Forgetful(DistillationMixin, L.LightningModule):
        def __init__(self, **options):
            super().__init__()
            self.net = cnn()
            if options:
                self.setup_distillation(teacher, **options)

    with pytest.raises(SetupError, match=r"call self.setup_distillation\(teacher, ...\) in Forgetful.__init__"):
        _ = Forgetful().distiller
    with pytest.raises(SetupError, match="`example_inputs` is needed"):
        Forgetful(student="net", objectives=[FeatureKD("body", "block")])
    unbuilt = Distiller(cnn(), teacher, objectives())
    with pytest.raises(SetupError, match=r"build\(\[example_input\]\)"), unbuilt.watch():
        pass
    with pytest.raises(SetupError, match="was not called with gradients while watched"):
        Distiller(cnn(), teacher).losses(torch.zeros(()), [])
