"""Students and teachers of any signature, and pairs of families with pairs of layers that nobody named."""

from dataclasses import dataclass

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from lightning_kd import CKAKD, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, PatchEmbeddingKD, Tap
from lightning_kd.errors import SetupError, TapError
from lightning_kd.step import Step
from lightning_kd.taps import Observation

CLASSES = 5


def tiny(name, **options):
    return timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=64, **options)


def convolutional(name, **options):
    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


PAIRS = {
    "cnn to vit": (
        lambda: convolutional("resnet10t"),
        lambda: tiny("vit_tiny_patch16_224", depth=2),
        ("layer4", "blocks.1"),
    ),
    "vit to cnn": (
        lambda: tiny("vit_tiny_patch16_224", depth=2, reg_tokens=4),
        lambda: convolutional("convnext_atto"),
        ("blocks.1", "stages.2"),
    ),
    "cnn to swin": (
        lambda: convolutional("mobilenetv3_small_050"),
        lambda: tiny("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 1, 2, 2)),
        ("blocks.5", "layers.3"),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_every_objective_trains_student_and_adapters_across_families(pair):
    student, teacher, taps = PAIRS[pair][0](), PAIRS[pair][1](), PAIRS[pair][2]
    objectives = [
        LogitKD(),
        FeatureKD(*taps),
        CKAKD(*taps, name="samples"),
        CKAKD(*taps, kernel="rbf", rows="positions", name="positions"),
        FeatureKD.matched(top=2, samples=8, name="matched"),
        CKAKD.matched(top=2, samples=8, name="matched_cka"),
    ]
    if not pair.startswith("cnn to swin"):
        objectives.append(PatchEmbeddingKD())
    x = torch.randn(8, 3, 64, 64)
    distiller = Distiller(student, teacher, objectives).build([x])
    for objective in objectives[4:6]:
        assert len(objective.student_taps) == len(objective.teacher_taps) == 2
    with distiller.watch() as calls:
        task_loss = F.cross_entropy(student(x), torch.arange(8) % CLASSES)
    losses = distiller.losses(task_loss, calls)
    for name, term in losses.terms.items():
        student.zero_grad()
        distiller.adapters.zero_grad()
        term.backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters()), name
        for parameter in distiller.objectives[name].parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_patch_embeddings_pair_with_the_nearest_grid():
    resnet, vit = convolutional("resnet10t"), tiny("vit_tiny_patch16_224", depth=1)
    objective = PatchEmbeddingKD()
    Distiller(vit, resnet, [objective]).build([torch.randn(4, 3, 64, 64)])
    assert [(s.path, t.path) for s, t in objective.pairs] == [("patch_embed", "layer3.0")]
    hierarchical = tiny("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 1, 2, 2))
    objective = PatchEmbeddingKD()
    Distiller(resnet, hierarchical, [objective]).build([torch.randn(4, 3, 64, 64)])
    assert [s.path for s, _ in objective.pairs] == ["maxpool", "layer2.0", "layer3.0", "layer4.0"]
    assert [t.path for _, t in objective.pairs] == ["patch_embed", *(f"layers.{i}.downsample" for i in (1, 2, 3))]


def test_unknown_patch_embeddings_and_weights_are_explained():
    plain, vit = nn.Sequential(nn.Conv2d(3, 4, 1)), tiny("vit_tiny_patch16_224", depth=1)
    with pytest.raises(SetupError, match=r"no patch embedding is known in the student \(Sequential\).*student=\[...\]"):
        Distiller(plain, vit, [PatchEmbeddingKD()]).build([torch.randn(4, 3, 64, 64)])
    with pytest.raises(SetupError, match=r"`stage_weights` must hold one weight per pair.* got 2"):
        Distiller(plain, vit, [PatchEmbeddingKD("0", stage_weights=(1.0, 2.0))]).build([torch.randn(4, 3, 64, 64)])


@dataclass
class Result:
    """Neither a tensor nor a mapping."""

    scores: torch.Tensor


class Odd(nn.Module):
    """Returns whatever it is told to, from positional or keyword inputs."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x, *, scale=1.0):
        return self.wrap(self.net(x) * scale)


@pytest.mark.parametrize(
    "wrap", [lambda z: z, lambda z: (z, "extra"), lambda z: [z], lambda z: {"logits": z, "loss": None}]
)
def test_outputs_may_be_tensors_sequences_or_mappings(wrap):
    student, teacher, x = Odd(wrap), Odd(lambda z: z), torch.randn(6, 4)
    distiller = Distiller(student, teacher)
    with distiller.watch() as calls:
        student(x, scale=2.0)
    losses = distiller.losses(torch.zeros(()), calls)
    expected = LogitKD()(
        Observation(calls[0].inputs, student.net(x) * 2), Observation(calls[0].inputs, teacher.net(x) * 2), Step()
    )
    torch.testing.assert_close(losses.terms["logit"], expected, rtol=1e-6, atol=0)


def test_another_output_is_chosen_by_key_or_explained():
    x = torch.randn(6, 4)
    student, teacher = Odd(lambda z: {"main": z, "aux": -z}), Odd(lambda z: (z, -z))
    distiller = Distiller(student, teacher, [LogitKD(student_output="aux", teacher_output=1)])
    with distiller.watch() as calls:
        student(x)
    assert distiller.losses(torch.zeros(()), calls).terms["logit"] > 0
    with pytest.raises(TapError, match=r"a mapping without a tensor 'logits'.*\['main', 'aux'\]"):
        Distiller(student, teacher).losses(torch.zeros(()), calls)
    odd = Odd(Result)
    distiller = Distiller(odd, teacher)
    with distiller.watch() as calls:
        odd(x)
    with pytest.raises(TapError, match=r"the student's output holds no tensor.*of type Result"):
        distiller.losses(torch.zeros(()), calls)


def test_a_transformers_model_is_distilled_by_keyword(classifier, trainer):
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=CLASSES,
    )
    teacher = ViTForImageClassification(config)
    student = ViTForImageClassification(config)

    class HuggingFace(classifier):
        def training_step(self, batch, batch_idx):
            return self.net(pixel_values=batch[0], labels=batch[1]).loss

    data = torch.utils.data.TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % CLASSES)
    layers = [name for name, _ in student.named_modules() if name.endswith(("layer.1", "layers.1"))]
    assert len(layers) == 1
    tap = Tap(layers[0], prefix_tokens=1)
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD(tap, tap)])
    fitted = trainer(callbacks=[kd])
    fitted.fit(HuggingFace(student), torch.utils.data.DataLoader(data, batch_size=8))
    assert fitted.callback_metrics["kd/logit"] > 0
    assert fitted.callback_metrics["kd/feature"] > 0


def test_the_teacher_may_see_another_size_and_type(cnn, loader, trainer, classifier):
    teacher = tiny("vit_tiny_patch16_224", depth=1).double()
    kd = KnowledgeDistillation(
        teacher,
        student="net",
        objectives=[LogitKD(), FeatureKD("body", "blocks.0")],
        input_transform=lambda x: F.interpolate(x, size=(64, 64)),
    )
    fitted = trainer(callbacks=[kd])
    fitted.fit(classifier(), loader())
    assert fitted.callback_metrics["kd/feature"] > 0


def test_matched_pairs_survive_resuming(classifier, cnn, loader, trainer, tmp_path):
    torch.manual_seed(0)
    teacher = convolutional("resnet10t", channels=(8, 16, 24, 32))
    student = convolutional("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))

    def distillation():
        return KnowledgeDistillation(teacher, student="net", objectives=[FeatureKD.matched(top=2, samples=16)])

    data = torch.utils.data.TensorDataset(torch.randn(16, 3, 64, 64), torch.arange(16) % CLASSES)
    batches = torch.utils.data.DataLoader(data, batch_size=8)
    first = trainer(callbacks=[distillation()])
    first.fit(classifier(student), batches)
    first.save_checkpoint(tmp_path / "matched.ckpt")
    pairs = first.callbacks[0].state_dict()["pairs"]
    with torch.no_grad():
        for parameter in teacher.layer1.parameters():
            parameter.normal_()
    resumed = trainer(callbacks=[distillation()], max_epochs=2)
    resumed.fit(classifier(student), batches, ckpt_path=tmp_path / "matched.ckpt", weights_only=True)
    assert resumed.callbacks[0].state_dict()["pairs"] == pairs
