"""Claims about the adapters of TransKD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.adapters import Geometry
from lightning_kd.adapters.fusion import DeepToShallowFusion
from lightning_kd.adapters.transkd import EmbeddingAssistant, GlobalLocalMixer, SelectiveMerge
from lightning_kd.errors import ShapeError
from lightning_kd.layout import Layout

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def weights_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def softmax(scores, axis):
    exponentials = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def reference_merge(w, x, u):
    """Selective-kernel attention with the statistics of the batch, as matrices over ``(N, C)``."""
    squeezed = (x + u).mean(axis=(2, 3)) @ w["squeeze.0.weight"][:, :, 0, 0].T
    standard = (squeezed - squeezed.mean(0)) / np.sqrt(squeezed.var(0) + 1e-5)
    s = np.maximum(standard * w["squeeze.1.weight"] + w["squeeze.1.bias"], 0)
    scores = [s @ w[f"select.{i}.weight"][:, :, 0, 0].T + w[f"select.{i}.bias"] for i in range(2)]
    first, second = softmax(np.stack(scores), axis=0)[..., None, None]
    return first * x + second * u


def reference_mixer(w, tokens, heads):
    """Tokens ``(N, L, D)``: attention head by head, convolutions as three shifted products."""
    _, length, width = tokens.shape
    q, k, v = np.split(tokens @ w["attend.weight"].T, 3, axis=2)
    mixed = np.zeros_like(tokens)
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        scores = np.einsum("nld,nmd->nlm", q[..., own], k[..., own]) / math.sqrt(width / heads)
        mixed[..., own] = np.einsum("nlm,nmd->nld", softmax(scores, axis=2), v[..., own])
    attended = mixed @ w["join.weight"].T + w["join.bias"]

    def convolved(name):
        padded = np.pad(tokens, ((0, 0), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + length] @ w[f"{name}.weight"][:, :, i].T for i in range(3)]
        return sum(shifted) + w[f"{name}.bias"]

    local = convolved("local") / (1 + np.exp(-convolved("gate")))
    return w["global_scale"] * attended + w["local_scale"] * local


def merge_in_double(width=64):
    return SelectiveMerge(width).double()


def test_merge_has_the_published_widths():
    assert [tuple(p.shape) for p in SelectiveMerge(64).parameters()] == [
        (32, 64, 1, 1), *[(32,)] * 2, *[(64, 32, 1, 1), (64,)] * 2
    ]  # fmt: skip
    assert SelectiveMerge(1024).squeeze[0].out_channels == 64


@given(st.integers(0, 10_000))
def test_merge_equals_the_matrix_form(seed):
    torch.manual_seed(seed)
    merge, (x, u) = merge_in_double(), torch.randn(2, 3, 64, 4, 5, dtype=torch.float64)
    assert_close(merge(x, u), torch.from_numpy(reference_merge(weights_of(merge), x.numpy(), u.numpy())), **EXACT)


@given(st.integers(0, 10_000))
def test_merge_lies_between_its_maps(seed):
    torch.manual_seed(seed)
    merge, (x, u) = merge_in_double(), torch.randn(2, 3, 64, 4, 5, dtype=torch.float64)
    merged = merge(x, u)
    assert bool((merged >= torch.minimum(x, u) - 1e-12).all())
    assert bool((merged <= torch.maximum(x, u) + 1e-12).all())
    assert_close(merge(x, x), x, **EXACT)


def test_merge_with_equal_branches_is_the_mean():
    merge, (x, u) = merge_in_double(), torch.randn(2, 3, 64, 4, 5, dtype=torch.float64)
    merge.select[1].load_state_dict(merge.select[0].state_dict())
    assert_close(merge(x, u), (x + u) / 2, **EXACT)


def test_merge_of_one_sample_uses_running_statistics_and_leaves_them():
    merge, (x, u) = merge_in_double(), torch.randn(2, 1, 64, 4, 5, dtype=torch.float64)
    before = merge.squeeze[1].running_mean.clone()
    trained = merge(x, u)
    assert_close(trained, merge.eval()(x, u), **EXACT)
    assert torch.equal(merge.squeeze[1].running_mean, before)


@pytest.mark.parametrize("grid", [(3, 5), (7,), (1, 1)])
@pytest.mark.parametrize("heads", [1, 4])
def test_mixer_equals_the_definition(grid, heads):
    mixer = GlobalLocalMixer(8, heads=heads).double()
    with torch.no_grad():
        mixer.global_scale.fill_(0.3), mixer.local_scale.fill_(-2.0)
    embedding = torch.randn(2, 8, *grid, dtype=torch.float64)
    tokens = embedding.flatten(2).transpose(1, 2).numpy()
    expected = torch.from_numpy(reference_mixer(weights_of(mixer), tokens, heads))
    assert_close(mixer(embedding), expected.transpose(1, 2).reshape(embedding.shape), **EXACT)


def test_mixer_starts_with_factors_of_one_and_without_the_embedding_itself():
    plain, residual = GlobalLocalMixer(8), GlobalLocalMixer(8, residual=True)
    residual.load_state_dict(plain.state_dict())
    assert plain.global_scale == plain.local_scale == 1.0
    embedding = torch.randn(2, 8, 3, 3)
    assert_close(residual(embedding), plain(embedding) + embedding)
    assert "heads=8, residual=True" in repr(residual)


@pytest.mark.parametrize(("stride", "kernel", "padding"), [(4, 7, 3), (2, 3, 1), (1, 1, 0), (16, 31, 15)])
def test_assistant_has_the_published_kernels(stride, kernel, padding):
    embed = EmbeddingAssistant(3, 8, stride=(stride, stride)).embed
    assert (embed.kernel_size, embed.stride, embed.padding) == ((kernel,) * 2, (stride,) * 2, (padding,) * 2)


def test_assistant_starts_as_published():
    # 64 filters of 7 x 7: standard deviation sqrt(2 / (64 * 49)) = 0.02525, over 9408 weights known to 1 %.
    embed = EmbeddingAssistant(3, 64, stride=(4, 4)).embed
    assert embed.weight.std().item() == pytest.approx(0.02525, rel=0.03)
    assert embed.bias.eq(0).all()


def test_assistant_normalises_each_token():
    embedding = EmbeddingAssistant(3, 16, stride=(4, 2)).double()(torch.randn(2, 3, 30, 11, dtype=torch.float64))
    assert embedding.shape == (2, 16, 8, 6)
    assert_close(embedding.mean(1), torch.zeros(2, 8, 6, dtype=torch.float64), **EXACT)
    assert_close(embedding.var(1, correction=0), torch.ones(2, 8, 6, dtype=torch.float64), rtol=1e-2, atol=0)


def levels(widths, grids):
    return [Geometry(Layout("NCHW"), width, grid) for width, grid in zip(widths, grids, strict=True)]


def test_every_fused_map_reaches_the_deepest_level_of_the_student():
    grids = [(8, 8), (4, 4), (2, 2), (1, 1)]
    fusion = DeepToShallowFusion(
        levels((4, 8, 12, 16), grids), levels((6, 8, 10, 12), grids), middle=64, merger=SelectiveMerge
    )
    maps = [torch.randn(2, width, *grid, requires_grad=True) for width, grid in zip((4, 8, 12, 16), grids, strict=True)]
    outputs = fusion(maps)
    assert [output.shape[1] for output in outputs] == [6, 8, 10, 12]
    for depth, output in enumerate(outputs):
        reached = torch.autograd.grad(output.square().sum(), maps, retain_graph=True, allow_unused=True)
        # The map of a level is made from its own and all deeper ones.
        assert [g is not None and bool(g.ne(0).any()) for g in reached] == [level >= depth for level in range(4)]


@pytest.mark.parametrize("module", ["merge", "mixer", "assistant"])
@pytest.mark.parametrize("samples", [1, 2])
def test_values_and_gradients_are_finite_under_bfloat16_autocast(module, samples):
    x = torch.randn(samples, 64, 4, 4, requires_grad=True)
    merge, mixer, assistant = SelectiveMerge(64), GlobalLocalMixer(64), EmbeddingAssistant(64, 8, stride=(2, 2))
    made = {"merge": (merge, lambda: merge(x, 2 * x)), "mixer": (mixer, lambda: mixer(x))}
    net, run = made.get(module, (assistant, lambda: assistant(x)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run()
    output.float().square().sum().backward()
    assert output.isfinite().all()
    for tensor in (x, *net.parameters()):
        assert tensor.grad.isfinite().all()


def test_widths_and_strides_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"`heads` must divide the embedding's width of 12, got 8"):
        GlobalLocalMixer(12)
    with pytest.raises(ValueError, match=r"`heads` must be a finite number above 0, got 0"):
        GlobalLocalMixer(12, heads=0)
    with pytest.raises(ValueError, match=r"`stride` must be a finite number above 0, got 0"):
        EmbeddingAssistant(3, 8, stride=(2, 0))
