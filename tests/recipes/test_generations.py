"""Claims about `born_again` and `LogitEnsemble`."""

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError, TapError
from lightning_kd.objectives import FeatureKD, LogitKD
from lightning_kd.recipes import LogitEnsemble, born_again

IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
DATA = DataLoader(TensorDataset(IMAGES, torch.arange(8) % 4), batch_size=4)


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = timm.create_model("test_resnet", num_classes=4)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.05)


@pytest.fixture
def trainers(tmp_path):
    """A factory of Trainers, and the Trainers it made."""
    made = []

    def make(callbacks):
        made.append(
            L.Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=tmp_path,
                callbacks=callbacks,
            )
        )
        return made[-1]

    make.made = made
    return make


def teachers_of(trainers):
    callbacks = [[c for c in t.callbacks if isinstance(c, KnowledgeDistillation)] for t in trainers.made]
    return [found[0].teacher if found else None for found in callbacks]


@pytest.mark.parametrize("student", ["net", ""])
def test_each_generation_is_the_teacher_of_the_next(trainers, student):
    modules = born_again(Classifier, trainers, DATA, generations=2, student=student)
    assert len(modules) == 3
    first, *others = teachers_of(trainers)
    assert first is None
    for module, teacher in zip(modules, others, strict=False):
        own = module.net if student else module
        assert teacher is not own
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), teacher.parameters(), strict=True))


def test_generations_differ_and_can_be_trained_on(trainers):
    modules = born_again(Classifier, trainers, DATA, generations=1, student="net")
    assert not torch.equal(modules[0].net.fc.weight, modules[1].net.fc.weight)
    assert all(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_a_given_teacher_teaches_the_first_generation(trainers):
    teacher = timm.create_model("test_vit", img_size=32, num_classes=4)
    modules = born_again(Classifier, trainers, DATA, generations=2, student="net", teacher=teacher)
    assert len(modules) == 2
    assert teachers_of(trainers)[0] is teacher


def test_every_generation_has_objectives_of_its_own(trainers):
    made = []

    def make_objectives():
        made.append([LogitKD(weight=0.5), FeatureKD("layer3", "layer3")])
        return made[-1]

    born_again(Classifier, trainers, DATA, generations=2, student="net", make_objectives=make_objectives)
    assert len(made) == 2
    assert {"kd/logit", "kd/feature"} <= set(trainers.made[-1].callback_metrics)


def test_the_default_is_the_teachers_distribution_at_temperature_one(trainers):
    born_again(Classifier, trainers, DATA, generations=1, student="net")
    (objective,) = next(c for c in trainers.made[1].callbacks if isinstance(c, KnowledgeDistillation)).objectives
    assert isinstance(objective, LogitKD)
    assert (objective.temperature, objective.weight) == (1.0, 1.0)


def test_the_ensemble_is_the_mean_of_the_logits(trainers):
    modules = born_again(Classifier, trainers, DATA, generations=1, student="net")
    networks = [module.net.eval() for module in modules]
    expected = (networks[0](IMAGES) + networks[1](IMAGES)) / 2
    assert_close(LogitEnsemble(networks)(IMAGES), expected)
    program = torch.export.export(LogitEnsemble(networks).eval(), (IMAGES,))
    assert_close(program.module()(IMAGES), expected)


def test_refuses_factories_that_give_something_else(trainers):
    with pytest.raises(SetupError, match=r"`make_module` must return a LightningModule, got Linear"):
        born_again(lambda: nn.Linear(2, 2), trainers, DATA)
    with pytest.raises(SetupError, match="`make_trainer` must return a Trainer, got None"):
        born_again(Classifier, lambda callbacks: None, DATA)


def test_refuses_one_module_for_two_generations(trainers):
    module = Classifier()
    with pytest.raises(SetupError, match="`make_module` must make new weights"):
        born_again(lambda: module, trainers, DATA, generations=1, student="net")


def test_refuses_what_cannot_be_a_chain(trainers):
    with pytest.raises(ValueError, match="`generations` must be at least 1, got 0"):
        born_again(Classifier, trainers, DATA, generations=0)
    with pytest.raises(TapError, match="`nett` names no module of the LightningModule"):
        born_again(Classifier, trainers, DATA, generations=1, student="nett")
    with pytest.raises(SetupError, match="at least one network, got none"):
        LogitEnsemble([])
