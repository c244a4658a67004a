"""Claims about `Stage` and `in_stages`: objectives that take turns in one fit."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import KnowledgeDistillation, Progress, recipes
from lightning_kd.errors import SetupError
from lightning_kd.objectives import FeatureKD, LogitKD
from lightning_kd.recipes import Stage, in_stages
from lightning_kd.schedules import Ramp, weight_at
from lightning_kd.students import MaskedAutoencoder, with_distillation_token

IMAGES, LABELS = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(4)
LOADER = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4)


def hint_then_logits(first=2):
    return in_stages(Stage([FeatureKD("layer4", "blocks.5")], epochs=first), Stage([LogitKD()]))


def weights(objectives, epoch):
    return [weight_at(objective.weight, Progress(epoch=epoch)) for objective in objectives]


class Classifier(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Record(L.Callback):
    """What was logged in each epoch of one batch."""

    def __init__(self):
        self.epochs = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.epochs.append({key: value.item() for key, value in trainer.callback_metrics.items()})


@pytest.fixture
def fit(net, tmp_path):
    """Train a new student on the same teacher, both with the same weights every time."""

    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        student, teacher, record = net("test_resnet"), net("test_vit"), Record()
        kd = KnowledgeDistillation(teacher, student="net", objectives=hint_then_logits())
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[kd, record, ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)],
        )
        trainer.fit(Classifier(student), LOADER, ckpt_path=checkpoint)
        return student, kd, record.epochs

    return run


def test_each_stage_works_in_its_own_epochs():
    objectives = in_stages(
        Stage([FeatureKD("a", "b", weight=2.0), LogitKD(weight=0.5)], epochs=1),
        Stage([LogitKD(name="harder")], epochs=3),
        Stage([LogitKD(name="last")]),
    )
    assert [objective.name for objective in objectives] == ["feature", "logit", "harder", "last"]
    expected = {0: [2.0, 0.5, 0.0, 0.0], 1: [0.0, 0.0, 1.0, 0.0], 3: [0.0, 0.0, 1.0, 0.0], 4: [0.0, 0.0, 0.0, 1.0]}
    assert {epoch: weights(objectives, epoch) for epoch in expected} == expected


def test_after_a_last_stage_with_a_length_every_objective_rests():
    objectives = in_stages(Stage([LogitKD()], epochs=2))
    assert [weights(objectives, epoch) for epoch in (1, 2)] == [[1.0], [0.0]]


def test_a_schedule_goes_on_counting_from_the_start_of_training():
    _, logit = in_stages(Stage([FeatureKD("a", "b")], 4), Stage([LogitKD(weight=Ramp(0.0, 1.0, over=8))]))
    assert [weight_at(logit.weight, Progress(epoch=epoch)) for epoch in (2, 4, 8)] == [0.0, 0.5, 1.0]


def test_what_is_logged_changes_at_the_boundary(fit):
    epochs = fit(4)[2]
    assert epochs[0]["kd/feature_weight"] == 1.0
    assert ["kd/logit" in epoch for epoch in epochs] == [False, False, True, True]
    terms = [epoch["kd/total"] - epoch["kd/task"] for epoch in epochs]
    logged = [epoch["kd/feature"] for epoch in epochs[:2]] + [epoch["kd/logit"] for epoch in epochs[2:]]
    assert terms == pytest.approx(logged, rel=1e-4)
    assert epochs[3]["kd/feature"] == epochs[1]["kd/feature"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resuming_in_the_second_stage_equals_going_on(fit, tmp_path):
    student, kd, epochs = fit(5)
    resumed, resumed_kd, last = fit(5, tmp_path / "epoch=2.ckpt")
    assert [epoch["kd/logit"] for epoch in last] == [epoch["kd/logit"] for epoch in epochs[3:]]
    assert not any("kd/feature" in epoch for epoch in last)
    for key, value in student.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)
    for key, value in kd.state_dict()["adapters"].items():
        assert torch.equal(resumed_kd.state_dict()["adapters"][key], value)


class PaintThenClassify(L.LightningModule):
    """The module that G2SD is for: its own loss changes with the stage."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.reached = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        if self.current_epoch == 0:
            return self.net(images, self.net.noise(images)).patches.square().mean()
        return F.cross_entropy(self.net.encoder(images)[0], labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_before_optimizer_step(self, optimizer):
        self.reached.append({n for n, p in self.net.named_parameters() if p.grad is not None and p.grad.any()})


def test_g2sd_teaches_the_decoder_first_and_then_the_distillation_token(net, tmp_path):
    settings = {"decoder_width": 32, "decoder_depth": 4, "decoder_heads": 4}
    student = MaskedAutoencoder(with_distillation_token(net("test_vit")), **settings)
    generic, specific = MaskedAutoencoder(net("test_vit3", classes=0), **settings), net("test_resnet")
    record, module = Record(), PaintThenClassify(student)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[*recipes.g2sd(generic, specific, path="net", generic_epochs=1), record],
    )
    trainer.fit(module, LOADER)
    first, second = record.epochs
    # The first stage is the generic term alone; the second halves its own loss and the token's.
    assert first["specific/total"] == pytest.approx(first["generic/g2sd"])
    assert "specific/deit" not in first
    assert second["specific/total"] == pytest.approx((second["generic/task"] + second["specific/deit"]) / 2)
    decoder, token = "decoder.blocks.0.mlp.fc1.weight", "encoder.head_dist.weight"
    assert [decoder in reached for reached in module.reached] == [True, False]
    assert [token in reached for reached in module.reached] == [False, True]


def test_refuses_stages_that_cannot_be():
    with pytest.raises(SetupError, match="at least one objective, got an empty sequence"):
        Stage([])
    with pytest.raises(ValueError, match="`epochs` must be a finite number above 0, got 0"):
        Stage([LogitKD()], epochs=0)
    with pytest.raises(SetupError, match="`epochs` of stage 0 must be given, because another stage follows"):
        in_stages(Stage([LogitKD()]), Stage([LogitKD(name="other")], epochs=1))


def test_refuses_one_objective_in_two_stages_and_no_stage(net):
    shared = LogitKD()
    with pytest.raises(SetupError, match="two terms named 'logit': give each its own name"):
        KnowledgeDistillation(net("test_vit"), objectives=in_stages(Stage([shared], epochs=1), Stage([shared])))
    with pytest.raises(SetupError, match="at least one objective, got an empty list"):
        KnowledgeDistillation(net("test_vit"), objectives=in_stages())
