"""Claims about distillation between masked autoencoders."""

import copy

import lightning as L
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lightning_kd import Distiller, FrozenTeacher, KnowledgeDistillation
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import direction_l1, masked_reconstruction
from lightning_kd.objectives import DMAEKD, G2SDKD, FurtherPretrainingKD
from lightning_kd.step import Step
from lightning_kd.students import MaskedAutoencoder, with_distillation_token
from lightning_kd.taps import Inputs, Observation, Tap

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NOISE = torch.rand(4, 16, generator=torch.Generator().manual_seed(1))


def autoencoder(name="test_vit", *, decoder_depth=4, **settings):
    encoder = timm.create_model(name, img_size=64, num_classes=0, **settings)
    return MaskedAutoencoder(encoder, decoder_width=32, decoder_depth=decoder_depth, decoder_heads=4)


@pytest.fixture
def student():
    return autoencoder()


@pytest.fixture
def teacher():
    """Of another width, depth and family member than the student."""
    return autoencoder("test_vit3")


def terms_of(student, teacher, objective, *inputs):
    distiller = Distiller(student, teacher, [objective])
    distiller.build([tuple(inputs)])
    with distiller.watch() as calls:
        student(*inputs)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name], calls[0]


class Painter(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.gradients = set()

    def training_step(self, images, batch_idx):
        patches, mask = self.net(images, self.net.noise(images))
        return masked_reconstruction(patches, self.net.patchify(images), mask)

    def on_after_backward(self):
        self.gradients |= {n for n, p in self.named_parameters() if p.grad is not None and bool(p.grad.ne(0).any())}

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


@pytest.mark.parametrize("objective", [DMAEKD, G2SDKD])
def test_trains_between_networks_of_different_width_and_depth(tmp_path, student, teacher, objective):
    keys, before = list(student.state_dict()), copy.deepcopy(teacher.state_dict())
    module, kd = Painter(student), KnowledgeDistillation(teacher, student="net", objectives=[objective()])
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
    trainer.fit(module, DataLoader(IMAGES.repeat(3, 1, 1, 1), batch_size=4))
    adapters = {f"_kd_adapters.{name}" for name, _ in kd._distiller.adapters.named_parameters()}
    assert adapters
    assert adapters <= module.gradients
    assert {f"net.{name}" for name, _ in student.named_parameters()} <= module.gradients
    assert list(student.state_dict()) == keys
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert trainer.callback_metrics[f"kd/{objective().name}"] > 0


@pytest.mark.parametrize(("depth", "block"), [(1, 0), (2, 0), (6, 3), (12, 8), (24, 17)])
def test_dmae_reads_three_quarters_of_the_depth(depth, block):
    objective, deep = DMAEKD(), autoencoder(depth=depth)
    objective.locate(nn.ModuleDict({"net": deep}), deep)
    assert objective.student_taps == (Tap(f"net.encoder.blocks.{block}"),)
    assert objective.teacher_taps == (Tap(f"encoder.blocks.{block}"),)


def test_dmae_compares_projected_class_token_and_visible_patches(student, teacher):
    objective = DMAEKD()
    term, call = terms_of(student, teacher, objective, IMAGES, NOISE)
    seen = []
    teacher.encoder.blocks[5].register_forward_hook(lambda _, __, output: seen.append(output))
    teacher(IMAGES, NOISE)
    tokens = call.features[Tap("encoder.blocks.3")]
    assert tokens.shape == (4, 1 + 4, 64)
    assert_close(term, direction_l1(objective.projection(tokens), seen[0]))


def test_dmae_stops_the_teacher_at_the_tapped_block(student, teacher):
    ran = []
    for index, block in enumerate(teacher.encoder.blocks):
        block.register_forward_hook(lambda _, __, ___, index=index: ran.append(index))
    teacher.decoder.register_forward_hook(lambda *_: ran.append("decoder"))
    distiller = Distiller(student, teacher, [DMAEKD()])
    distiller.build([(IMAGES, NOISE)])
    with distiller.watch() as calls:
        student(IMAGES, NOISE)
    ran.clear()
    distiller.losses(torch.zeros(()), calls)
    # The hook that ends the call stands behind the one that counts.
    assert ran == [0, 1, 2, 3, 4, 5]


def test_dmae_projects_with_xavier_weights(student, teacher):
    objective = DMAEKD()
    terms_of(student, teacher, objective, IMAGES, NOISE)
    weight, bound = objective.projection.weight, (6 / (64 + 96)) ** 0.5
    assert weight.shape == (96, 64)
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.abs().max().item() <= bound
    assert objective.projection.bias.count_nonzero() == 0


def test_g2sd_equals_the_published_value():
    # Every patch of the teacher is [1, 2, 3, 6], the student predicts 0: see the loss.
    student, teacher = nn.Identity(), nn.Identity()
    target = torch.tensor([1.0, 2.0, 3.0, 6.0]).double().expand(2, 5, 4)
    objective = G2SDKD(Tap("", prefix_tokens=1), Tap("", prefix_tokens=1))
    objective.locate(student, teacher)
    inputs = Inputs((torch.zeros(2, 3, 4, 4), torch.rand(2, 4)))
    said = Observation(inputs, features={objective.student_taps[0]: torch.randn(2, 5, 4).double()})
    heard = Observation(inputs, features={objective.teacher_taps[0]: target})
    objective.build(Probe(student, said), Probe(teacher, heard))
    objective.double()
    nn.init.zeros_(objective.head[2].weight)
    assert objective(said, heard, Step()).item() == pytest.approx(0.2499999286, rel=1e-9)


def test_g2sd_compares_every_token_in_front_of_the_decoders_norm(student, teacher):
    shapes = []
    objective = G2SDKD()
    distiller = Distiller(student, teacher, [objective])
    distiller.build([(IMAGES, NOISE)])
    objective.head.register_forward_hook(lambda _, args, output: shapes.append((args[0].shape, output.shape)))
    with distiller.watch() as calls:
        student(IMAGES, NOISE)
    distiller.losses(torch.zeros(()), calls)
    assert shapes == [((4, 17, 32), (4, 17, 32))]
    assert (objective.student_taps[0].path, objective.teacher_taps[0].path) == ("decoder.blocks", "decoder.blocks.3")


def test_g2sd_prepares_a_student_that_has_a_distillation_token(teacher):
    encoder = with_distillation_token(timm.create_model("test_vit", img_size=64, num_classes=10))
    student = MaskedAutoencoder(encoder, decoder_width=32, decoder_depth=1, decoder_heads=4)
    term, call = terms_of(student, teacher, G2SDKD(), IMAGES, NOISE)
    term.backward()
    assert call.features[Tap("decoder.blocks")].shape == (4, 2 + 16, 32)
    assert encoder.dist_token.grad.count_nonzero() > 0
    assert [z.shape for z in encoder(IMAGES)] == [(4, 10), (4, 10)]


def test_g2sd_refuses_a_shallow_decoder_of_the_teacher(student):
    with pytest.raises(SetupError, match="which has 2: name another place"):
        Distiller(student, autoencoder(decoder_depth=2), [G2SDKD()]).attach()


def test_further_pretraining_compares_the_encoders_last_tokens(student):
    earlier, other = copy.deepcopy(student), autoencoder()
    distances = []
    for teacher in (earlier, other):
        distiller = Distiller(student, teacher, [FurtherPretrainingKD()], allow=("zero",))
        distiller.build([(IMAGES, NOISE)])
        with distiller.watch() as calls:
            student(IMAGES, NOISE)
        distances.append(distiller.losses(torch.zeros(()), calls).terms["further_pretraining"])
        distiller.detach()
    expected = (student.encode(IMAGES, NOISE)[0] - other.encode(IMAGES, NOISE)[0]).square().mean()
    assert distances[0].item() == 0.0
    assert_close(distances[1], expected)


def test_a_teacher_from_transformers_sees_the_same_patches(student):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    decoder = {f"decoder_{key}": value for key, value in sizes.items()}
    config = ViTMAEConfig(image_size=64, patch_size=16, **sizes, **decoder)
    objective = DMAEKD(teacher="vit.layers.2")
    term, call = terms_of(student, ViTMAEForPreTraining(config), objective, IMAGES, NOISE)
    term.backward()
    assert objective.projection.weight.shape == (32, 64)
    assert call.output.mask.sum() == 4 * 12
    assert student.encoder.blocks[3].attn.qkv.weight.grad.count_nonzero() > 0


OBJECTIVES = [DMAEKD, G2SDKD, FurtherPretrainingKD]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_refuses_calls_that_hide_different_patches(student, objective):
    other = autoencoder()
    distiller = Distiller(student, other, [objective()])
    distiller.build([(IMAGES, NOISE)])
    student.eval()  # where noise may be left out
    with distiller.watch() as calls:
        student(IMAGES)
    with pytest.raises(SetupError, match="the student was called without `noise`"):
        distiller.losses(torch.zeros(()), calls)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_refuses_a_transform_that_drops_the_noise(student, objective):
    other = FrozenTeacher(autoencoder(), input_transform=lambda images, noise: images)
    distiller = Distiller(student, other, [objective()])
    distiller.build([(IMAGES, NOISE)])
    with distiller.watch() as calls:
        student(IMAGES, NOISE)
    with pytest.raises(SetupError, match="the teacher was called without `noise`"):
        distiller.losses(torch.zeros(()), calls)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_takes_noise_by_keyword(student, objective):
    distiller = Distiller(student, autoencoder(), [objective()])
    distiller.build([{"images": IMAGES, "noise": NOISE}])
    with distiller.watch() as calls:
        student(images=IMAGES, noise=NOISE)
    assert distiller.losses(torch.zeros(()), calls).terms[objective().name] > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_is_finite_under_bfloat16_autocast_at_batch_one(student, objective):
    distiller = Distiller(student, autoencoder(), [objective()])
    distiller.build([(IMAGES[:1], NOISE[:1])])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with distiller.watch() as calls:
            student(IMAGES[:1], NOISE[:1])
        losses = distiller.losses(torch.zeros(()), calls)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)


def test_networks_that_hide_different_parts_do_not_fit(student):
    other = MaskedAutoencoder(
        timm.create_model("test_vit", img_size=64, num_classes=0),
        decoder_width=32,
        decoder_depth=1,
        decoder_heads=4,
        mask_ratio=0.5,
    )
    with pytest.raises(ShapeError, match=r"\(4, 5, 64\) and \(4, 9, 64\)"):
        terms_of(student, other, DMAEKD(), IMAGES, NOISE)


def test_refuses_a_student_that_hides_nothing(teacher):
    with pytest.raises(SetupError, match="must hold exactly one MaskedAutoencoder, found 0"):
        Distiller(timm.create_model("test_vit", img_size=64), teacher, [DMAEKD()]).attach()
    with pytest.raises(ValueError, match="`beta` must be a finite number above 0, got 0"):
        G2SDKD(beta=0)
