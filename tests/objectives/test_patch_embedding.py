"""Claims about `PatchEmbeddingKD` with TransKD's mixer and assistants."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller, PatchEmbeddingKD, Tap
from lightning_kd.adapters.transkd import GlobalLocalMixer
from lightning_kd.errors import SetupError, ShapeError

VARIANTS = {
    "plain": {},
    "mixer": {"mixer": "global_local"},
    "assistant": {"assistant": True},
    "both": {"mixer": "global_local", "assistant": True},
}


def hierarchical(widths):
    """A pyramid vision transformer with one block per stage; strides 4, 8, 16, 32."""
    return timm.create_model("pvt_v2_b0", num_classes=10, depths=(1, 1, 1, 1), embed_dims=widths)


def observed(student, teacher, images, *places, **options):
    objective = PatchEmbeddingKD(*places, **options)
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    return distiller, objective, calls


@pytest.fixture
def pyramids():
    return hierarchical((32, 64, 160, 256)), hierarchical((64, 128, 320, 512))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("student", "teacher"), [("pvt_v2_b0", "convnext_atto"), ("test_vit", "resnet10t"), ("resnet10t", "test_vit")]
)
def test_every_variant_trains_across_families(variant, student, teacher, net, train_three_steps):
    pair = net(student), net(teacher)
    result = train_three_steps(*pair, [PatchEmbeddingKD(**VARIANTS[variant])])
    assert result.metrics["kd/patch_embedding"] > 0


def test_assisted_embeddings_are_the_published_sum(pyramids):
    # f_m W_m E_m + f_(m+4) A_m with A_1 made from the image and A_m from the map of the stage before.
    student, teacher = pyramids
    images = torch.randn(2, 3, 64, 64)
    distiller, objective, calls = observed(student, teacher, images, assistant=True)
    assert_close(objective.factors.detach(), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]))
    seen = {}

    def see(path):
        def hook(_, inputs, output):
            seen[path] = inputs[0], output

        return hook

    for path in ("patch_embed", *(f"stages.{i}.downsample" for i in (1, 2, 3))):
        student.get_submodule(path).register_forward_hook(see(path))
    student(images)
    assert torch.equal(seen["patch_embed"][0], images)
    call = distiller.teacher.observe(calls[0].inputs)
    expected = 0.0
    for index, weight in enumerate((0.1, 0.1, 0.5, 1.0)):
        before, own = (x.movedim(-1, 1) if x.shape[1] == x.shape[2] else x for x in seen[list(seen)[index]])
        projected = objective.adapters[index].projection(own)
        assisted = objective.assistants[index](before)
        target = call.features[objective.teacher_taps[index]].movedim(-1, 1)
        assert projected.shape == assisted.shape == target.shape
        aligned = 0.1 * (index + 1) * projected + 0.1 * (index + 5) * assisted
        expected += weight * (aligned - target).square().mean()
    actual = distiller.losses(torch.zeros(()), calls).terms["patch_embedding"]
    assert_close(actual, expected, rtol=1e-5, atol=0)


def test_assistants_have_the_published_strides(pyramids):
    _, objective, _ = observed(*pyramids, torch.randn(2, 3, 64, 64), assistant=True)
    convolutions = [assistant.embed for assistant in objective.assistants]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (3, 64, 7, 4), (32, 128, 3, 2), (64, 320, 3, 2), (160, 512, 3, 2)
    ]  # fmt: skip


def test_the_mixer_is_before_the_coarsest_projection_only(pyramids):
    _, objective, _ = observed(*pyramids, torch.randn(2, 3, 64, 64), mixer="global_local")
    mixers = [(name, m) for name, m in objective.named_modules() if isinstance(m, GlobalLocalMixer)]
    assert [name for name, _ in mixers] == ["adapters.3.projection.0"]
    assert mixers[0][1].attend.in_features == 256
    assert mixers[0][1].heads == 8


def test_the_assistants_of_a_plain_transformer_read_the_image(net):
    _, objective, _ = observed(net("test_vit"), net("resnet10t"), torch.randn(2, 3, 64, 64), assistant=True)
    assert len(objective.assistants) == 1
    assert objective.assistants[0].embed.stride == (16, 16)
    assert_close(objective.factors.detach(), torch.tensor([0.1, 0.2]))


def test_the_image_may_be_an_argument_by_name(net):
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net("test_vit")

        def forward(self, *, scale, pixels):
            return self.net(scale * pixels)

    objective = PatchEmbeddingKD(assistant=True)
    distiller = Distiller(ByName(), ByName(), [objective])
    example = {"scale": torch.ones(()), "pixels": torch.randn(2, 3, 64, 64)}
    distiller.build([example])
    with distiller.watch() as calls:
        distiller.student(**example)
    assert distiller.losses(torch.zeros(()), calls).terms["patch_embedding"] > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("samples", [1, 3])
def test_values_and_gradients_are_finite_under_bfloat16_autocast(variant, samples, pyramids):
    images = torch.randn(samples, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distiller, objective, calls = observed(*pyramids, images, **VARIANTS[variant])
        term = distiller.losses(torch.zeros(()), calls).terms["patch_embedding"]
    term.backward()
    assert term.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in objective.parameters())


def test_what_cannot_be_mixed_or_assisted_is_explained(net):
    images = torch.randn(2, 3, 64, 64)
    narrow = timm.create_model(
        "pvt_v2_b0", num_classes=10, depths=(1,) * 4, embed_dims=(8, 16, 40, 44), num_heads=(1,) * 4
    )
    with pytest.raises(ShapeError, match=r"`heads` must divide the embedding's width of 44, got 8"):
        observed(narrow, net("resnet10t"), images, mixer="global_local")
    places = ["patch_embed", Tap("blocks.0", at="input")]
    with pytest.raises(SetupError, match=r"reads the input of the module.*at='input'"):
        observed(net("test_vit"), net("resnet10t"), images, places, assistant=True)
    frames = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
    with pytest.raises(SetupError, match=r"needs an image \(N, C, H, W\) among the student's inputs"):
        observed(frames, nn.Sequential(nn.Linear(4, 8)), torch.randn(2, 5, 4), "0", "0", assistant=True)
    with pytest.raises(SetupError, match=r"got one on the grids \(\) and \(\) to be made from shape \(2, 3, 64, 64\)"):
        observed(net("test_vit"), net("resnet10t"), images, "fc_norm", "global_pool", assistant=True)
    with pytest.raises(ValueError, match=r"`mixer` must be one of 'none', 'global_local', got 'gl'"):
        PatchEmbeddingKD(mixer="gl")
