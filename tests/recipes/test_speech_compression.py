"""Adaptive computation through its three phases in real fits; the other recipes have tests in tests/integration."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd.errors import SetupError
from lightning_kd.objectives import LogitKD
from lightning_kd.recipes import adaptive_computation
from lightning_kd.students import adaptive_modules, adaptive_parameters, with_adaptive_computation


class Listener(L.LightningModule):
    """Classifies audio; what it trains depends on the phase."""

    def __init__(self, net, parameters):
        super().__init__()
        self.net = net
        self.chosen = list(parameters)

    def training_step(self, batch, batch_idx):
        audio, labels = batch
        return torch.nn.functional.cross_entropy(self.net(audio).logits, labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.chosen, lr=3e-3)


@pytest.fixture
def fit(tmp_path):
    data = TensorDataset(torch.randn(8, 1600, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)

    def run(module, callback, epochs=2):
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[callback],
        )
        trainer.fit(module, DataLoader(data, batch_size=4))
        return trainer.callback_metrics

    return run


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_each_phase_trains_its_part_and_the_error_falls(speech_net, fit):
    teacher = speech_net(kind="ForSequenceClassification", num_hidden_layers=2).eval()
    student = with_adaptive_computation(teacher)
    assert next(iter(adaptive_modules(student))) == "hubert.encoder.layers.0.feed_forward"
    errors = []
    for part, phase in (("learners", 1), ("gate", 2)):
        before = states(student)
        module = Listener(student, adaptive_parameters(student, part))
        for epochs in (1, 8):
            metrics = fit(module, adaptive_computation(teacher, path="net", phase=phase), epochs)
            errors.append(metrics[f"acm_{phase}/acm_{'modules' if phase == 1 else 'gates'}"].item())
        names = changed(student, before)
        assert names
        assert all(f".{part}." in name for name in names)
    assert errors[1] < errors[0]
    assert errors[3] < errors[2]
    before = states(student)
    last = adaptive_computation(teacher, path="net", phase=3, target=0.25, objectives=[LogitKD(temperature=2.0)])
    metrics = fit(Listener(student, student.parameters()), last)
    assert {"acm_3/acm_budget", "acm_3/logit", "acm_3/task"} <= metrics.keys()
    names = changed(student, before)
    assert any(".learners." in name for name in names)
    assert any(".gate." in name for name in names)
    assert any(".attention." in name for name in names)


def test_the_third_phase_needs_no_teacher(speech_net, fit):
    student = with_adaptive_computation(speech_net(kind="ForSequenceClassification", num_hidden_layers=1))
    metrics = fit(Listener(student, student.parameters()), adaptive_computation(None, path="net", phase=3), 1)
    assert metrics["acm_3/acm_budget"].isfinite()


def test_refuses_objectives_in_the_first_phases_and_unknown_ones(speech_net):
    with pytest.raises(SetupError, match="`objectives` belong to phase 3, got them in phase 1"):
        adaptive_computation(speech_net(), phase=1, objectives=[LogitKD()])
    with pytest.raises(ValueError, match="`phase` must be one of 1, 2, 3, got 4"):
        adaptive_computation(speech_net(), phase=4)
