import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import SlidingWindow
from exporters.errors import InputError


@given(
    st.integers(1, 9).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))),
    st.lists(st.integers(0, 12), max_size=6),
)
def test_windows_do_not_depend_on_the_pieces(sizes, pieces):
    size, hop = sizes
    samples = np.arange(sum(pieces), dtype=np.float32)
    stream = SlidingWindow(size=size, hop=hop)
    windows = [window for piece in np.split(samples, np.cumsum(pieces, dtype=int)) for window in stream.push(piece)]
    expected = [samples[None, start : start + size] for start in range(0, len(samples) - size + 1, hop)]
    assert [window.tolist() for window in windows] == [window.tolist() for window in expected]
    assert all(window.dtype == np.float32 and window.shape == (1, size) for window in windows)


def test_samples_count_although_nobody_looks_at_the_windows():
    stream = SlidingWindow(size=4, hop=4)
    stream.push(np.zeros(6))
    (window,) = stream.push(np.ones(2))
    assert window.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_what_is_no_audio_is_refused():
    with pytest.raises(InputError, match=r"`samples` must be finite and of shape \(n,\), got shape \(1, 3\)"):
        SlidingWindow().push(np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"`samples` must be finite and of shape \(n,\), got shape \(1,\)"):
        SlidingWindow().push([np.nan])
    with pytest.raises(ValueError, match="`hop` must be from 1 to `size`, got 5 and 4"):
        SlidingWindow(size=4, hop=5)
