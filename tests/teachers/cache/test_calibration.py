"""Hard crops get softened labels; thresholds of nothing are FKD."""

import pytest
import torch

from lightning_kd.teachers.cache.calibration import RegionCalibration

SURE, UNSURE = [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]


def test_hard_crops_get_the_softened_label_and_others_the_teachers_word():
    calibration = RegionCalibration(low=0.5, smoothing=0.3)
    found = calibration(torch.tensor([SURE, UNSURE]), torch.tensor([2, 1]))
    # 0.7 onehot + 0.3 / 3.
    torch.testing.assert_close(found, torch.tensor([SURE, [0.1, 0.8, 0.1]]))


def test_thresholds_of_nothing_change_nothing():
    calibration = RegionCalibration(drop=0.0, low=0.0, high=1.0)
    distribution = torch.tensor([SURE, UNSURE, [1.0, 0.0, 0.0]])
    assert torch.equal(calibration(distribution, torch.tensor([0, 0, 0])), distribution)
    assert all(calibration.accepts(confidence) for confidence in (0.0, 0.4, 1.0))


@pytest.mark.parametrize(
    ("confidence", "keep_easy", "accepted"),
    [(0.1, True, False), (0.2, True, True), (0.9, True, True), (0.9, False, False), (0.89, False, True)],
)
def test_crops_below_the_floor_and_perhaps_easy_ones_are_not_used(confidence, keep_easy, accepted):
    calibration = RegionCalibration(drop=0.2, low=0.3, high=0.9, keep_easy=keep_easy)
    assert calibration.accepts(confidence) is accepted


def test_thresholds_must_ascend():
    with pytest.raises(ValueError, match=r"ascending order, got 0\.5, 0\.4 and 1\.0"):
        RegionCalibration(drop=0.5, low=0.4)
    with pytest.raises(ValueError, match="`smoothing` must be a number from 0 to 1, got 2"):
        RegionCalibration(low=0.4, smoothing=2)
