"""Recipes for several teachers, for the student's own past, and for students that teach each other."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import EMATeacher, EnsembleTeacher, FrozenTeacher, KnowledgeDistillation, Progress, recipes
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.objectives import DiscriminatorKD, LogitKD
from lightning_kd.recipes import ground_truth_weight
from lightning_kd.schedules import weight_at
from lightning_kd.teachers import PastTeacher

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Segmenter(L.LightningModule):
    """A residual network that classifies every position of its last map."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch):
        images, labels = batch
        scores = F.interpolate(self.net(images), size=labels.shape[1:], mode="bilinear")
        return F.cross_entropy(scores, labels, ignore_index=255)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


@pytest.mark.parametrize("adversary", ["none", "reversed", "joint"])
def test_meal_v2_trains_by_the_mean_of_the_teachers(adversary, net, distil_three_steps):
    teachers = [net("test_vit"), net("test_resnet")]
    kd = recipes.meal_v2(teachers, path="net", adversary=adversary)
    assert kd.task_weight == 0.0
    assert [type(term) for term in kd.objectives] == [LogitKD, DiscriminatorKD][: 1 if adversary == "none" else 2]
    _, metrics = distil_three_steps(net("test_convnext"), [kd])
    assert metrics["kd/logit"] > 0


def test_unic_trains_on_the_tokens_of_two_transformers(net, distil_three_steps):
    student = net("test_vit")
    kd = recipes.unic({"plain": net("test_vit"), "other": net("test_vit2")}, student, path="net")
    term = kd.objectives[0]
    assert [tap.path for tap in term.student_taps] == [f"blocks.{index}" for index in range(len(student.blocks))]
    assert [tap.path for tap in term.teacher_taps] == ["plain.norm", "other.norm"]
    # The head classifies, and UNIC does not.
    _, metrics = distil_three_steps(student, [kd])
    assert metrics["kd/unic"] > 0
    with pytest.raises(SetupError, match="must be a plain transformer of a known family, got ResNet"):
        recipes.unic({"plain": net("test_vit")}, net("test_resnet"))


def test_momentum_distillation_mixes_labels_and_average(net, fit_three_steps):
    kd = recipes.momentum_distillation(path="net", momentum=0.5)
    assert isinstance(kd.teacher, EMATeacher)
    shares = [
        (weight_at(kd.objectives[0].weight, p), weight_at(kd.task_weight, p)) for p in (Progress(), Progress(0, 5))
    ]
    assert shares == [(0.0, 1.0), (pytest.approx(0.4), pytest.approx(0.6))]
    kd.objectives[0].weight = kd.task_weight = 0.5
    student = net("test_resnet")
    _, metrics = fit_three_steps(student, [kd])
    assert metrics["kd/logit"] > 0
    assert not torch.equal(kd.teacher.module.fc.weight, student.fc.weight)
    with pytest.raises(ValueError, match=r"`share` must be a number from 0 to 1, got 1\.5"):
        recipes.momentum_distillation(share=1.5)


def test_progressive_self_distillation_trusts_the_past_more_and_more():
    kd = recipes.progressive_self_distillation(10, path="net")
    assert isinstance(kd.teacher, PastTeacher)
    for epoch, share in [(0, 0.0), (5, 0.4), (10, 0.8)]:
        assert weight_at(kd.objectives[0].weight, Progress(epoch=epoch)) == pytest.approx(share)
        assert weight_at(kd.task_weight, Progress(epoch=epoch)) == pytest.approx(1 - share)


def quick_fit(module, batches, tmp_path):
    trainer = L.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches)
    return trainer.callback_metrics


@pytest.mark.parametrize("order", ["together", "in_turn"])
def test_deep_mutual_learning_of_two_architectures(order, net, tmp_path):
    class Student(Segmenter):
        def training_step(self, batch):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    students = {"cnn": Student(net("test_resnet")), "vit": Student(net("test_vit"))}
    mutual = recipes.deep_mutual_learning(students, path="net", order=order)
    batches = DataLoader(TensorDataset(IMAGES, torch.arange(4)), batch_size=2)
    metrics = quick_fit(mutual, batches, tmp_path)
    assert metrics["cnn_from_vit/logit"] > 0
    assert metrics["vit_from_cnn/logit"] > 0


def test_collaborative_students_learn_pixels_regions_and_low_layers(net, tmp_path):
    from timm.models.resnet import BasicBlock, ResNet
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    class DenseResNet(ResNet):
        def forward(self, x):
            return self.fc(self.forward_features(x).movedim(1, -1)).movedim(-1, 1)

    class Transformer(Segmenter):
        def training_step(self, batch):
            scores = F.interpolate(self.net(batch[0]).logits, size=batch[1].shape[1:], mode="bilinear")
            return F.cross_entropy(scores, batch[1], ignore_index=255)

    widths, heads = [8, 16, 24, 32], [1, 1, 2, 4]
    config = SegformerConfig(
        num_labels=5, depths=[1] * 4, hidden_sizes=widths, num_attention_heads=heads, decoder_hidden_size=16
    )
    students = {
        "cnn": Segmenter(DenseResNet(BasicBlock, (1, 1, 1, 1), num_classes=5)),
        "vit": Transformer(SegformerForSemanticSegmentation(config)),
    }
    images, labels = torch.randn(4, 3, 128, 128), torch.randint(5, (4, 128, 128))
    mutual = recipes.collaborative_students(students, images[:2], path="net")
    metrics = quick_fit(mutual, DataLoader(TensorDataset(images, labels), batch_size=2), tmp_path)
    for pair in ("cnn_from_vit", "vit_from_cnn"):
        assert metrics[f"{pair}/low"] > 0
        assert metrics[f"{pair}/selective"] >= 0
    assert metrics["cnn_from_vit/selective"] + metrics["vit_from_cnn/selective"] > 0


def test_the_best_share_of_labels_minimises_the_squared_error():
    generator = torch.Generator().manual_seed(0)
    y, a, b = (torch.softmax(torch.randn(50, 4, generator=generator), 1).double() for _ in range(3))
    best = ground_truth_weight(y, a, b)
    grid = torch.linspace(0, 1, 10001, dtype=torch.float64)
    errors = torch.stack([(y - share * a - (1 - share) * b).square().sum() for share in grid])
    assert best == pytest.approx(grid[errors.argmin()].item(), abs=1e-4)


def test_the_share_stays_between_nothing_and_all():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert ground_truth_weight(one, one, other) == 1.0
    assert ground_truth_weight(other, one, other) == 0.0
    assert ground_truth_weight(one, other - 0.5 * (one - other), other) == 0.0
    assert ground_truth_weight(one, other, other) == 1.0
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(2, 2\)"):
        ground_truth_weight(one, one, torch.zeros(2, 2))


def test_frozen_options_are_kept_inside_of_an_ensemble(net):
    frozen = FrozenTeacher(net("test_resnet"), batch_statistics=True)
    kd = recipes.meal_v2([frozen, net("test_vit")])
    assert isinstance(kd, KnowledgeDistillation)
    assert isinstance(kd.teacher, EnsembleTeacher)
    assert kd.teacher.members["0"] is frozen
