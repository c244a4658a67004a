"""The callback that measures drafts, in real validation loops."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd.callbacks import SpeculativeAcceptance
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.speculative import draft_quality

WIDTH, TOKENS = 4, 6


class Module(L.LightningModule):
    def __init__(self, net, calls=True):
        super().__init__()
        self.net, self.calls = net, calls

    def training_step(self, batch):
        return F.cross_entropy(self.net(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=-100)

    def validation_step(self, batch):
        if self.calls:
            self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


@pytest.fixture
def data():
    labels = torch.randint(TOKENS, (6, 3))
    labels[::2, 2] = -100
    return TensorDataset(torch.randn(6, 3, WIDTH), labels)


def trainer(callback, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(accelerator="cpu", callbacks=[callback], enable_model_summary=False, **quiet, **options)


def expected(student, teacher, data, batches=None):
    inputs, labels = data.tensors
    count = len(inputs) if batches is None else 2 * batches
    with torch.no_grad():
        return draft_quality(student(inputs[:count]), teacher(inputs[:count]), labels[:count] != -100)


@pytest.mark.parametrize("batches", [None, 2])
def test_logs_the_quality_over_all_validation_tokens(data, batches):
    student, teacher = nn.Linear(WIDTH, TOKENS), nn.Linear(WIDTH, TOKENS)
    callback = SpeculativeAcceptance(teacher, student="net", drafted=4, batches=batches)
    run = trainer(callback)
    run.validate(Module(student), DataLoader(data, batch_size=2), verbose=False)
    quality = expected(student, teacher, data, batches)
    assert callback.report.tokens == quality.tokens
    assert callback.report.acceptance == pytest.approx(quality.acceptance, rel=1e-6)
    assert callback.report.agreement == pytest.approx(quality.agreement, rel=1e-6)
    assert float(run.callback_metrics["speculative/acceptance"]) == pytest.approx(quality.acceptance, rel=1e-6)
    assert float(run.callback_metrics["speculative/tokens_per_pass"]) == pytest.approx(quality.tokens_per_pass(4))


def test_measures_after_training_and_leaves_no_hook(data):
    student, teacher = nn.Linear(WIDTH, TOKENS), nn.Linear(WIDTH, TOKENS)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    callback = SpeculativeAcceptance(teacher, student="net")
    loader = DataLoader(data, batch_size=2)
    trainer(callback, max_epochs=2, num_sanity_val_steps=0).fit(Module(student), loader, loader)
    assert callback.report.acceptance == pytest.approx(expected(student, teacher, data).acceptance, rel=1e-5)
    assert not student._forward_hooks
    assert not student._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_student_that_is_its_teacher_drafts_perfectly(data):
    student, teacher = nn.Linear(WIDTH, TOKENS), nn.Linear(WIDTH, TOKENS)
    teacher.load_state_dict(student.state_dict())
    callback = SpeculativeAcceptance(teacher, student="net", drafted=3)
    trainer(callback).validate(Module(student), DataLoader(data, batch_size=2), verbose=False)
    assert callback.report.acceptance == pytest.approx(1.0)
    assert callback.report.tokens_per_pass(3) == pytest.approx(4.0)


def test_refuses_another_vocabulary_and_a_student_that_does_not_run(data):
    loader = DataLoader(data, batch_size=2)
    other = SpeculativeAcceptance(nn.Linear(WIDTH, TOKENS + 1), student="net")
    with pytest.raises(ShapeError, match=rf"`teacher` has {TOKENS + 1} tokens and the student {TOKENS}"):
        trainer(other).validate(Module(nn.Linear(WIDTH, TOKENS)), loader, verbose=False)
    idle = SpeculativeAcceptance(nn.Linear(WIDTH, TOKENS), student="net")
    with pytest.raises(SetupError, match=r"`student='net'` did not run in validation_step"):
        trainer(idle).validate(Module(nn.Linear(WIDTH, TOKENS), calls=False), loader, verbose=False)
    with pytest.raises(ValueError, match=r"`drafted` must be .* got 0"):
        SpeculativeAcceptance(nn.Linear(1, 1), drafted=0)
