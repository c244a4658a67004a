"""A student whose attention is partly its teacher's: quantisation errors of one layer do not reach the next."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_kd._projections import QKV
from lightning_kd.attention import AttentionReader, attention_paths, output_projection
from lightning_kd.compression.weights import check_not_compiled
from lightning_kd.errors import SetupError
from lightning_kd.losses.attention import token_relations
from lightning_kd.recorder import forget_compiled_code
from lightning_kd.schedules import Progress
from lightning_kd.taps import Inputs, Observation, Tap, resolve_module
from lightning_kd.teachers import FrozenTeacher

Signal = Literal["output", "context", "map"]
MAP_ERROR = 1e-3
HALF_MAP_ERROR = 3e-2


@dataclass(frozen=True, slots=True)
class Block:
    """One attention module and the linear layer behind it.

    Attributes:
        reader: Reads queries, keys and values.
        projection: Path of the linear layer that turns contexts into the module's output.
    """

    reader: AttentionReader
    projection: str

    @property
    def context(self) -> Tap:
        """Where the context, attention times values, is read."""
        return Tap(self.projection, at="input")

    @property
    def output(self) -> Tap:
        """Where the output of self-attention is read, before dropout and the residual."""
        return Tap(self.projection)


class Interventions:
    """Replaces signals inside of a student's attention by its teacher's, call by call.

    The teacher runs on the student's arguments first, up to its last attention. Only calls with gradients of a student
    in training mode are changed. While the output or the context is the teacher's, the inputs of queries, keys and
    values are cut from the graph, and while the map is, those of queries and keys: losses on them still train the
    projections, without reaching the layers before.

    Args:
        student: The student.
        teacher: A teacher of the same architecture.

    Attributes:
        signal: What is replaced now: ``"output"`` of self-attention, the ``"context"`` (attention times values), the
            attention ``"map"``; ``None`` for nothing.

    Raises:
        SetupError: If attention modules cannot be read, the two networks do not have equally many of equal heads, or
            the student is compiled.
    """

    def __init__(self, student: nn.Module, teacher: FrozenTeacher) -> None:
        check_not_compiled(student)
        self.student = student
        self.teacher = teacher
        self.signal: Signal | None = None
        self.pairs = list(zip(_blocks(student, "student"), _blocks(teacher.module, "teacher"), strict=False))
        counts = len(attention_paths(student, "student")), len(attention_paths(teacher.module, "teacher"))
        heads = {(s.reader.heads, t.reader.heads) for s, t in self.pairs}
        if counts[0] != counts[1] or any(s != t for s, t in heads):
            raise SetupError(
                "the teacher's attention can only take the place of the student's in networks of one architecture, got "
                f"{counts[0]} and {counts[1]} attention modules with heads {sorted(heads)} (student, teacher)."
            )
        self._observed: Observation | None = None
        self._values: dict[Tap, Tensor] = {}
        self._checked = False
        self._undo: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Begin to intervene; hooks that read the student's taps must be there already."""
        self.detach()
        forget_compiled_code()
        self.teacher.tap(tap for _, t in self.pairs for tap in (*t.reader.taps, t.context, t.output))
        self._undo.append(self.teacher.untap)
        self._undo.append(self.student.register_forward_pre_hook(self._ask, with_kwargs=True, prepend=True).remove)
        self._undo.append(self.student.register_forward_hook(self._forget, always_call=True).remove)
        for s, t in self.pairs:
            projection = resolve_module(self.student, s.projection, "student")
            self._undo.append(projection.register_forward_pre_hook(partial(self._enter, s, t), prepend=True).remove)
            self._undo.append(projection.register_forward_hook(partial(self._leave, t)).remove)
            self._undo += self._watch(s.reader)

    def detach(self) -> None:
        """Stop, and leave nothing on either network."""
        while self._undo:
            self._undo.pop()()

    def _watch(self, reader: AttentionReader) -> Iterator[Callable[[], None]]:
        fused = len(reader.taps) == 1
        for index, tap in enumerate(reader.taps):
            module = resolve_module(self.student, tap.path, "student")
            if fused:
                yield module.register_forward_hook(self._cut_fused, prepend=True).remove
            else:
                yield module.register_forward_pre_hook(partial(self._cut, index == 2), prepend=True).remove
            yield module.register_forward_hook(partial(self._note, tap)).remove

    def _ask(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._observed = None
        if self.signal is None or not self.student.training or not torch.is_grad_enabled():
            return
        self._observed = self.teacher.observe(Inputs(args, kwargs), stop=True)
        if self.signal == "map" and not self._checked:
            self._check(self._observed)

    def _forget(self, *_: Any) -> None:
        self._observed = None
        self._values = {}

    def _check(self, observed: Observation) -> None:
        """Position biases, rotary embeddings and masks that are not seen would make another map."""
        for _, t in self.pairs:
            context = observed.features[t.context]
            expected, bound = context.float(), HALF_MAP_ERROR if context.dtype.itemsize < 4 else MAP_ERROR
            own = attended(t.reader.read(observed), t.reader.read(observed).value, t.reader.heads, observed.inputs)
            error = float((own - expected).norm() / expected.norm()) if own.shape == expected.shape else float("inf")
            if not error <= bound:
                raise SetupError(
                    f"the attention map of the teacher's {t.reader.tap.path!r} cannot be computed from its queries and "
                    f"keys (error {error:.1e} of the context, above {bound}): it has position biases, rotary "
                    "embeddings or a mask of its own. Intervene in 'output' or 'context' only."
                )
        self._checked = True

    def _cut(self, is_value: bool, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._observed is None or (is_value and self.signal == "map"):
            return None
        return (args[0].detach(), *args[1:])

    def _cut_fused(self, module: nn.Module, args: tuple[Any, ...], _: Tensor) -> Tensor | None:
        if self._observed is None:
            return None
        linear = cast(nn.Linear, module)
        cut = linear.out_features * 2 // 3 if self.signal == "map" else linear.out_features
        parts = [_linear(args[0].detach(), linear.weight[:cut], linear.bias, slice(cut))]
        if cut < linear.out_features:
            parts.append(_linear(args[0], linear.weight[cut:], linear.bias, slice(cut, None)))
        return torch.cat(parts, dim=-1)

    def _note(self, tap: Tap, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        if self._observed is not None:
            self._values[tap] = output

    def _enter(self, student: Block, teacher: Block, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._observed is None or self.signal == "output":
            return None
        if self.signal == "context":
            replaced = self._observed.features[teacher.context]
        else:
            value = student.reader.read(Observation(Inputs(), None, self._values)).value
            qkv = teacher.reader.read(self._observed)
            replaced = attended(qkv, value, teacher.reader.heads, self._observed.inputs)
        return (_like(replaced, args[0], student), *args[1:])

    def _leave(self, teacher: Block, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self._observed is None or self.signal != "output":
            return None
        return _like(self._observed.features[teacher.output], output, teacher)


def attended(qkv: QKV, value: Tensor, heads: int, inputs: Inputs) -> Tensor:
    """Values gathered by an attention map: the context.

    Args:
        qkv: Queries and keys that make the map, shape ``(N, L, D)``.
        value: The values, shape ``(N, L, D)``.
        heads: Number of heads.
        inputs: Arguments of the call; an ``attention_mask`` of shape ``(N, L)`` among them hides padded keys.

    Returns:
        Shape ``(N, L, D)``, at least float32.
    """
    scores = token_relations(qkv.query, qkv.key, heads=heads)
    mask = inputs.kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        scores = scores.masked_fill(~mask.bool()[:, None, None, :], -torch.inf)
    per_head = value.to(scores.dtype).reshape(*value.shape[:2], heads, -1).transpose(1, 2)
    return (scores.softmax(dim=-1) @ per_head).transpose(1, 2).flatten(2)


def gradual_intervention(progress: Progress) -> Signal:
    """What gradual Teacher Intervention replaces: the output for a sixth of the steps, the context until a third.

    Args:
        progress: How far training is, with its number of steps.

    Returns:
        ``"output"``, ``"context"``, or ``"map"`` for the rest.

    Raises:
        SetupError: If the number of steps is not known.

    Source:
        Kim et al., "Teacher Intervention: Improving Convergence of Quantization Aware Training for Ultra-Low Precision
        Transformers", arXiv:2302.11812.

    Example:
        >>> [gradual_intervention(Progress(step, total_steps=60)) for step in (9, 10, 20)]
        ['output', 'context', 'map']
    """
    if progress.total_steps is None:
        raise SetupError("gradual intervention needs the number of steps: set max_steps or max_epochs of the Trainer.")
    if progress.step < progress.total_steps / 6:
        return "output"
    return "context" if progress.step < progress.total_steps / 3 else "map"


def _blocks(model: nn.Module, name: str) -> list[Block]:
    blocks = []
    for path in attention_paths(model, name):
        reader = AttentionReader.of(model, path, name)
        if any(tap.at == "input" for tap in reader.taps):
            raise SetupError(
                f"the {name}'s {path!r} computes queries, keys and values inside of one call, where nobody can "
                "intervene: use networks with linear layers for them (timm's ViT, transformers)."
            )
        blocks.append(Block(reader, output_projection(model, path, name)))
    return blocks


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, rows: slice) -> Tensor:
    return F.linear(x, weight, None if bias is None else bias[rows])


def _like(replaced: Tensor, own: Tensor, block: Block) -> Tensor:
    if replaced.shape != own.shape:
        raise SetupError(
            f"the teacher's signal at {block.projection!r} has shape {tuple(replaced.shape)} and the student's "
            f"{tuple(own.shape)}: Teacher Intervention needs one architecture and one input."
        )
    return replaced.to(own.dtype)
