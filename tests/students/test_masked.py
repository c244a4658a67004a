"""Claims about `MaskedAutoencoder` and `patchify`."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch.testing import assert_close

from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import masked_reconstruction
from lightning_kd.students import MaskedAutoencoder, patchify

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4}


@pytest.fixture
def encoder():
    return timm.create_model("test_vit", img_size=64, num_classes=0)


@pytest.fixture
def net(encoder):
    return MaskedAutoencoder(encoder, **SMALL)


@pytest.fixture(scope="module")
def transformers_mae():
    """Configuration and class of transformers' own masked autoencoder, tiny."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        decoder_num_attention_heads=2,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=64,
        norm_pix_loss=True,
    )
    return ViTMAEForPreTraining(config).eval()


def test_hides_the_patches_of_highest_noise(net):
    noise = torch.arange(16.0).flip(0).expand(2, -1)
    mask = net(IMAGES, noise).mask
    assert mask.tolist() == [[True] * 12 + [False] * 4] * 2


@pytest.mark.parametrize(("ratio", "hidden"), [(0.0, 0), (0.5, 8), (0.75, 12), (0.9, 15)])
def test_hides_the_given_part(encoder, ratio, hidden):
    net = MaskedAutoencoder(encoder, mask_ratio=ratio, **SMALL)
    assert net(IMAGES, net.noise(IMAGES)).mask.sum(dim=1).tolist() == [hidden] * 2


def test_visible_patches_go_through_the_encoder_alone(net):
    seen = []
    net.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    net(IMAGES, net.noise(IMAGES))
    assert seen == [(2, 1 + 4, 64)]


def test_with_nothing_hidden_the_encoder_computes_what_it_always_did(encoder):
    net = MaskedAutoencoder(encoder, mask_ratio=0.0, **SMALL)
    tokens, order = net.encode(IMAGES, torch.arange(16.0).expand(2, -1))
    assert order[0].tolist() == list(range(16))
    assert_close(tokens, encoder.forward_features(IMAGES))


def test_the_order_of_the_tokens_is_that_of_the_noise(encoder):
    net = MaskedAutoencoder(encoder, mask_ratio=0.0, **SMALL)
    noise = torch.rand(2, 16)
    tokens, order = net.encode(IMAGES, noise)
    plain = encoder.forward_features(IMAGES)[:, 1:]
    assert_close(tokens[:, 1:], plain.gather(1, order[..., None].expand_as(plain)), rtol=1e-4, atol=1e-5)


def test_the_decoder_puts_every_token_back(encoder):
    net = MaskedAutoencoder(encoder, mask_ratio=0.0, **SMALL).eval()
    straight, shuffled = (net(IMAGES, noise).patches for noise in (torch.arange(16.0).expand(2, -1), torch.rand(2, 16)))
    assert_close(straight, shuffled, rtol=1e-3, atol=1e-4)


def test_a_hidden_patch_changes_no_prediction(net):
    net.eval()
    noise = torch.arange(16.0).expand(2, -1)
    changed = IMAGES.clone()
    changed[:, :, 16:] = 0.0  # the lower three rows of patches are hidden
    assert_close(net(changed, noise).patches, net(IMAGES, noise).patches)


def test_one_noise_hides_the_same_patches_in_two_networks(net):
    other = MaskedAutoencoder(timm.create_model("test_vit3", img_size=64, num_classes=0), **SMALL)
    noise = net.noise(IMAGES)
    assert torch.equal(net(IMAGES, noise).mask, other(IMAGES, noise).mask)


def test_every_parameter_learns(net):
    noise = net.noise(IMAGES)
    patches, mask = net(IMAGES, noise)
    masked_reconstruction(patches, net.patchify(IMAGES), mask).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_learns_to_paint(net):
    flat = torch.rand(4, 3, 1, 1).expand(-1, -1, 64, 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        patches, mask = net(flat, net.noise(flat))
        loss = masked_reconstruction(patches, net.patchify(flat), mask, normalize=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_the_encoder_stays_the_bare_network(encoder):
    before = copy.deepcopy(encoder.state_dict())
    net = MaskedAutoencoder(encoder, **SMALL)
    assert net.encoder is encoder
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert {name.partition(".")[0] for name in net.state_dict()} == {"encoder", "decoder", "head"}


def test_the_decoders_positions_are_fixed_and_not_saved(net):
    assert net.decoder.positions.shape == (17, 32)
    assert net.decoder.positions[0].count_nonzero() == 0
    assert "decoder.positions" not in net.state_dict()


def test_is_finite_under_bfloat16_autocast_at_batch_one(net):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patches, mask = net(IMAGES[:1], net.noise(IMAGES[:1]))
    loss = masked_reconstruction(patches, net.patchify(IMAGES[:1]), mask)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_hides_as_transformers_does(net, transformers_mae):
    noise = torch.rand(2, 16)
    assert torch.equal(net(IMAGES, noise).mask, transformers_mae(IMAGES, noise).mask.bool())


def test_cuts_and_scores_as_transformers_does(net, transformers_mae):
    theirs = transformers_mae(IMAGES, torch.rand(2, 16))
    assert torch.equal(patchify(IMAGES, (16, 16)), transformers_mae.patchify(IMAGES))
    loss = masked_reconstruction(theirs.logits, net.patchify(IMAGES), theirs.mask.bool())
    assert_close(loss, theirs.loss, rtol=1e-5, atol=0.0)


def test_patches_are_cut_row_by_row():
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    patches = patchify(torch.from_numpy(images), (2, 3))
    expected = [
        [images[n, :, y : y + 2, x : x + 3].transpose(1, 2, 0).ravel() for y in (0, 2) for x in (0, 3)] for n in (0, 1)
    ]
    assert np.array_equal(patches.numpy(), expected)


def test_training_without_noise_is_refused(net):
    with pytest.raises(SetupError, match="`noise` must be given in training"):
        net(IMAGES)
    assert net.eval()(IMAGES).mask.sum() == 24


@pytest.mark.parametrize("shape", [(2, 15), (1, 16), (2, 4, 4)])
def test_refuses_noise_that_is_not_one_number_per_patch(net, shape):
    with pytest.raises(ShapeError, match=r"`noise` must have shape \(2, 16\), got"):
        net(IMAGES, torch.rand(shape))


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_refuses_a_ratio_out_of_range(encoder, ratio):
    with pytest.raises(ValueError, match=rf"`mask_ratio` must be in \[0, 1\), got {ratio}"):
        MaskedAutoencoder(encoder, mask_ratio=ratio)


def test_refuses_what_it_cannot_mask(encoder):
    with pytest.raises(SetupError, match="must be a timm VisionTransformer with position embeddings, got ResNet"):
        MaskedAutoencoder(timm.create_model("test_resnet"))
    with pytest.raises(SetupError, match=r"multiple of 4 and of decoder_heads=5, got 32"):
        MaskedAutoencoder(encoder, decoder_width=32, decoder_heads=5)
    with pytest.raises(ShapeError, match=r"multiples of \(16, 16\), got \(2, 3, 60, 64\)"):
        patchify(IMAGES[:, :, :60], (16, 16))
