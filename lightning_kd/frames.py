"""Which frames of a padded batch are valid: from the lengths of the audio to a mask at the rate of a feature."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_kd.errors import ShapeError, TapError

if TYPE_CHECKING:
    from lightning_kd.taps import Inputs

Conversion = Callable[[Tensor], Tensor]


def conv_lengths(lengths: Tensor, convolutions: Sequence[tuple[int, int]]) -> Tensor:
    """Lengths after convolutions without padding: ``floor((L - kernel) / stride) + 1``, one after the other.

    What is shorter than the receptive field has length 0.

    Args:
        lengths: Lengths before, shape ``(N,)``, whole numbers.
        convolutions: Kernel and stride of each convolution, in order.

    Returns:
        Lengths after, same shape.

    Example:
        >>> wav2vec2 = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]
        >>> conv_lengths(torch.tensor([399, 400, 16000]), wav2vec2)
        tensor([ 0,  1, 49])
    """
    for kernel, stride in convolutions:
        lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
    return lengths.clamp(min=0)


def lengths_to_mask(lengths: Tensor, frames: int) -> Tensor:
    """Mask of the first ``lengths`` of ``frames`` frames.

    Args:
        lengths: Valid frames of each sample, shape ``(N,)``, whole numbers.
        frames: Frames of the padded batch.

    Returns:
        Shape ``(N, frames)``, boolean, True where a frame is valid.

    Example:
        >>> lengths_to_mask(torch.tensor([1, 3]), 3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def mask_at_rate(given: Tensor, frames: int, *, steps: int | None = None, model: nn.Module | None = None) -> Tensor:
    """Mask of a feature's frames from what is known at the rate of the input; padding is on the right.

    A conversion is right if it makes ``frames`` frames of the padded input: the model's own, found as
    ``frame_lengths`` or as transformers' ``_get_feat_extract_output_lengths``, or none where the rates are equal. Where
    none fits exactly but the ratio is whole, a frame is valid if any of what it is made of is.

    Args:
        given: Valid steps of the input: lengths, shape ``(N,)``, or a mask, shape ``(N, steps)``.
        frames: Frames of the feature.
        steps: Steps of the padded input; a mask tells them itself.
        model: Which made the feature; it or a submodule may know how many frames it makes.

    Returns:
        Shape ``(N, frames)``, boolean.

    Raises:
        ShapeError: If ``given`` is neither.
        TapError: If no conversion makes ``frames`` frames of the input.

    Example:
        >>> mask_at_rate(torch.tensor([400, 641]), 2, steps=640 * 2)[:, 1]  # two frames of 640 samples
        tensor([False,  True])
    """
    if given.ndim == 2:
        steps = given.shape[1]
        if steps == frames:
            return given.bool()
        lengths = given.sum(dim=1)
    elif given.ndim == 1:
        lengths = given
    else:
        raise ShapeError(f"`lengths` must have shape (N,), or be a mask (N, steps), got {tuple(given.shape)}.")
    if steps is None:
        raise TapError("the steps of the padded input are not known: give a mask (N, steps) instead of lengths.")
    rates = [(int(convert(torch.tensor([steps]))), convert) for convert in _conversions(model)]
    for total, convert in rates:
        if total == frames:
            return lengths_to_mask(convert(lengths), frames)
    for total, convert in rates:
        if frames > 0 and total % frames == 0:
            ratio = total // frames
            return lengths_to_mask(torch.div(convert(lengths) + ratio - 1, ratio, rounding_mode="floor"), frames)
    made = ", ".join(str(total) for total, _ in rates)
    raise TapError(
        f"the feature has {frames} frames, and of the padded input of {steps} steps only {made} could be told: declare "
        "which are valid with a function of the inputs that returns a mask (N, frames), Tap(path, lengths=...)."
    )


def _conversions(model: nn.Module | None) -> Iterator[Conversion]:
    for name in ("frame_lengths", "_get_feat_extract_output_lengths"):
        for module in () if model is None else model.modules():
            convert = getattr(module, name, None)
            if callable(convert):
                yield convert
                break
    yield _unchanged


def _unchanged(lengths: Tensor) -> Tensor:
    return lengths


def lengths_before_zeros(inputs: "Inputs") -> Tensor:
    """Lengths of zero-padded audio: up to the last sample that is not 0. For `Tap`'s ``lengths``.

    Checkpoints with a group norm in front (``facebook/hubert-base-ls960``) are meant to be fed without an attention
    mask, so that their call does not say how long its samples are.

    Args:
        inputs: Arguments of a call, of which the first tensor is audio, shape ``(N, samples)``.

    Returns:
        Shape ``(N,)``, int64.

    Example:
        >>> from lightning_kd.taps import Inputs
        >>> lengths_before_zeros(Inputs((torch.tensor([[0.1, 0.0, 0.2], [0.3, 0.0, 0.0]]),)))
        tensor([3, 1])
    """
    audio = inputs.tensors()[0]
    return torch.where(audio != 0, torch.arange(1, audio.shape[1] + 1, device=audio.device), 0).amax(dim=1)
