"""Claims about the exit branches of OFA-KD."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.adapters import AdapterNorm, Geometry
from lightning_kd.adapters.branches import MapBranch, PatchMerging, TokenBranch
from lightning_kd.errors import SetupError
from lightning_kd.layout import Layout

MAP = Geometry(Layout("NCHW"), 16, (16, 16))


def tokens(width=64, grid=(8, 8), prefix=1):
    return Geometry(Layout("NLD", prefix_tokens=prefix, grid=grid), width, grid)


@pytest.mark.parametrize(("stages_left", "widths"), [(3, [16, 32, 64, 96]), (2, [16, 32, 96]), (1, [16, 96])])
def test_map_branches_double_the_channels_and_halve_the_grid(stages_left, widths):
    branch = MapBranch(MAP, classes=10, stages_left=stages_left, width=96)
    feature = torch.randn(2, 16, 16, 16)
    for index, block in enumerate(branch.convolutions):
        feature = block(feature)
        assert feature.shape == (2, widths[index + 1], *(16 // 2 ** (index + 1),) * 2)
    # Two depthwise and two pointwise convolutions without bias, BatchNorm and ReLU after each pair.
    kinds = [type(layer) for layer in branch.convolutions[0]]
    assert kinds == [nn.Conv2d, nn.Conv2d, AdapterNorm, nn.ReLU] * 2
    assert all(layer.bias is None for layer in branch.convolutions[0] if isinstance(layer, nn.Conv2d))


def test_the_map_branch_of_the_last_stage_is_one_convolution():
    branch = MapBranch(MAP, classes=10, stages_left=0, width=96)
    assert repr(branch.convolutions) == "Conv2d(16, 96, kernel_size=(1, 1), stride=(1, 1))"


@pytest.mark.parametrize("stages_left", range(4))
def test_map_branches_have_the_published_number_of_parameters(stages_left):
    # Block of c -> d: 9c + cc + 2c + 9c + cd + 2d; the last stage cd + d; classifier dk + k.
    widths = [16 * 2**depth for depth in range(stages_left)] + [96]
    blocks = sum(20 * c + c * c + c * d + 2 * d for c, d in itertools.pairwise(widths))
    expected = (blocks or 16 * 96 + 96) + 96 * 10 + 10
    branch = MapBranch(MAP, classes=10, stages_left=stages_left, width=96)
    assert sum(parameter.numel() for parameter in branch.parameters()) == expected


@pytest.mark.parametrize(
    ("grid", "activations"), [((7, 7), []), ((14, 14), ["GELU"]), ((56, 56), ["GELU", "GELU", "Identity"])]
)
def test_token_branches_merge_to_the_final_grid(grid, activations):
    branch = TokenBranch(tokens(24, grid, prefix=0), classes=10, stages_left=1, width=48, grid=(7, 7))
    assert [type(merging.activation).__name__ for merging in branch.merge] == activations
    widths = [(merging.reduction.in_features, merging.reduction.out_features) for merging in branch.merge]
    assert widths == [(96, 48), (192, 48), (192, 48)][: len(activations)]
    assert branch(torch.randn(2, grid[0] * grid[1], 24)).shape == (2, 10)


@pytest.mark.parametrize(("stages_left", "blocks"), [(3, 3), (2, 2), (1, 1), (0, 1)])
def test_token_branches_have_a_block_per_deeper_stage_and_at_least_one(stages_left, blocks):
    branch = TokenBranch(tokens(), classes=10, stages_left=stages_left, width=64, grid=(4, 4))
    assert len(branch.blocks) == blocks
    assert {block.attn.num_heads for block in branch.blocks} == {4}


def test_heads_divide_the_width():
    branch = TokenBranch(tokens(30, prefix=0), classes=10, stages_left=1, width=30, grid=(8, 8))
    assert branch.blocks[0].attn.num_heads == 2


def test_merging_reads_2x2_blocks():
    merging = PatchMerging(1, 4, nn.Identity())
    nn.init.eye_(merging.reduction.weight)
    merging.norm = nn.Identity()
    patches = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert merging(patches)[0, :, 0, 1].tolist() == [2.0, 3.0, 6.0, 7.0]


def test_the_first_prefix_token_is_classified_and_sees_the_patches():
    branch = TokenBranch(tokens(prefix=2), classes=10, stages_left=1, width=64, grid=(4, 4))
    feature = torch.randn(2, 66, 64)
    branch.blocks = nn.Identity()
    assert_close(branch(feature), branch.classifier(feature[:, 0]))
    branch = TokenBranch(tokens(prefix=2), classes=10, stages_left=1, width=64, grid=(4, 4))
    feature.requires_grad_()
    branch(feature).sum().backward()
    assert feature.grad.ne(0).any(dim=-1).all()


def test_without_prefix_tokens_the_mean_is_classified():
    branch = TokenBranch(tokens(prefix=0), classes=10, stages_left=1, width=64, grid=(8, 8))
    branch.blocks = nn.Identity()
    feature = torch.randn(2, 64, 64)
    assert_close(branch(feature), branch.classifier(feature.mean(dim=1)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_token_branches_read_maps_of_hierarchical_transformers(layout):
    branch = TokenBranch(Geometry(Layout(layout), 24, (4, 6)), classes=10, stages_left=2, width=32, grid=(2, 3))
    map_ = torch.randn(2, 24, 4, 6)
    assert branch(map_ if layout == "NCHW" else map_.movedim(1, -1)).shape == (2, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MapBranch(MAP, classes=10, stages_left=3, width=96),
        lambda: TokenBranch(tokens(), classes=10, stages_left=3, width=64, grid=(4, 4)),
    ],
)
def test_initial_weights_are_the_published_ones(make):
    branch = make()
    linear = [module for module in branch.modules() if isinstance(module, nn.Linear)]
    assert all(module.weight.std().item() == pytest.approx(0.02, rel=0.1) for module in linear)
    assert all(module.bias is None or not module.bias.any() for module in linear)
    pointwise = [m for m in branch.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    for module in pointwise:  # He, fan out: variance 2 / outputs
        assert module.weight.std().item() == pytest.approx((2 / module.out_channels) ** 0.5, rel=0.15)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: MapBranch(MAP, classes=1000, stages_left=3, width=96), (1, 16, 16, 16)),
        (lambda: MapBranch(MAP, classes=1000, stages_left=3, width=96), (1, 16, 2, 2)),
        (lambda: TokenBranch(tokens(), classes=1000, stages_left=2, width=64, grid=(2, 2)), (1, 65, 64)),
    ],
)
def test_one_sample_and_a_thousand_classes_train_under_bfloat16(make, shape):
    branch, feature = make(), torch.randn(*shape, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = branch(feature)
    scores.float().square().sum().backward()
    assert scores.shape == (1, 1000)
    assert all(parameter.grad.isfinite().all() for parameter in branch.parameters())
    assert feature.grad.isfinite().all()


def test_refuses_a_grid_that_halving_does_not_reach():
    with pytest.raises(SetupError, match=r"from the student's patch grid \(16, 16\) to \(7, 7\): .*final_grid="):
        TokenBranch(tokens(grid=(16, 16)), classes=10, stages_left=1, width=64, grid=(7, 7))
    with pytest.raises(SetupError, match=r"from the student's patch grid \(4, 4\) to \(8, 8\)"):
        TokenBranch(tokens(grid=(4, 4)), classes=10, stages_left=1, width=64, grid=(8, 8))


def test_refuses_prefix_tokens_of_another_width():
    with pytest.raises(SetupError, match=r"prefix tokens of width 64 cannot join patches merged to width 96"):
        TokenBranch(tokens(), classes=10, stages_left=1, width=96, grid=(4, 4))
