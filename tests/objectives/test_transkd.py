"""Claims about `CSFKD`, and about TransKD whole: stage maps and patch embeddings together."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from lightning_kd import Distiller, PatchEmbeddingKD
from lightning_kd.adapters.fusion import DeepToShallowFusion
from lightning_kd.adapters.transkd import SelectiveMerge
from lightning_kd.errors import SetupError
from lightning_kd.losses import hierarchical_context
from lightning_kd.objectives import CSFKD

STAGES = [f"stages.{stage}" for stage in range(4)]
LAYERS = [f"layer{stage}" for stage in range(1, 5)]
BLOCKS = ["blocks.0", "blocks.1"]


def pyramid(*widths):
    return timm.create_model("pvt_v2_b0", num_classes=10, depths=(1, 1, 1, 1), embed_dims=widths)


class SegFormer(nn.Module):
    """Scores at the resolution of the image."""

    def __init__(self, *widths):
        super().__init__()
        self.net = SegformerForSemanticSegmentation(
            SegformerConfig(
                num_labels=5,
                depths=[1] * 4,
                hidden_sizes=widths,
                num_attention_heads=[1, 1, 2, 4],
                decoder_hidden_size=16,
            )
        )

    def forward(self, x):
        return F.interpolate(self.net(x).logits, size=x.shape[2:], mode="bilinear")


@pytest.fixture
def pyramids():
    return pyramid(32, 64, 160, 256), pyramid(64, 128, 320, 512)


@pytest.mark.parametrize(
    ("student", "teacher", "places"),
    [
        ("test_resnet", "pvt_v2_b0", (LAYERS, STAGES)),
        ("pvt_v2_b0", "test_resnet", (STAGES, LAYERS)),
        ("test_vit", "test_convnext", (BLOCKS, STAGES[2:])),
        ("test_convnext", "test_vit", (STAGES[:2], BLOCKS)),
    ],
)
def test_stages_of_another_family_are_reviewed(student, teacher, places, net, train_three_steps):
    result = train_three_steps(net(student), net(teacher), [CSFKD(*places)])
    assert result.metrics["kd/csf"] > 0


@pytest.mark.parametrize("variant", [{}, {"mixer": "global_local"}, {"assistant": True}])
def test_transkd_whole_trains_on_the_published_pair_of_widths(variant, pyramids, train_three_steps):
    objectives = [CSFKD(STAGES, STAGES), PatchEmbeddingKD(**variant)]
    result = train_three_steps(*pyramids, objectives, batch_size=2)
    assert result.metrics["kd/csf"] > 0
    assert result.metrics["kd/patch_embedding"] > 0


@pytest.mark.parametrize("variant", [{}, {"mixer": "global_local"}, {"assistant": True}])
def test_transkd_whole_trains_a_segformer_on_masks_with_pixels_that_have_no_label(variant, train_three_steps):
    labels = torch.randint(5, (6, 64, 64))
    labels[:, :16] = labels[0] = -100
    stages = [f"net.segformer.stages.{stage}.layer_norm" for stage in range(4)]
    objectives = [CSFKD(stages, stages), PatchEmbeddingKD(**variant)]
    dataset = TensorDataset(torch.randn(6, 3, 64, 64), labels)
    pair = SegFormer(8, 16, 24, 32), SegFormer(16, 32, 40, 64)
    result = train_three_steps(*pair, objectives, dataset=dataset, batch_size=2)
    assert result.metrics["kd/csf"] > 0
    assert result.metrics["kd/patch_embedding"] > 0


def test_the_term_is_the_sum_of_the_context_losses_of_the_stages(pyramids):
    student, teacher = pyramids
    objective, images = CSFKD(STAGES, STAGES), torch.randn(2, 3, 64, 64)
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    taught = distiller.teacher.observe(calls[0].inputs)
    fused = objective.fusion([calls[0].features[tap] for tap in objective.student_taps])
    targets = [taught.features[tap] for tap in objective.teacher_taps]
    expected = sum(hierarchical_context(s, t) for s, t in zip(fused, targets, strict=True))
    assert [tuple(s.shape) for s in fused] == [(2, 64, 16, 16), (2, 128, 8, 8), (2, 320, 4, 4), (2, 512, 2, 2)]
    assert_close(distiller.losses(torch.zeros(()), calls).terms["csf"], expected, rtol=1e-6, atol=0)


def test_the_fusion_has_the_published_parts(pyramids):
    objective = CSFKD(STAGES, STAGES)
    Distiller(*pyramids, [objective]).build([torch.randn(2, 3, 64, 64)])
    assert isinstance(objective.fusion, DeepToShallowFusion)
    enters = [level.enter[0] for level in objective.fusion.levels]
    leaves = [level.leave[0] for level in objective.fusion.levels]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in enters] == [
        (width, 64, (1, 1)) for width in (32, 64, 160, 256)
    ]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in leaves] == [
        (64, width, (3, 3)) for width in (64, 128, 320, 512)
    ]
    assert [type(level.merge) for level in objective.fusion.levels] == [SelectiveMerge] * 3 + [type(None)]


def test_the_shallowest_term_alone_teaches_every_stage_of_the_student(pyramids):
    student, teacher = pyramids
    objective, images = CSFKD(STAGES, STAGES), torch.randn(2, 3, 64, 64)
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    maps = [calls[0].features[tap] for tap in objective.student_taps]
    grads = torch.autograd.grad(objective.fusion(maps)[0].square().sum(), maps)
    assert all(bool(grad.ne(0).any()) for grad in grads)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("pixels", [32, 64])
def test_values_and_gradients_are_finite_under_bfloat16_autocast(samples, pixels, pyramids):
    # At 32 pixels the deepest map of a single image has one cell, on which BatchNorm cannot train.
    student, teacher = pyramids
    images = torch.randn(samples, 3, pixels, pixels)
    distiller = Distiller(student, teacher, [CSFKD(STAGES, STAGES)]).build([images])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with distiller.watch() as calls:
            student(images)
        losses = distiller.losses(torch.zeros(()), calls)
    losses.total.backward()
    assert losses.terms["csf"].dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in distiller.adapters.parameters())


def test_places_that_do_not_pair_are_explained():
    with pytest.raises(SetupError, match=r"`csf` pairs student and teacher taps one to one, got 4 and 2"):
        CSFKD(STAGES, BLOCKS)
    with pytest.raises(ValueError, match=r"`middle` must be a finite number above 0, got 0"):
        CSFKD(STAGES, STAGES, middle=0)
