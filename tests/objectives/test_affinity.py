"""Claims about `AffinityKD`, on a two-tower model made of a vision transformer and a small text transformer."""

import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import Distiller, KnowledgeDistillation
from lightning_kd.errors import TapError
from lightning_kd.losses import affinity_mimicking, image_text_contrastive
from lightning_kd.objectives import AffinityKD

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TEXTS = torch.arange(4 * 6).reshape(4, 6) % 16


class TextTower(nn.Module):
    def __init__(self, width, depth, heads, embedding):
        super().__init__()
        self.token_embedding = nn.Embedding(16, width)
        self.positional_embedding = nn.Parameter(torch.randn(6, width))
        layers = [
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True) for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(width, embedding)

    def forward(self, tokens):
        states = self.token_embedding(tokens) + self.positional_embedding
        for block in self.blocks:
            states = block(states)
        return self.head(states[:, -1])


class TwoTowers(nn.Module):
    def __init__(self, vision="test_vit", *, width=64, depth=2, heads=2, embedding=24, form="dict"):
        super().__init__()
        settings = {"img_size": 32, "embed_dim": width, "depth": depth, "num_heads": heads} if "vit" in vision else {}
        self.visual = timm.create_model(vision, num_classes=embedding, **settings)
        self.text = TextTower(width, depth, heads, embedding)
        self.logit_scale = nn.Parameter(torch.tensor(20.0).log())
        self.form = form

    def forward(self, images, texts):
        image, text, scale = self.visual(images), self.text(texts), self.logit_scale.exp()
        if self.form == "tuple":
            return image, text, scale
        return {"image_embeds": image, "text_embeds": text, "scale": scale}


class Contrastive(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.reached = set()

    def training_step(self, batch, batch_idx):
        output = self.net(*batch)
        output = list(output.values()) if isinstance(output, dict) else output
        return image_text_contrastive(output[0], output[1], scale=output[2])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_after_backward(self):
        self.reached |= {n for n, p in self.net.named_parameters() if p.grad is not None and bool(p.grad.ne(0).any())}


def term(student, teacher, objective):
    distiller = Distiller(student, teacher, [objective])
    with distiller.watch() as calls:
        output = student(IMAGES, TEXTS)
    return distiller.losses(torch.zeros(()), calls).terms["affinity"], output


@pytest.mark.parametrize("vision", ["test_vit", "test_resnet"])
def test_trains_towers_of_other_widths_and_families(tmp_path, vision):
    student, teacher = TwoTowers(vision), TwoTowers(width=96, depth=3, heads=3, embedding=48)
    keys, before = list(student.state_dict()), {k: v.clone() for k, v in teacher.state_dict().items()}
    module = Contrastive(student)
    kd = KnowledgeDistillation(teacher, student="net", objectives=[AffinityKD(scale_output="scale")], task_weight=0.0)
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
    trainer.fit(module, DataLoader(TensorDataset(IMAGES.repeat(3, 1, 1, 1), TEXTS.repeat(3, 1)), batch_size=4))
    assert trainer.global_step == 3
    assert {"logit_scale", "text.token_embedding.weight", "text.head.weight"} <= module.reached
    assert any(name.startswith("visual.") for name in module.reached)
    assert list(student.state_dict()) == keys
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert trainer.callback_metrics["kd/affinity"] > 0


@pytest.mark.parametrize(
    ("form", "places"),
    [
        ("dict", {"scale_output": "scale"}),
        ("tuple", {"student_output": (0, 1), "scale_output": 2}),
    ],
)
def test_reads_embeddings_and_scale_from_either_form(form, places):
    student, teacher = TwoTowers(form=form), TwoTowers(width=96, heads=3, embedding=48, form=form).eval()
    value, output = term(student, teacher, AffinityKD(**places))
    image, text, scale = output.values() if form == "dict" else output
    given = teacher(IMAGES, TEXTS)
    t_image, t_text, t_scale = given.values() if form == "dict" else given
    assert_close(value, affinity_mimicking(image, text, t_image, t_text, student_scale=scale, teacher_scale=t_scale))


def test_reads_the_teacher_elsewhere():
    student, teacher = TwoTowers(), TwoTowers(form="tuple")
    value, _ = term(student, teacher, AffinityKD(teacher_output=(0, 1)))
    assert value.isfinite()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_mixes_mimicking_and_contrastive_loss(alpha):
    student, teacher = TwoTowers(), TwoTowers(embedding=48).eval()
    value, output = term(student, teacher, AffinityKD(alpha=alpha, student_scale=5.0, teacher_scale=7.0))
    image, text, _ = output.values()
    given = teacher(IMAGES, TEXTS)
    mimicking = affinity_mimicking(
        image, text, given["image_embeds"], given["text_embeds"], student_scale=5.0, teacher_scale=7.0
    )
    contrastive = image_text_contrastive(image, text, scale=5.0)
    assert_close(value, alpha * mimicking + (1 - alpha) * contrastive)


def test_gathering_changes_nothing_in_one_process():
    student, teacher = TwoTowers(), TwoTowers(embedding=48)
    assert term(student, teacher, AffinityKD(gather=True))[0] == term(student, teacher, AffinityKD())[0]


@pytest.mark.slow
def test_two_processes_compute_the_term_and_the_gradient_of_the_joint_batch(tmp_path):
    script = Path(__file__).with_name("affinity_run.py")
    ranks = [(0, 1), (0, 2), (1, 2)]
    processes = [
        subprocess.Popen([sys.executable, script, tmp_path, str(rank), str(count)], stderr=subprocess.PIPE, text=True)
        for rank, count in ranks
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    joint, *shares = (torch.load(tmp_path / f"{rank}-of-{count}.pt", weights_only=True) for rank, count in ranks)
    assert joint["gradients"]["scale"] != 0
    for share in shares:
        assert_close(share, joint, rtol=1e-6, atol=1e-12)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, 1\], got 1\.5"):
        AffinityKD(alpha=1.5)
    with pytest.raises(ValueError, match=r"`teacher_scale` must be a finite number above 0, got 0\.0"):
        AffinityKD(teacher_scale=0.0)
    with pytest.raises(TapError, match=r"the student's output is a mapping without a tensor 'image'"):
        term(TwoTowers(), TwoTowers(), AffinityKD(student_output=("image", "text")))
