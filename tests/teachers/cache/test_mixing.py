"""Pairs that are mixed before the teacher sees them, and crops of one image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.errors import SetupError
from lightning_kd.teachers.cache.mixing import MixedReplay, SelfMix, partner_of, pasted, random_box, share_outside
from lightning_kd.teachers.cache.record import RecordFormat


def record_of(replay, values):
    records = np.zeros(1, RecordFormat(replay=replay.fields).dtype)
    for name, value in values.items():
        records[name] = value
    return records


@given(st.integers(1, 200), st.integers(0, 50))
def test_everyone_has_a_partner_who_has_him(count, seed):
    partners = [partner_of(index, count, np.random.default_rng(seed)) for index in range(count)]
    assert [partners[partner] for partner in partners] == list(range(count))
    alone = [index for index, partner in enumerate(partners) if index == partner]
    assert len(alone) == count % 2


def test_pairs_change_from_view_to_view(augmented):
    replay, data = MixedReplay(class_count=6), augmented()
    partners = {replay.draw(data, 3, view)[1]["partner"] for view in range(10)}
    assert len(partners) > 4


def test_a_mixture_repeats_bit_for_bit_from_its_record(augmented):
    replay, data = MixedReplay(class_count=6, seed=2), augmented()
    for view in range(8):
        (image, label), values = replay.draw(data, 5, view)
        ((again, same),) = replay.repeat(data, 5, record_of(replay, values))
        assert torch.equal(image, again)
        assert torch.equal(label, same)
        assert label.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_both_of_a_pair_are_mixed_by_the_same_share(mixup, cutmix):
    # The first image is all 0 and the second all 1, so the mean of a mixture is the share of the second.
    data = [(torch.zeros(1, 16, 16), 0), (torch.ones(1, 16, 16), 1)]
    replay = MixedReplay(mixup=mixup, cutmix=cutmix, class_count=2)
    for view in range(6):
        (first, first_label), one = replay.draw(data, 0, view)
        (second, second_label), two = replay.draw(data, 1, view)
        assert one["seed"] ^ one["partner_seed"] == two["seed"] ^ two["partner_seed"]
        assert first.mean().item() == pytest.approx(first_label[1].item(), abs=1e-6)
        assert torch.allclose(first + second, torch.ones(()))
        assert torch.allclose(first_label, second_label.flip(0))


def test_no_pair_is_mixed_at_probability_zero(augmented):
    replay, data = MixedReplay(probability=0.0, class_count=6), augmented()
    (_, label), _ = replay.draw(data, 5, view=0)
    assert label.tolist() == [0, 0, 0, 0, 0, 1]


def test_labels_stay_where_no_class_count_is_given():
    data = [(torch.zeros(1, 4, 4), "a"), (torch.ones(1, 4, 4), "b")]
    (_, label), _ = MixedReplay().draw(data, 1, view=0)
    assert label == "b"


def test_only_tensors_of_real_numbers_are_mixed():
    with pytest.raises(SetupError, match="floating-point tensor to be mixed, got Tensor"):
        MixedReplay().draw([(torch.zeros(1, 4, 4, dtype=torch.uint8), 0)] * 2, 0, view=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -1.0}, "`mixup` must be a finite number of at least 0"),
        ({"switch": 2.0}, "`switch` must be a number from 0 to 1"),
        ({"mixup": 0.0, "cutmix": 0.0}, "must not both be 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixedReplay(**options)


def test_self_mix_of_equal_crops_changes_nothing():
    crop = torch.rand(3, 8, 8)
    for mixture in SelfMix()([(crop, 1)] * 3, np.random.default_rng(0)):
        assert torch.equal(mixture.sample[0], crop)
        assert mixture.sample[1] == 1


def test_self_mix_takes_another_crop_of_the_same_image_and_says_how_much():
    samples = [(torch.full((1, 10, 10), float(index)), 0) for index in range(4)]
    for seed in range(10):
        for own, mixture in enumerate(SelfMix()(samples, np.random.default_rng(seed))):
            assert mixture.partner != own
            kept = (mixture.sample[0] == own).float().mean().item()
            assert kept == pytest.approx(mixture.share)
            assert set(mixture.sample[0].unique().tolist()) <= {float(own), float(mixture.partner)}


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 20))
def test_a_box_lies_in_the_image_and_its_share_is_its_area(height, width, stays, seed):
    image = torch.zeros(1, height, width)
    box = random_box(image, stays, np.random.default_rng(seed))
    mixed = pasted(image, torch.ones(1, height, width), box)
    assert 1 - mixed.mean().item() == pytest.approx(share_outside(image, box), abs=1e-6)
    assert share_outside(image, box) >= stays - 1e-9


def test_alpha_must_be_above_zero():
    with pytest.raises(ValueError, match="`alpha` must be a finite number above 0"):
        SelfMix(alpha=0.0)
