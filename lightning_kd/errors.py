"""Errors raised by lightning-kd; catch `KDError` for all of them.

KDError
├── ShapeError         tensors that do not fit together (also a ValueError)
├── LayoutError        a feature whose axes cannot be told apart, or contradict the declaration (also a ValueError)
├── TapError           a tap that names no module, did not fire, or was overwritten (also a ValueError)
├── SetupError         a Trainer, strategy, module or argument that distillation cannot work with (also a ValueError)
├── TranscriptError    a transcript that is empty, too long or written in other tokens (also a ValueError)
├── TermError          a loss term that is zero, not finite or without gradient on the first step (also a ValueError)
├── AudioError         audio that is too short, not finite, or of another sample rate (also a ValueError)
├── CacheError         a cache of teacher outputs that is damaged, unfinished or of something else (also a ValueError)
├── StorageError       a file of a cache that cannot be read or written (also an OSError)
└── MissingExtraError  an optional dependency that is not installed (also an ImportError)
"""


class KDError(Exception):
    """Base of every error that lightning-kd raises on purpose."""


class ShapeError(KDError, ValueError):
    """Tensors whose shapes do not fit together."""


class LayoutError(KDError, ValueError):
    """A feature whose axes cannot be told apart, or contradict what was declared."""


class TapError(KDError, ValueError):
    """A tap that names no module, did not fire, or whose tensor was overwritten."""


class SetupError(KDError, ValueError):
    """A Trainer, strategy, module or argument that distillation cannot work with."""


class TermError(KDError, ValueError):
    """A loss term that is zero, not finite or without gradient where it must not be."""


class AudioError(KDError, ValueError):
    """Audio that is too short, not finite, or of another sample rate than the model's."""


class TranscriptError(KDError, ValueError):
    """A transcript that is empty, too long, or written in other tokens."""


class CacheError(KDError, ValueError):
    """A cache of teacher outputs that is damaged, unfinished, or was written from something else."""


class StorageError(KDError, OSError):
    """A file of a cache that cannot be read or written, on a full disk for example."""


class MissingExtraError(KDError, ImportError):
    """An optional dependency that is not installed; the message names the extra."""
