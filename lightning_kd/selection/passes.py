"""One pass of a network over a data set, sample by sample."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from lightning_kd._modes import looking_only
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.recorder import TapRecorder
from lightning_kd.selection.difficulty import WITH_LABELS, Measure, difficulty
from lightning_kd.step import BatchPlace, Step
from lightning_kd.taps import Inputs, Observation, Tap, pick_tensor


def sample_difficulty(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    measure: Measure = "margin",
    inputs: Callable[[Any], Any] | None = None,
    labels: BatchPlace | None = None,
) -> Tensor:
    """Difficulty of every sample of a data set for a network: the teacher's to prune, the student's to ask.

    Args:
        network: Returns class scores; it runs in evaluation mode without gradients, where it is.
        batches: A ``DataLoader`` in the order of its data set, without augmentation; or any batches.
        measure: See `difficulty`.
        inputs: The network's arguments in a batch; ``None`` takes the first item of a sequence, or the batch itself if
            it is a tensor.
        labels: Where the labels are in a batch, see `Step`; read for measures that need them.

    Returns:
        Difficulties in the order of the samples, shape ``(n,)``, float32 on the CPU.

    Raises:
        SetupError: If the loader shuffles or leaves samples out, or a batch does not hold what is needed.
        ShapeError: If the scores are not ``(N, C)``.

    Example:
        >>> batches = [(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0]))]
        >>> sample_difficulty(nn.Identity(), batches).round(decimals=3)
        tensor([1., 0.])
    """
    values = []
    for call, batch in _calls(network, batches, inputs, taps=()):
        logits = pick_tensor(call.output, None, "the network's output")
        step = Step(batch=batch, labels_at=labels)
        known = step.class_indices.to(logits.device) if measure in WITH_LABELS else None
        values.append(difficulty(logits, known, measure=measure).float().cpu())
    return torch.cat(values)


def sample_features(
    network: nn.Module, batches: Iterable[Any], place: str | Tap, *, inputs: Callable[[Any], Any] | None = None
) -> Tensor:
    """One vector per sample of a data set: what a network has at a place.

    Args:
        network: It runs in evaluation mode without gradients, where it is.
        batches: As for `sample_difficulty`.
        place: Where a tensor of shape ``(N, d)`` is read: ``Tap("fc", at="input")`` is what a classifier reads.
        inputs: As for `sample_difficulty`.

    Returns:
        Features in the order of the samples, shape ``(n, d)``, float32 on the CPU.

    Raises:
        SetupError: If the loader shuffles or leaves samples out.
        ShapeError: If the feature has another number of axes.
        TapError: If ``place`` names no module or does not fire.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5))
        >>> sample_features(net, [(torch.zeros(4, 3),)], Tap("1", at="input")).shape
        torch.Size([4, 2])
    """
    tap = Tap.of(place)
    features = []
    for call, _ in _calls(network, batches, inputs, taps=(tap,)):
        feature = call.features[tap]
        if feature.ndim != 2:
            raise ShapeError(
                f"`place` must have a vector per sample, got shape {tuple(feature.shape)} at {tap.path!r}: tap what "
                "the classifier reads, Tap(path, at='input')."
            )
        features.append(feature.float().cpu())
    return torch.cat(features)


def _calls(
    network: nn.Module, batches: Iterable[Any], inputs: Callable[[Any], Any] | None, *, taps: tuple[Tap, ...]
) -> Iterator[tuple[Observation, Any]]:
    """Every call of the network, and the batch that it is of."""
    _check_order(batches)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    recorder = TapRecorder(network, taps, name="network")
    try:
        for batch in batches:
            arguments = Inputs.of(_first(batch) if inputs is None else inputs(batch)).to(device)
            with looking_only(network), recorder.recording(stop=bool(taps)) as calls:
                network(*arguments.args, **arguments.kwargs)
            yield calls[0], batch
    finally:
        recorder.detach()


def _check_order(batches: Iterable[Any]) -> None:
    if not isinstance(batches, DataLoader):
        return
    if not isinstance(batches.sampler, SequentialSampler) or batches.drop_last:
        raise SetupError(
            "`batches` must go through the data set in order and to its end, got a loader with "
            f"{type(batches.sampler).__name__} and drop_last={batches.drop_last}: make one with shuffle=False."
        )


def _first(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping) or not batch:
        raise SetupError(f"a batch is a {type(batch).__name__}: pass inputs=, a function of it.")
    return batch[0]
