"""Claims about bringing frames of two rates together, and about heads that predict hidden states."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd.adapters.frames import SplitHeads, UpsamplingHead, align_frames
from lightning_kd.errors import ShapeError
from lightning_kd.frames import lengths_to_mask

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize(("frames", "its"), [(7, 7), (7, 8), (8, 7)])
def test_one_rate_is_cropped_to_the_shorter_and_to_what_both_have(frames, its):
    student, teacher = torch.randn(2, frames, 3), torch.randn(2, its, 5)
    masks = lengths_to_mask(torch.tensor([7, 4]), frames), lengths_to_mask(torch.tensor([6, 5]), its)
    s, t, mask = align_frames(student, teacher, *masks)
    assert torch.equal(s, student[:, :7])
    assert torch.equal(t, teacher[:, :7])
    assert mask.sum(dim=1).tolist() == [6, 4]


def test_one_mask_is_enough_and_none_is_none():
    student, teacher = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    mask = lengths_to_mask(torch.tensor([4, 2]), 4)
    assert torch.equal(align_frames(student, teacher, mask)[2], mask)
    assert torch.equal(align_frames(student, teacher, None, mask)[2], mask)
    assert align_frames(student, teacher)[2] is None


@pytest.mark.parametrize(("frames", "its"), [(5, 10), (10, 5), (7, 24), (24, 7)])
def test_resampling_is_that_of_torch(frames, its):
    student, teacher = torch.randn(2, frames, 3).double(), torch.randn(2, its, 5).double()
    linear = F.interpolate(teacher.mT, frames, mode="linear", align_corners=False).mT
    # Positions are computed in float32.
    assert_close(align_frames(student, teacher)[1], linear, rtol=1e-5, atol=1e-5)
    pooled = F.adaptive_avg_pool1d(teacher.mT, frames).mT
    assert_close(align_frames(student, teacher, method="pool")[1], pooled, **EXACT)


@pytest.mark.parametrize("method", ["linear", "pool"])
def test_padding_does_not_change_what_is_resampled(method):
    lengths, its = torch.tensor([12, 5, 1]), torch.tensor([24, 11, 3])
    student, teacher = torch.randn(3, 12, 2).double(), torch.randn(3, 24, 4).double()
    masks = lengths_to_mask(lengths, 12), lengths_to_mask(its, 24)
    _, together, mask = align_frames(student, teacher, *masks, method=method)
    assert torch.equal(mask, masks[0])
    for row, (length, its_length) in enumerate(zip(lengths.tolist(), its.tolist(), strict=True)):
        alone = teacher[row : row + 1, :its_length]
        wanted = (F.interpolate if method == "linear" else F.adaptive_avg_pool1d)(
            alone.mT, length, **({"mode": "linear"} if method == "linear" else {})
        ).mT
        assert_close(together[row : row + 1, :length], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["linear", "pool"])
def test_an_utterance_without_frames_stays_finite(method):
    masks = lengths_to_mask(torch.tensor([4, 0]), 4), lengths_to_mask(torch.tensor([8, 0]), 8)
    _, teacher, _ = align_frames(torch.randn(2, 4, 2), torch.randn(2, 8, 2), *masks, method=method)
    assert teacher.isfinite().all()


def test_what_does_not_fit_raises():
    frames = torch.zeros(2, 4, 3)
    with pytest.raises(ShapeError, match=r"shape \(N, T, D\) with one N, got \(2, 4, 3\) and \(1, 4, 3\)"):
        align_frames(frames, frames[:1])
    with pytest.raises(ValueError, match="`method` must be one of 'linear', 'pool', got 'cubic'"):
        align_frames(frames, frames, method="cubic")


def test_each_target_has_a_head_of_its_own():
    heads, hidden = SplitHeads(4, 6, targets=2).double(), torch.randn(2, 3, 4).double()
    group = F.gelu(hidden @ heads.hidden.weight.mT + heads.hidden.bias)
    for target in range(2):
        expected = group[..., 6 * target : 6 * (target + 1)] @ heads.weight[target] + heads.bias[target]
        assert_close(heads(hidden)[:, :, target], expected, **EXACT)


def test_heads_start_within_the_published_bound():
    heads = SplitHeads(4, 16, targets=3)
    for values in (heads.weight, heads.bias):
        assert 0.2 < values.abs().max() <= 0.25  # 16 ** -0.5


def test_a_head_brings_frames_back_to_the_teachers_rate():
    head = UpsamplingHead(4, 6, factor=2)
    assert head(torch.zeros(2, 5, 4)).shape == (2, 10, 6)
    # Kernel and stride are equal: a frame makes two of its own.
    one = torch.zeros(1, 5, 4)
    one[:, 3] = 1.0
    changed = (head(one) - head(torch.zeros(1, 5, 4))).abs().amax(dim=2)[0] > 0
    assert changed.nonzero().flatten().tolist() == [6, 7]
    assert [name for name, _ in UpsamplingHead(4, 6).named_parameters()] == ["project.weight", "project.bias"]
