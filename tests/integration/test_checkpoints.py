"""Checkpoints are those of the bare module; training resumes exactly; nothing is left behind."""

import subprocess
import sys
import textwrap

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, LogitKD
from lightning_kd.errors import SetupError


def distillation(teacher, **options):
    objectives = [LogitKD(), FeatureKD("body", "block"), CKAKD("body", "block")]
    return KnowledgeDistillation(teacher, student="net", objectives=objectives, **options)


@pytest.mark.parametrize("weights_only", [False, True])
def test_checkpoint_loads_strictly_into_the_bare_module(weights_only, classifier, teacher, loader, trainer, tmp_path):
    fitted = trainer(callbacks=[distillation(teacher)])
    module = classifier()
    fitted.fit(module, loader())
    fitted.save_checkpoint(tmp_path / "student.ckpt", weights_only=weights_only)

    state = torch.load(tmp_path / "student.ckpt", weights_only=True)["state_dict"]
    bare = classifier()
    assert list(state) == list(bare.state_dict())
    bare.load_state_dict(state, strict=True)
    assert torch.equal(bare.net.head.weight, module.net.head.weight)


def test_checkpoint_saved_during_training_has_no_trace_of_the_teacher(classifier, teacher, loader, trainer, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="during", save_weights_only=True)
    trainer(callbacks=[distillation(teacher), saver], enable_checkpointing=True).fit(classifier(), loader())

    checkpoint = torch.load(tmp_path / "during.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == list(classifier().state_dict())
    assert set(checkpoint["state_dict"]._metadata) == set(classifier().state_dict()._metadata)


def test_load_from_checkpoint_needs_no_lightning_kd(classifier, teacher, loader, trainer, tmp_path):
    fitted = trainer(callbacks=[distillation(teacher)])
    fitted.fit(classifier(), loader())
    fitted.save_checkpoint(tmp_path / "student.ckpt")
    script = textwrap.dedent(
        """
        import sys
        sys.modules["lightning_kd"] = None  # importing it now raises ImportError
        sys.modules["exporters"] = None
        import lightning as L
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
                self.head = nn.Linear(6, 5)

        class Student(L.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = Net()

        print(Student.load_from_checkpoint(sys.argv[1], strict=True).net.head.weight.sum().item())
        """
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "student.ckpt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    expected = fitted.lightning_module.net.head.weight.sum().item()
    assert float(run.stdout) == pytest.approx(expected, rel=1e-6)


def test_resumed_run_equals_an_unbroken_one(classifier, cnn, teacher, loader, trainer, tmp_path):
    def start():
        torch.manual_seed(5)
        return classifier(cnn()), distillation(teacher)

    whole, whole_kd = start()
    trainer(max_epochs=3, callbacks=[whole_kd]).fit(whole, loader())

    broken, broken_kd = start()
    first = trainer(max_epochs=1, callbacks=[broken_kd])
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")

    torch.manual_seed(99)
    resumed, resumed_kd = classifier(cnn()), distillation(teacher)
    trainer(max_epochs=3, callbacks=[resumed_kd]).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )

    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    adapters = whole_kd.state_dict()["adapters"]
    assert adapters
    for name, value in adapters.items():
        assert torch.equal(value, resumed_kd.state_dict()["adapters"][name]), name


def test_checkpoint_of_other_objectives_is_refused(classifier, teacher, loader, trainer, tmp_path):
    first = trainer(callbacks=[distillation(teacher)])
    first.fit(classifier(), loader())
    first.save_checkpoint(tmp_path / "other.ckpt")
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD("head", "head")])
    with pytest.raises(SetupError, match=r"other objectives or taps than \['logit', 'feature'\]"):
        trainer(max_epochs=2, callbacks=[kd]).fit(classifier(), loader(), ckpt_path=tmp_path / "other.ckpt")


def hooks_of(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_three_fits_leave_nothing_behind(classifier, teacher, loader, trainer):
    kd, module = distillation(teacher), classifier()
    step, names = module.training_step, [name for name, _ in module.named_modules()]
    for _ in range(3):
        trainer(callbacks=[kd]).fit(module, loader())
        assert hooks_of(module) == hooks_of(teacher) == 0
        assert "training_step" not in vars(module)
        assert module.training_step == step
        assert [name for name, _ in module.named_modules()] == names
        assert not module._state_dict_hooks
        assert not module._load_state_dict_post_hooks


def test_a_crash_in_training_leaves_nothing_behind(classifier, teacher, loader, trainer):
    class Crashing(classifier):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                raise ArithmeticError("boom")
            return super().training_step(batch, batch_idx)

    module = Crashing()
    with pytest.raises(ArithmeticError, match="boom"):
        trainer(callbacks=[distillation(teacher, example_inputs=torch.randn(2, 3, 8, 8))]).fit(module, loader())
    assert hooks_of(module) == hooks_of(teacher) == 0
    assert not hasattr(module, "_kd_adapters")


def test_adapters_go_on_learning_in_a_second_fit_of_the_same_module(classifier, teacher, loader, trainer):
    kd, module = distillation(teacher), classifier()
    trainer(callbacks=[kd]).fit(module, loader())
    learnt = kd.state_dict()["adapters"]["feature.adapters.0.projection.weight"].clone()
    trainer(callbacks=[kd], max_epochs=0).fit(module, loader())
    assert torch.equal(kd.state_dict()["adapters"]["feature.adapters.0.projection.weight"], learnt)
    trainer(callbacks=[kd], max_epochs=0).fit(classifier(), loader())
    assert not torch.equal(kd.state_dict()["adapters"]["feature.adapters.0.projection.weight"], learnt)


def test_teacher_does_not_move(classifier, teacher, loader, trainer, weights):
    teacher.register_module("norm", torch.nn.BatchNorm1d(5))
    forward = teacher.forward
    teacher.forward = lambda x: teacher.norm(forward(x))
    before = weights(teacher)
    module = classifier()
    trainer(callbacks=[distillation(teacher.train())]).fit(module, loader())
    assert not teacher.training
    for name, value in before.items():
        assert torch.equal(value, teacher.state_dict()[name]), name
    assert not set(map(id, module.parameters())) & set(map(id, teacher.parameters()))
