"""A speech teacher that hears every batch twice: with spans hidden, and whole."""

from typing import Any

from torch import nn
from typing_extensions import override


class MaskedAndClean(nn.Module):
    """Runs a speech encoder on masked input first and on the whole input second, as ARMHuBERT's teacher.

    Taps tell the two calls apart, ``Tap(path, call=0)`` and ``Tap(path, call=1)``, and name the encoder ``model``.

    Args:
        model: A HuBERT, wav2vec 2.0 or WavLM of transformers.

    Example:
        >>> class Encoder(nn.Module):
        ...     def forward(self, audio, mask_time_indices=None):
        ...         return "whole" if mask_time_indices is None else "masked"
        >>> MaskedAndClean(Encoder())("audio", mask_time_indices="spans")
        ('masked', 'whole')
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, *args: Any, mask_time_indices: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """Return the output for the masked input and that for the whole one."""
        masked = self.model(*args, mask_time_indices=mask_time_indices, **kwargs)
        return masked, self.model(*args, **kwargs)
