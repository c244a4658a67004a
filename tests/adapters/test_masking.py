"""Claims about random masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.adapters.masking import conv_generator, hidden_parts, hidden_tokens


@pytest.mark.parametrize(("parts", "shape"), [("channels", (4, 64, 1, 1)), ("positions", (4, 1, 16, 16))])
@pytest.mark.parametrize("ratio", [0.15, 0.75])
def test_parts_are_hidden_with_the_probability_asked_for(parts, shape, ratio):
    mask = hidden_parts(torch.zeros(4, 64, 16, 16), parts=parts, ratio=ratio)
    assert mask.shape == shape
    # Four standard deviations of the mean of at least 256 draws.
    assert mask.float().mean().item() == pytest.approx(ratio, abs=4 * (ratio * (1 - ratio) / 256) ** 0.5)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9]))
def test_equally_many_tokens_are_hidden_in_every_sample(height, width, ratio):
    mask = hidden_tokens(torch.zeros(3, 2, height, width), ratio=ratio)
    tokens = height * width
    assert mask.shape == (3, 1, height, width)
    assert mask.flatten(1).sum(1).tolist() == [tokens - int(tokens * (1 - ratio))] * 3


def test_samples_hide_different_tokens_and_every_token_is_hidden_at_times():
    mask = hidden_tokens(torch.zeros(64, 1, 4, 4), ratio=0.5).flatten(1)
    assert len({tuple(row.tolist()) for row in mask}) > 32
    assert mask.any(0).all()
    assert not mask.all(0).any()


@pytest.mark.parametrize("draw", [lambda f, **k: hidden_parts(f, parts="channels", **k), hidden_tokens])
def test_a_generator_makes_masks_repeatable(draw):
    feature = torch.zeros(4, 8, 4, 4)
    masks = [draw(feature, ratio=0.5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_frames_and_pooled_features_have_masks_too():
    assert hidden_parts(torch.zeros(2, 8, 5), parts="positions", ratio=0.5).shape == (2, 1, 5)
    assert hidden_parts(torch.zeros(2, 8), parts="channels", ratio=0.5).shape == (2, 8)
    assert hidden_tokens(torch.zeros(2, 8, 5), ratio=0.5).shape == (2, 1, 5)


def test_what_is_generated_comes_from_the_surroundings():
    net, feature = conv_generator(2), torch.zeros(1, 2, 7, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(feature)[0, :, 3, 3].sum(), feature)
    assert (gradient.abs().sum(1)[0] > 0).nonzero().min() >= 1
    assert net(feature).shape == feature.shape


@pytest.mark.parametrize("ratio", [-0.1, 1.0, True, "half"])
def test_refuses_ratios_that_hide_all_or_less_than_nothing(ratio):
    with pytest.raises(ValueError, match=rf"`ratio` must be at least 0 and below 1, got {ratio!r}"):
        hidden_tokens(torch.zeros(2, 2, 2, 2), ratio=ratio)
    with pytest.raises(ValueError, match=rf"got {ratio!r}"):
        hidden_parts(torch.zeros(2, 2, 2, 2), parts="channels", ratio=ratio)


def test_refuses_unknown_parts():
    with pytest.raises(ValueError, match="`parts` must be one of 'channels', 'positions', got 'pixels'"):
        hidden_parts(torch.zeros(2, 2, 2, 2), parts="pixels", ratio=0.5)
