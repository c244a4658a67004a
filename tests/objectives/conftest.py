"""Three real steps of a real Trainer on a pair of timm networks, and what must have happened."""

import copy
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import FrozenTeacher, KnowledgeDistillation
from lightning_kd.adapters import Probe
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation


class Classifier(L.LightningModule):
    """What a user has. A student that returns several outputs in training is trained on the first."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.gradients = set()

    def training_step(self, batch, batch_idx):
        output = self.net(batch[0])
        first = output if isinstance(output, Tensor) else next(iter(output))
        return F.cross_entropy(first, batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_after_backward(self):
        for name, parameter in self.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                self.gradients.add(name)


@pytest.fixture
def net():
    """Small timm networks by name, with random weights."""

    def make(name, *, pixels=64, classes=10, **settings):
        size = {"img_size": pixels} if any(part in name for part in ("vit", "swin", "deit", "mixer", "resmlp")) else {}
        return timm.create_model(name, num_classes=classes, **size, **settings)

    return make


@pytest.fixture
def train_three_steps(tmp_path):
    """Distil for three steps; return the trained network, the callback and the module."""

    def train(
        student,
        teacher,
        objectives,
        *,
        pixels=64,
        classes=10,
        batch_size=4,
        dataset=None,
        idle=(),
        check_student=True,
        **settings,
    ):
        """``idle`` are parts of names of adapter parameters that need not learn in three steps."""
        inner = teacher.module if isinstance(teacher, FrozenTeacher) else teacher
        before = None if inner is None else copy.deepcopy(inner.state_dict())
        keys = list(student.state_dict())
        module = Classifier(student)
        kd = KnowledgeDistillation(teacher, student="net", objectives=objectives, **settings)
        if dataset is None:
            images, labels = torch.randn(3 * batch_size, 3, pixels, pixels), torch.arange(3 * batch_size) % classes
            dataset = TensorDataset(images, labels)
        trainer = L.Trainer(
            max_steps=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[kd],
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive class|GPU available but not used")
            trainer.fit(module, DataLoader(dataset, batch_size=batch_size))
        assert trainer.global_step == 3
        adapters = {name for name, p in kd._distiller.adapters.named_parameters() if p.requires_grad}
        learnt = {name.removeprefix("_kd_adapters.") for name in module.gradients if name.startswith("_kd_adapters.")}
        silent = {name for name in adapters - learnt if not any(part in name for part in idle)}
        assert not silent, f"adapters without gradient: {sorted(silent)}"
        assert not check_student or any(name.startswith("net.") for name in module.gradients)
        assert list(student.state_dict()) == keys
        assert all(bool(p.isfinite().all()) for p in student.parameters())
        if before is not None:
            after = inner.state_dict()
            assert all(torch.equal(after[key], value) for key, value in before.items())
            assert all(p.grad is None for p in inner.parameters())
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        return SimpleNamespace(net=student, kd=kd, module=module, metrics=metrics)

    return train


@pytest.fixture
def student_gradient():
    """Gradient of the term alone, without the task loss: which of the student's parameters does it reach?"""

    def gradient(distiller, images, batch=None):
        with distiller.watch() as calls:
            distiller.student(images)
        losses = distiller.losses(images.new_zeros(()), calls, batch=batch)
        losses.total.backward()
        return {
            name
            for name, parameter in distiller.student.named_parameters()
            if parameter.grad is not None and bool(parameter.grad.ne(0).any())
        }

    return gradient


@pytest.fixture
def over_features():
    """Build an objective from features instead of networks; return the term as a function of features."""

    def observe(taps, features):
        return Observation(
            Inputs((torch.zeros(len(features[0]), 3, 64, 64),)), None, dict(zip(taps, features, strict=True))
        )

    def probe(taps, features):
        return Probe(nn.ModuleDict({tap.path: nn.Identity() for tap in taps if tap.path}), observe(taps, features))

    def build(objective, students, teachers):
        taps = objective.student_taps, objective.teacher_taps
        objective.build(probe(taps[0], students), probe(taps[1], teachers))

        def term(students, teachers, **step):
            return objective(observe(taps[0], students), observe(taps[1], teachers), Step(**step))

        return term

    return build
