"""Claims about the supernet: what a sub-network computes, what it trains, and which one fits a budget."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd.compression import EncoderShape
from lightning_kd.errors import SetupError
from lightning_kd.students import (
    LIGHTHUBERT_BASE,
    LIGHTHUBERT_SMALL,
    SearchSpace,
    SpeechSupernet,
    find_subnet,
    supernet_encoder,
)

SPACE = SearchSpace(
    widths=(8, 12, 16), heads=(1, 2, 3), ratios=(1.0, 1.5), depths=(1, 2, 3), head_width=4, convolutions=(8,) * 7
)
INNER = EncoderShape(width=12, head_width=4, heads=(2, 1), intermediate=(18, 12), convolutions=(8,) * 7)

SPANS = torch.tensor([[False, True, True, False, False, True]])


@pytest.fixture(params=["Hubert", "Wav2Vec2"])
def supernet(request, speech_net):
    plain = speech_net(request.param, num_attention_heads=4, apply_spec_augment=True)
    encoder = supernet_encoder(type(plain), plain.config, SPACE)
    return SpeechSupernet(encoder.double(), SPACE).eval()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_spaces_hold_as_many_networks_as_published():
    assert LIGHTHUBERT_BASE.count == 6_530_347_008
    assert LIGHTHUBERT_SMALL.count == 951_892_141_473
    assert LIGHTHUBERT_BASE.largest.intermediate == (3072,) * 12
    assert LIGHTHUBERT_SMALL.smallest == EncoderShape(
        width=256, head_width=64, heads=(4,) * 10, intermediate=(768,) * 10, convolutions=(512,) * 7
    )


def test_the_largest_network_is_the_encoder_itself(supernet, audio):
    samples, mask = audio(2000, 1300, dtype=torch.float64)
    expected = supernet.encoder(samples, attention_mask=mask).last_hidden_state
    assert torch.equal(supernet(samples, attention_mask=mask).last_hidden_state, expected)


def test_a_sub_network_computes_what_its_extract_does(supernet, audio):
    samples, mask = audio(2000, 1300, dtype=torch.float64)
    hidden = SPANS.repeat(2, 1)
    supernet.shape = INNER
    alone = supernet.extract(INNER)
    for spans in (None, hidden):
        inputs = {"attention_mask": mask, "mask_time_indices": spans}
        expected = alone(samples, **inputs).last_hidden_state
        assert_close(supernet(samples, **inputs).last_hidden_state, expected, rtol=1e-12, atol=1e-12)
    assert EncoderShape.of(alone) == INNER


def test_an_extract_holds_the_front_of_every_weight(supernet):
    alone, whole = supernet.extract(INNER), supernet.encoder
    fronts = {
        "encoder.layers.1.attention.q_proj.weight": (4, 12),
        "encoder.layers.0.attention.out_proj.weight": (12, 8),
        "encoder.layers.0.feed_forward.output_dense.bias": (12,),
        "feature_extractor.conv_layers.3.conv.weight": (8, 8, 3),
        "masked_spec_embed": (12,),
    }
    for name, sizes in fronts.items():
        expected = whole.state_dict()[name][tuple(slice(size) for size in sizes)]
        assert torch.equal(alone.state_dict()[name], expected)
    # Positions by hand: the front of the effective kernel, in the same number of groups.
    states = torch.randn(2, 30, 12).double()
    kernel = whole.encoder.pos_conv_embed.conv
    convolved = F.conv1d(states.mT, kernel.weight[:12, :3], kernel.bias[:12], padding=8, groups=4)[..., :-1]
    assert_close(alone.encoder.pos_conv_embed(states), F.gelu(convolved).mT, rtol=1e-10, atol=1e-12)


def test_gradients_reach_the_front_of_the_weights_and_nothing_else(supernet, audio):
    samples, _ = audio(2000, dtype=torch.float64)
    supernet.shape = INNER
    supernet.train()
    supernet(samples, mask_time_indices=SPANS).last_hidden_state.square().sum().backward()
    weight = supernet.encoder.encoder.layers[1].feed_forward.intermediate_dense.weight
    assert weight.grad[:12, :12].ne(0).all()
    assert not weight.grad[12:].any()
    assert not weight.grad[:, 12:].any()
    assert supernet.encoder.encoder.layers[2].attention.q_proj.weight.grad is None
    assert supernet.encoder.feature_extractor.conv_layers[0].conv.weight.grad.any()


def test_gradients_equal_those_of_the_extract(supernet, audio):
    samples, _ = audio(2000, dtype=torch.float64)
    alone = supernet.extract(INNER).train()
    alone(samples, mask_time_indices=SPANS).last_hidden_state.square().sum().backward()
    supernet.shape = INNER
    supernet.train()(samples, mask_time_indices=SPANS).last_hidden_state.square().sum().backward()
    own = dict(supernet.encoder.named_parameters())
    for name, parameter in alone.named_parameters():
        if "pos_conv_embed.conv.parametrizations" in name or parameter.grad is None:
            continue
        front = tuple(slice(size) for size in parameter.shape)
        assert_close(own[name].grad[front], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_parameters_are_counted_as_they_are(supernet):
    for shape in (SPACE.smallest, INNER, SPACE.largest):
        assert supernet.parameters_of(shape) == parameters(supernet.extract(shape))


def test_the_largest_network_within_a_budget_is_found(supernet):
    budget = supernet.parameters_of(INNER)
    found = find_subnet(supernet, parameters=budget, samples=300, seed=1)
    assert 0.9 * budget < parameters(supernet.extract(found)) <= budget
    assert find_subnet(supernet, parameters=budget, samples=300, seed=1) == found
    least = supernet.parameters_of(SPACE.smallest)
    assert find_subnet(supernet, parameters=least, samples=20) == SPACE.smallest


def test_a_score_decides_among_those_within_the_budget(supernet):
    best = find_subnet(supernet, parameters=10**6, samples=30, score=lambda encoder: -parameters(encoder))
    assert best == SPACE.smallest


def test_every_choice_is_drawn():
    generator = torch.Generator().manual_seed(0)
    drawn = [SPACE.sample(generator) for _ in range(200)]
    assert {shape.width for shape in drawn} == {8, 12, 16}
    assert {len(shape.heads) for shape in drawn} == {1, 2, 3}
    assert {heads for shape in drawn for heads in shape.heads} == {1, 2, 3}
    assert {units for shape in drawn for units in shape.intermediate} == {8, 12, 16, 18, 24}


def test_drawing_and_restoring_choose_what_is_computed(supernet):
    supernet.draw(torch.Generator().manual_seed(3))
    assert supernet.shape == SPACE.sample(torch.Generator().manual_seed(3))
    supernet.restore()
    assert supernet.shape == SPACE.largest


def test_refuses_what_it_cannot_cut(speech_net, supernet):
    with pytest.raises(
        SetupError, match=r"must have the largest shape of the space, .*got .*width=16.*heads=\(2, 2, 2\)"
    ):
        SpeechSupernet(speech_net(), SPACE)
    supernet.encoder.config.layerdrop = 0.1
    with pytest.raises(SetupError, match=r"`layerdrop` of the encoder must be 0, got 0.1"):
        SpeechSupernet(supernet.encoder, SPACE)
    plain = speech_net(num_conv_pos_embedding_groups=8)
    with pytest.raises(SetupError, match="multiples of the 8 groups of positions, got 12"):
        SpeechSupernet(supernet_encoder(type(plain), plain.config, SPACE), SPACE)
    with pytest.raises(SetupError, match="HubertForCTC: pass its hubert"):
        SpeechSupernet(speech_net(kind="ForCTC"), SPACE)
    with pytest.raises(SetupError, match=r"at least those of the smallest sub-network, \d+, got 10"):
        find_subnet(supernet, parameters=10)
    with pytest.raises(ValueError, match="`heads` must hold numbers above 0"):
        SearchSpace(widths=(8,), heads=(0,), ratios=(1.0,), depths=(1,))
