"""What an export costs on the task: the metric of PyTorch and of the exported file, on the same samples."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from exporters.data import as_array, inputs_by_name, is_array, items_of, split_samples
from exporters.errors import InputError, TaskError
from exporters.session import Session
from exporters.signature import Signature

Outputs = np.ndarray | Mapping[str, np.ndarray]
Metric = Literal["top1"] | Callable[[Outputs, np.ndarray], float]
"""``"top1"``, or a function of all outputs (an array, or arrays by name if there are several) and all targets."""

# Largest number of samples in one run of a network with a dynamic batch.
_BATCH = 32
_TARGETS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """The task's metric before and after an export.

    Args:
        metric: Its name.
        reference: Its value for the network in PyTorch, float32, in the metric's unit; higher is better.
        exported: Its value for the exported file, on the same samples.
        samples: Number of samples.
        sha256: Hash of inputs and targets, in hexadecimal.
        max_drop: Largest drop allowed; ``None`` for any.
    """

    metric: str
    reference: float
    exported: float
    samples: int
    sha256: str
    max_drop: float | None = None

    @property
    def drop(self) -> float:
        """What the export lost, in the metric's unit; negative if it gained."""
        return self.reference - self.exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Samples with targets, and a metric.

    Args:
        batches: Inputs by name, of sizes that the network takes.
        targets: Target of every sample, joined along the first axis.
        metric: What is computed of all outputs and all targets.
        max_drop: Largest drop of the metric, in its unit; ``None`` for any.
    """

    batches: tuple[Mapping[str, np.ndarray], ...]
    targets: np.ndarray
    metric: Metric
    max_drop: float | None = None

    @classmethod
    def from_data(
        cls, data: Any, signature: Signature, *, metric: Metric = "top1", max_drop: float | None = None
    ) -> Self:
        """Read all samples of a loader.

        Args:
            data: A loader, data set or other iterable of inputs followed by their target, or of mappings that have the
                target under ``labels``, ``label``, ``targets``, ``target`` or ``y``; with or without a batch
                dimension. Or a LightningDataModule, whose validation data is taken.
            signature: Inputs of the network.
            metric: What is computed of all outputs and all targets; higher is better.
            max_drop: Largest drop of the metric, in its unit.

        Returns:
            The samples.

        Raises:
            InputError: If there is no target or no whole batch, or inputs do not fit the network.
        """
        size = _batch_size(signature)
        samples = list(_samples(data, signature))
        rest = len(samples) % size.whole if size.exact else 0
        samples = samples[: len(samples) - rest]
        if not samples:
            raise InputError("`evaluation` must hold at least one whole batch of samples with targets, got none.")
        groups = [samples[start : start + size.whole] for start in range(0, len(samples), size.whole)]
        names = [spec.name for spec in signature.inputs]
        batches = tuple({name: np.stack([inputs[name] for inputs, _ in group]) for name in names} for group in groups)
        for batch in batches:
            signature.check(batch)
        return cls(
            batches=batches, targets=np.stack([target for _, target in samples]), metric=metric, max_drop=max_drop
        )

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "metric")

    @property
    def sha256(self) -> str:
        """Hash of inputs and targets, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (*(array for batch in self.batches for array in batch.values()), self.targets):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def of(self, session: Session) -> float:
        """The metric of a session over all samples."""
        results = [session.run(batch) for batch in self.batches]
        outputs = {spec.name: np.concatenate([result[spec.name] for result in results]) for spec in session.outputs}
        given = next(iter(outputs.values())) if len(outputs) == 1 else outputs
        value = float((top1 if self.metric == "top1" else self.metric)(given, self.targets))
        if not np.isfinite(value):
            raise InputError(f"`metric` must return a finite number, got {value} from {self.name}.")
        return value

    def report(self, session: Session, reference: Session) -> TaskReport:
        """Compare an exported file with PyTorch.

        Raises:
            TaskError: If the metric drops by more than ``max_drop``.
        """
        report = TaskReport(
            metric=self.name,
            reference=self.of(reference),
            exported=self.of(session),
            samples=len(self.targets),
            sha256=self.sha256,
            max_drop=self.max_drop,
        )
        if self.max_drop is not None and report.drop > self.max_drop:
            raise TaskError(
                f"the exported network must lose at most `max_drop` {self.max_drop:g} of {report.metric}, got "
                f"{report.drop:.4g} ({report.reference:.4g} in PyTorch, {report.exported:.4g} exported, "
                f"{report.samples} samples); take another precision, more calibration data, or quantisation-aware "
                f"training."
            )
        return report


def top1(outputs: Outputs, targets: np.ndarray) -> float:
    """Fraction of positions whose largest class is the target.

    Args:
        outputs: Class scores, ``(N, C)``, ``(N, C, H, W)`` for maps, or with classes on the last axis.
        targets: Classes, integers of the outputs' shape without the class axis.

    Returns:
        The fraction, from 0 to 1.

    Example:
        >>> top1(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
        0.5
    """
    if not isinstance(outputs, np.ndarray):
        raise InputError(f"`metric` must be a function for a network of the outputs {sorted(outputs)}, got 'top1'.")
    classes = outputs.argmax(1 if outputs.ndim == 4 else -1)
    if classes.shape != targets.shape:
        raise InputError(f"targets must have shape {classes.shape} for 'top1', got {targets.shape}.")
    return float((classes == targets).mean())


@dataclass(frozen=True, slots=True)
class _BatchSize:
    whole: int
    exact: bool


def _batch_size(signature: Signature) -> _BatchSize:
    size = signature.inputs[0].shape[0] if signature.inputs[0].shape else 1
    if isinstance(size, int):
        return _BatchSize(size, exact=True)
    accepted = signature.dimensions[size]
    return _BatchSize(accepted.nearest(min(_BATCH, accepted.largest)), exact=accepted.smallest > 1)


def _samples(data: Any, signature: Signature) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    for item in items_of(data, what="evaluation", training=False):
        inputs, target = inputs_by_name(item, signature, what="evaluation"), as_array(_target(item, signature))
        samples = list(split_samples(inputs, signature, what="evaluation"))
        if len(samples) == 1 and (target.ndim == 0 or len(target) != 1):
            target = target[None]
        if len(target) != len(samples):
            raise InputError(f"`evaluation` must hold one target per sample, got {len(target)} for {len(samples)}.")
        yield from zip(samples, target, strict=True)


def _target(item: Any, signature: Signature) -> Any:
    if isinstance(item, Mapping):
        names = [name for name in _TARGETS if name in item]
        if len(names) == 1:
            return item[names[0]]
        raise InputError(f"`evaluation` must hold the target under one of {', '.join(_TARGETS)}, got {sorted(item)}.")
    count = len(signature.inputs)
    if is_array(item) or not isinstance(item, Sequence) or len(item) != count + 1:
        got = "one array" if is_array(item) else f"{len(item)} entries" if isinstance(item, Sequence) else repr(item)
        raise InputError(f"`evaluation` must hold {count} input(s) followed by a target, got {got}.")
    return item[count]
