"""Claims about the spans of frames that are hidden."""

import pytest
import torch

from lightning_kd.speech import SpanMask

HUBERT = SpanMask(share=0.65, shortest=10, longest=10, gap=None)


def runs(row):
    """Lengths of the runs of True."""
    text = "".join("x" if value else " " for value in row.tolist())
    return [len(run) for run in text.split()]


@pytest.mark.parametrize("spans", [SpanMask(), HUBERT, SpanMask(share=1.0), SpanMask(longest=1, shortest=1, gap=0)])
def test_padding_is_never_hidden(spans):
    lengths = torch.tensor([200, 57, 10, 1, 0])
    for _ in range(20):
        hidden = spans(lengths, frames=200)
        assert hidden.shape == (5, 200)
        assert hidden.dtype == torch.bool
        for row, length in zip(hidden, lengths, strict=True):
            assert not row[length:].any()


def test_about_the_share_is_hidden():
    # With the default, spans that find no room are left out, and each costs a gap of one frame.
    assert 0.6 < SpanMask()(torch.full((200,), 300), frames=300).float().mean() < 0.8
    # HuBERT's overlap: 1 - (1 - 10 / 300) ** 19.5 = 0.48.
    assert 0.42 < HUBERT(torch.full((200,), 300), frames=300).float().mean() < 0.54
    assert not SpanMask(share=0.0, shortest=0, longest=4, gap=1)(torch.full((50,), 2), frames=2).all()


def test_spans_keep_their_distance_and_their_length():
    for row in SpanMask(shortest=2, longest=5, gap=3)(torch.full((50,), 100), frames=100):
        assert runs(row)
        assert all(2 <= run <= 5 for run in runs(row))
        text = "".join("x" if value else " " for value in row.tolist()).strip()
        gaps = [len(gap) for gap in text.replace("x", "|").split("|") if gap]
        assert all(gap >= 3 for gap in gaps)


def test_they_lie_anywhere():
    hidden = SpanMask(share=0.2, shortest=4, longest=4)(torch.full((400,), 50), frames=50).float().mean(dim=0)
    assert hidden.min() > 0.02
    assert hidden[10:40].std() < 0.05


def test_numbers_that_make_no_sense_raise():
    with pytest.raises(ValueError, match=r"`share` must be a number from 0 to 1, got 1\.5"):
        SpanMask(share=1.5)
    with pytest.raises(ValueError, match="`longest` must be at least 1 and `shortest`, got 2 and 3 frames"):
        SpanMask(shortest=3, longest=2)
    with pytest.raises(ValueError, match="`gap` must be a number of frames, or None for spans that overlap, got -1"):
        SpanMask(gap=-1)
