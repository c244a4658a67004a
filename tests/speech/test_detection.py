import pytest
import torch

from lightning_kd.errors import ShapeError
from lightning_kd.speech import FalseAcceptsPerHour, KeywordRates, keyword_rates, threshold_for

# Probabilities of the classes silence, other, yes, no; the first four windows are background.
PROBABILITIES = torch.tensor(
    [
        [0.7, 0.1, 0.1, 0.1],  # rejected: background is most likely
        [0.1, 0.2, 0.6, 0.1],  # accepted as yes at 0.6
        [0.1, 0.0, 0.0, 0.9],  # accepted as no at 0.9
        [0.3, 0.3, 0.4, 0.0],  # yes, with less than a half
        [0.0, 0.1, 0.8, 0.1],  # yes, and it is
        [0.0, 0.1, 0.8, 0.1],  # yes, but it is no
        [0.3, 0.3, 0.0, 0.4],  # no, and it is, with less than a half
    ],
    dtype=torch.float64,
)
LOGITS, LABELS = PROBABILITIES.log(), torch.tensor([0, 1, 1, 0, 2, 3, 3])
BACKGROUND = (0, 1)


@pytest.mark.parametrize(
    ("threshold", "accepts", "rejects"), [(0.0, 3, 1 / 3), (0.5, 2, 2 / 3), (0.7, 1, 2 / 3), (0.95, 0, 1.0)]
)
def test_rates_are_counted_per_hour_of_background_and_per_keyword(threshold, accepts, rejects):
    rates = keyword_rates(LOGITS, LABELS, background=BACKGROUND, threshold=threshold, window_seconds=0.5)
    # Four windows of half a second are 2 s, so that one false accept is 1800 per hour.
    assert rates.false_accepts_per_hour == pytest.approx(accepts * 1800)
    assert rates.false_reject_rate == pytest.approx(rejects)


def test_the_metric_adds_up_batches():
    metric = FalseAcceptsPerHour(BACKGROUND, window_seconds=0.5)
    assert metric.heard == 0
    for logits, labels in zip(LOGITS.split(3), LABELS.split(3), strict=True):
        metric.update(logits, labels)
    assert metric.compute().item() == pytest.approx(2 * 1800)
    metric.reset()
    metric.update(LOGITS[4:], LABELS[4:])
    assert metric.compute().item() == 0.0  # no background was heard


def test_the_threshold_keeps_false_accepts_within_the_limit():
    # With windows of a second, 4 s of background: one false accept is 900 per hour.
    for most, allowed in [(0, 0), (899, 0), (900, 1), (1800, 2), (2700, 3), (9000, 3)]:
        threshold = threshold_for(LOGITS, LABELS, background=BACKGROUND, most_per_hour=most)
        rates = keyword_rates(LOGITS, LABELS, background=BACKGROUND, threshold=threshold)
        assert rates.false_accepts_per_hour == allowed * 900
    assert threshold_for(LOGITS, LABELS, background=BACKGROUND, most_per_hour=900) == pytest.approx(0.6, abs=1e-6)
    assert threshold_for(LOGITS, LABELS, background=BACKGROUND, most_per_hour=2700) == 0.0


def test_a_perfect_spotter_has_no_errors():
    rates = keyword_rates(torch.eye(3) * 50, torch.arange(3), background=[0])
    assert rates == KeywordRates(threshold=0.5, false_accepts_per_hour=0.0, false_reject_rate=0.0)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="`background` must name at least one class"):
        FalseAcceptsPerHour([])
    with pytest.raises(ValueError, match=r"`labels` must hold background \(0, 1\) and keywords, got one kind only"):
        keyword_rates(LOGITS[:4], LABELS[:4], background=BACKGROUND)
    with pytest.raises(ValueError, match=r"`labels` must hold background \(0, 1\), got none"):
        threshold_for(LOGITS[4:], LABELS[4:], background=BACKGROUND, most_per_hour=1)
    with pytest.raises(ValueError, match=r"`threshold` must be a number from 0 to 1, got 1\.5"):
        keyword_rates(LOGITS, LABELS, background=BACKGROUND, threshold=1.5)
    with pytest.raises(ShapeError, match=r"got \(7, 4\) and \(3,\)"):
        keyword_rates(LOGITS, LABELS[:3], background=BACKGROUND)
