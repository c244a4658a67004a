"""Claims about the fusion of levels from deep to shallow."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.adapters import Geometry
from lightning_kd.adapters.fusion import AttentionMerge, DeepToShallowFusion
from lightning_kd.errors import ShapeError
from lightning_kd.layout import Layout

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class Halves(nn.Module):
    """The mean of both maps."""

    def forward(self, own, deeper):
        return (own + deeper) / 2


def level(width, *grid):
    return Geometry(Layout("NCHW"), width, grid)


def fusion(student, teacher, merger=AttentionMerge, middle=6):
    return DeepToShallowFusion(student, teacher, middle=middle, merger=merger).double()


def maps(levels, n=2):
    return [torch.randn(n, g.width, *g.plane, dtype=torch.float64) for g in levels]


STUDENT = [level(4, 8, 8), level(5, 4, 4), level(7, 2, 2), level(7)]
TEACHER = [level(3, 8, 8), level(8, 4, 4), level(9, 2, 2), level(9)]


def test_each_level_has_the_teachers_width_and_grid():
    outputs = fusion(STUDENT, TEACHER)(maps(STUDENT))
    assert [tuple(output.shape[1:]) for output in outputs] == [(t.width, *t.plane) for t in TEACHER]


def test_another_grid_becomes_the_teachers():
    teacher = [level(3, 7, 5), level(8, 3, 3), level(9, 4, 4), level(9)]
    assert [o.shape[2:] for o in fusion(STUDENT, teacher)(maps(STUDENT))] == [(7, 5), (3, 3), (4, 4), (1, 1)]


def test_the_shallowest_level_teaches_every_deeper_one():
    features = [map_.requires_grad_() for map_ in maps(STUDENT)]
    fusion(STUDENT, TEACHER)(features)[0].square().sum().backward()
    assert all(map_.grad.abs().sum() > 0 for map_ in features)


def test_a_deeper_level_is_blind_to_shallower_ones():
    features = maps(STUDENT)
    net = fusion(STUDENT, TEACHER)
    before = net(features)
    after = net([torch.zeros_like(features[0]), *features[1:]])
    assert_close(after[1:], before[1:], **EXACT)
    assert not torch.equal(after[0], before[0])


def test_the_fused_map_and_not_the_output_is_passed_upwards():
    # Bare sums: with an identity in front, r_1 = (x_1 + up(r_2)) / 2 whatever the output convolutions are.
    levels = [level(2, 2, 2), level(2, 1, 1)]
    net = fusion(levels, levels, merger=lambda _: Halves(), middle=2).eval()
    for part in net.levels:
        part.enter = nn.Identity()
    net.levels[0].leave = nn.Identity()
    shallow, deep = maps(levels)
    assert_close(net([shallow, deep])[0], (shallow + deep) / 2, **EXACT)


def test_attention_weighs_every_position_of_both_maps():
    merge = AttentionMerge(3).double()
    own, deeper = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).unbind()
    weight, bias = (parameter.detach().numpy() for parameter in merge.attention.parameters())
    stacked = np.concatenate([own.numpy(), deeper.numpy()], axis=1)
    scores = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], stacked) + bias[None, :, None, None]
    weights = 1 / (1 + np.exp(-scores))
    expected = weights[:, :1] * own.numpy() + weights[:, 1:] * deeper.numpy()
    np.testing.assert_allclose(merge(own, deeper).detach().numpy(), expected, rtol=1e-12)


def test_trains_on_a_single_sample():
    features = [map_.requires_grad_() for map_ in maps(STUDENT, n=1)]
    outputs = fusion(STUDENT, TEACHER).train()(features)
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    assert all(map_.grad.isfinite().all() for map_ in features)


def test_refuses_levels_that_do_not_pair_up():
    with pytest.raises(ShapeError, match="one geometry per level, got 4 and 3"):
        fusion(STUDENT, TEACHER[:3])
    with pytest.raises(ShapeError, match="one geometry per level, got 0 and 0"):
        fusion([], [])
