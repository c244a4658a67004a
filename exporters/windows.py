"""A stream of audio as the windows of fixed length that a keyword spotter takes; needs NumPy only."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from exporters.errors import InputError

Samples = npt.NDArray[np.float32]


class SlidingWindow:
    """Cuts a stream of samples into overlapping windows, whatever the sizes of the pieces in which it comes.

    Args:
        size: Samples of a window.
        hop: Samples from the beginning of one window to that of the next.

    Raises:
        ValueError: If ``size`` or ``hop`` is below 1, or ``hop`` is larger than ``size``.

    Example:
        >>> stream = SlidingWindow(size=4, hop=2)
        >>> [window.tolist() for window in stream.push(np.arange(5, dtype=np.float32))]
        [[[0.0, 1.0, 2.0, 3.0]]]
        >>> [window.tolist() for window in stream.push(np.float32([5, 6, 7]))]
        [[[2.0, 3.0, 4.0, 5.0]], [[4.0, 5.0, 6.0, 7.0]]]
    """

    def __init__(self, *, size: int = 16000, hop: int = 8000) -> None:
        if not 1 <= hop <= size:
            raise ValueError(f"`hop` must be from 1 to `size`, got {hop} and {size}.")
        self.size = size
        self.hop = hop
        self._pending: Samples = np.zeros(0, np.float32)

    def push(self, samples: npt.ArrayLike) -> Iterator[Samples]:
        """Take the next samples, and give every window that they complete.

        Args:
            samples: From -1 to 1, shape ``(n,)``, any ``n``.

        Returns:
            Windows, shape ``(1, size)``, float32, for `exporters.Session.run`. The samples are taken at once, also if
            no window is looked at.

        Raises:
            InputError: If ``samples`` has other axes or holds values that are not finite.
        """
        piece = np.asarray(samples, np.float32)
        if piece.ndim != 1 or not np.isfinite(piece).all():
            raise InputError(f"`samples` must be finite and of shape (n,), got shape {piece.shape}.")
        audio: Samples = np.concatenate([self._pending, piece])
        count = max(0, (len(audio) - self.size) // self.hop + 1)
        self._pending = audio[count * self.hop :]
        return (audio[np.newaxis, start : start + self.size] for start in range(0, count * self.hop, self.hop))
