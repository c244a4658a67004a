"""Which layers of two networks see the same things: layer-by-layer CKA, and pairs of layers chosen by it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_kd._layers import LayerReader
from lightning_kd._modes import looking_only
from lightning_kd.errors import ShapeError, TapError
from lightning_kd.losses import MinibatchCKA
from lightning_kd.taps import Inputs
from lightning_kd.teachers import Teacher
from lightning_kd.teachers.frozen import unwrapped

LEAST_SAMPLES = 4


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityMap:
    """Similarity of every layer of one network to every layer of another.

    Attributes:
        student_layers: Paths of the student's layers, in the order in which they ran.
        teacher_layers: Paths of the teacher's layers, likewise.
        values: Unbiased CKA, shape ``(student layers, teacher layers)``, float64 on the CPU, dimensionless, at most 1;
            near 0 or slightly negative for unrelated layers.
        samples: Number of samples it was estimated from.
        student_positions: Whether each of the student's layers returns a map or tokens, not one vector per sample;
            ``None`` if that is not known.
        teacher_positions: Likewise.
    """

    student_layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]
    values: Tensor
    samples: int
    student_positions: tuple[bool, ...] | None = None
    teacher_positions: tuple[bool, ...] | None = None

    def with_positions(self) -> "SimilarityMap":
        """The part of the map whose layers return maps or tokens.

        Returns:
            A smaller map; the same one where that is not known.

        Raises:
            TapError: If a network has no such layer.
        """
        if self.student_positions is None or self.teacher_positions is None:
            return self
        rows, columns = (
            [index for index, more in enumerate(positions) if more]
            for positions in (self.student_positions, self.teacher_positions)
        )
        if not rows or not columns:
            raise TapError(
                f"maps or tokens are needed, but none of the {'teacher' if rows else 'student'}'s layers that can be "
                "compared returns them: name the places yourself."
            )
        return SimilarityMap(
            tuple(self.student_layers[row] for row in rows),
            tuple(self.teacher_layers[column] for column in columns),
            self.values[rows][:, columns],
            self.samples,
        )


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """A student layer and the teacher layer chosen for it.

    Attributes:
        student: Path of the student's layer.
        teacher: Path of the teacher's layer.
        similarity: Their CKA, dimensionless, at most 1.
    """

    student: str
    teacher: str
    similarity: float


def similarity_map(
    student: nn.Module,
    teacher: nn.Module | Teacher,
    batches: Iterable[Any],
    *,
    student_layers: Sequence[str] | None = None,
    teacher_layers: Sequence[str] | None = None,
) -> SimilarityMap:
    """Estimate the CKA of every student layer with every teacher layer, whatever their widths and architectures.

    Linear CKA on the features of each sample flattened, by the unbiased minibatch estimator: any batch size gives the
    same value in expectation, larger ones less noise. A thousand samples are plenty. Both networks run in evaluation
    mode without gradients and get their modes back. Each feature is reduced to a Gram matrix as soon as it appears,
    so that memory does not grow with the number of layers. Batches of fewer than 4 samples, on which the estimator is
    undefined, are left out and not counted. Wrap ``batches`` to show progress.

    Where no layers are named, the repeated units of a network are compared, such as the blocks and stages of a ResNet
    or a transformer: modules with weighted children that are elements of ``nn.Sequential``, ``nn.ModuleList`` or
    ``nn.ModuleDict``, or have a sibling of the same class and at least two weight matrices. In a network with fewer
    than two of them it is every module without children that has parameters or is an activation. Of these, the ones
    that run once per call and return one tensor with a row per sample; of two that return the very same tensor, the
    inner one.

    Args:
        student: A network.
        teacher: Another network, or a `Teacher` (its input transform is applied; layers are those of its network).
        batches: What both networks take: per batch a tensor, a tuple of positional or a dict of keyword arguments. The
            first axis of every tensor is the sample.
        student_layers: Paths or patterns such as ``"blocks.*"``, where ``*`` matches dots as well; ``None`` chooses.
        teacher_layers: As ``student_layers``.

    Returns:
        The similarities, and from how many samples.

    Raises:
        ShapeError: If no batch has at least 4 samples.
        TapError: If a pattern names no module, or a named layer does not run once and return a row per sample.
        TermError: If a layer's features are not finite.

    Source:
        Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?", arXiv:2010.15327.

    Example:
        >>> import torch
        >>> from lightning_kd import similarity_map
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> similarity = similarity_map(net, net, torch.eye(32).reshape(4, 8, 32)[:, :, :4].unbind())
        >>> similarity.student_layers, similarity.values.shape, similarity.samples
        (('0', '1', '2'), torch.Size([3, 3]), 32)
    """
    inner = unwrapped(teacher)
    cka = MinibatchCKA()
    with (
        looking_only(student, teacher if isinstance(teacher, nn.Module) else inner),
        LayerReader(student, student_layers, cka.gram, "student") as of_student,
        LayerReader(inner, teacher_layers, cka.gram, "teacher") as of_teacher,
    ):
        for inputs in map(Inputs.of, batches):
            samples = _count_samples(inputs)
            if samples >= LEAST_SAMPLES:
                with of_student.reading(samples):
                    _run(student, inputs)
                with of_teacher.reading(samples):
                    _run(teacher, inputs)
                cka.update_grams(of_student.reduced(), of_teacher.reduced())
    if cka.samples == 0:
        raise ShapeError(f"`batches` must hold a batch of at least {LEAST_SAMPLES} samples, got none.")
    layers = (of_student.layers, of_teacher.layers)
    return SimilarityMap(*layers, cka.compute(), cka.samples, of_student.positions, of_teacher.positions)


def match_layers(similarity: SimilarityMap, *, top: int | None = None, monotone: bool = False) -> list[LayerMatch]:
    """Choose pairs of layers from a similarity map.

    Args:
        similarity: The map.
        top: How many pairs to keep at most, the most similar ones; ``None`` keeps all.
        monotone: Whether pairs keep the order of depth. ``False`` gives every student layer the teacher layer most
            similar to it. ``True`` pairs as many layers as the shallower network has, each at most once and in order,
            with the largest sum of similarities.

    Returns:
        Pairs in the order of the student's layers.

    Raises:
        ValueError: If ``top`` is below 1.

    Example:
        >>> import torch
        >>> from lightning_kd.similarity import SimilarityMap, match_layers
        >>> values = torch.tensor([[0.2, 0.9], [0.1, 0.8]], dtype=torch.float64)
        >>> similarity = SimilarityMap(("s0", "s1"), ("t0", "t1"), values, samples=100)
        >>> [match.teacher for match in match_layers(similarity)]
        ['t1', 't1']
        >>> [match.teacher for match in match_layers(similarity, monotone=True)]
        ['t0', 't1']
    """
    if top is not None and top < 1:
        raise ValueError(f"`top` must be at least 1 pair, got {top}.")
    values = similarity.values
    pairs = _best_in_order(values) if monotone else list(enumerate(values.argmax(dim=1).tolist()))
    matches = [
        LayerMatch(similarity.student_layers[s], similarity.teacher_layers[t], values[s, t].item()) for s, t in pairs
    ]
    kept = sorted(matches, key=lambda match: -match.similarity)[:top]
    return [match for match in matches if match in kept]


def _best_in_order(values: Tensor) -> list[tuple[int, int]]:
    """Increasing pairs, as many as there can be, with the largest sum: dynamic programming over both depths."""
    rows, columns = values.shape
    if rows > columns:
        return [(s, t) for t, s in _best_in_order(values.T)]
    best = [[0.0] * (columns + 1), *([-math.inf] * (columns + 1) for _ in range(rows))]
    for row, similarities in enumerate(values.tolist()):
        for column in range(row, columns):
            best[row + 1][column + 1] = max(best[row + 1][column], best[row][column] + similarities[column])
    pairs: list[tuple[int, int]] = []
    row, column = rows, columns
    while row > 0:
        column -= 1
        if best[row][column + 1] > best[row][column]:
            row -= 1
            pairs.append((row, column))
    return pairs[::-1]


def _count_samples(inputs: Inputs) -> int:
    tensors = [tensor for tensor in inputs.tensors() if tensor.ndim]
    if not tensors:
        raise ShapeError(
            "`batches` must hold tensors whose first axis is the sample, or tuples or dicts of them, got "
            f"{[type(value).__name__ for value in (*inputs.args, *inputs.kwargs.values())]}."
        )
    return len(tensors[0])


def _run(model: nn.Module | Teacher, inputs: Inputs) -> None:
    if isinstance(model, Teacher):
        model.observe(inputs, copy_overwritten=True)
    else:
        model(*inputs.args, **inputs.kwargs)
