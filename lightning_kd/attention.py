"""Reading a transformer's queries, keys and values from outside, without touching the transformer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from lightning_kd._projections import QKV, form_of, heads_of, normalized
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.hidden import Outside
from lightning_kd.taps import Observation, Tap, layout_hints, module_paths, resolve_module


@dataclass(frozen=True, slots=True)
class AttentionReader:
    """Where one attention module's queries, keys and values are read, and how they are put together.

    Read are the projections, after a normalisation of queries and keys if the module has one. Position biases and
    rotary embeddings that a module adds later are not part of them.

    Attributes:
        tap: The place as it was named.
        taps: What the model is tapped at.
        heads: Number of attention heads.
        module: The attention module, held outside of whatever holds the reader.
        join: Makes the three projections out of the module and the tapped tensors.
    """

    tap: Tap
    taps: tuple[Tap, ...]
    heads: int
    module: Outside
    join: Callable[[nn.Module, Sequence[Tensor]], QKV]

    @classmethod
    def of(cls, model: nn.Module, place: str | Tap, name: str = "model") -> Self:
        """Find out how to read the attention module at ``place``.

        Known are modules with a fused linear layer ``qkv`` (timm's ViT, DeiT, BEiT, EVA, Swin), with separate ones
        ``q_proj``, ``k_proj``, ``v_proj`` or ``query``, ``key``, ``value`` (transformers), and
        `torch.nn.MultiheadAttention` called with its input as the first argument.

        Args:
            model: The network.
            place: Path of an attention module, or a tap that declares its prefix tokens too.
            name: What the network is called in messages.

        Returns:
            The reader.

        Raises:
            TapError: If the path names no module.
            SetupError: If the module there is none of these.

        Example:
            >>> import timm
            >>> reader = AttentionReader.of(timm.create_model("test_vit"), "blocks.0.attn")
            >>> reader.taps[0].path, reader.heads
            ('blocks.0.attn.qkv', 2)
        """
        tap = Tap.of(place)
        module = resolve_module(model, tap.path, name)
        form = form_of(module)
        if form is None:
            raise SetupError(
                f"the {name}'s {tap.path!r} ({type(module).__name__}) shows no queries, keys and values: name an "
                "attention module with a linear layer `qkv` or three of them, or torch.nn.MultiheadAttention; known in "
                f"this model are {_find(model) or 'none'}. Features can be distilled from any module."
            )
        leaves, join = form
        taps = tuple(Tap(f"{tap.path}.{leaf}".lstrip("."), call=tap.call) for leaf in leaves)
        if not taps:
            taps = (Tap(tap.path, at="input", select=tap.select, call=tap.call),)
        return cls(tap, taps, heads_of(module), Outside(module), join)

    def read(self, observation: Observation, *, skip: int = 0, max_tokens: int | None = None) -> QKV:
        """Queries, keys and values of one call.

        Args:
            observation: The call.
            skip: How many leading tokens to leave out.
            max_tokens: Keep at most so many tokens, evenly spaced; ``None`` keeps all.

        Returns:
            The three projections.

        Raises:
            ShapeError: If the projections have not three axes.
        """
        qkv = self.join(self.module.module, [observation.features[tap] for tap in self.taps])
        if qkv.query.ndim != 3:
            raise ShapeError(
                f"the projections of {self.tap.path!r} must have shape (samples, tokens, width), "
                f"got {tuple(qkv.query.shape)}."
            )
        kept = QKV(*(x[:, skip:] for x in normalized(self.module.module, qkv, self.heads)))
        stride = 1 if max_tokens is None else -(-kept.query.shape[1] // max_tokens)
        return QKV(*(x[:, ::stride] for x in kept))

    def prefix_tokens(self, probe: Probe) -> int:
        """How many class, distillation and register tokens come first: as declared, else as the model says."""
        if self.tap.prefix_tokens is not None:
            return self.tap.prefix_tokens
        return layout_hints(probe.model, self.tap.path, probe.observation.inputs).prefix_tokens


@dataclass(frozen=True, slots=True)
class AttentionPair:
    """An attention module of the student and one of the teacher, compared token by token.

    Attributes:
        student: Reader of the student's.
        teacher: Reader of the teacher's.
        max_tokens: Keep at most so many tokens, evenly spaced; ``None`` keeps all.
    """

    student: AttentionReader
    teacher: AttentionReader
    max_tokens: int | None = None

    def read(self, student: Observation, teacher: Observation, *, skip: tuple[int, int] = (0, 0)) -> tuple[QKV, QKV]:
        """Projections of both calls, of equally many samples and tokens.

        Args:
            student: One call of the student.
            teacher: The teacher's call on the same input.
            skip: How many leading tokens of each to leave out.

        Returns:
            The student's and the teacher's.

        Raises:
            ShapeError: If the numbers of samples (or windows) or tokens differ.
        """
        s = self.student.read(student, skip=skip[0], max_tokens=self.max_tokens)
        t = self.teacher.read(teacher, skip=skip[1], max_tokens=self.max_tokens)
        if s.query.shape[:2] != t.query.shape[:2]:
            raise ShapeError(
                f"the attention at {self.student.tap.path!r} of the student is over {tuple(s.query.shape[:2])} samples "
                f"(or windows) and tokens, that at {self.teacher.tap.path!r} of the teacher over "
                f"{tuple(t.query.shape[:2])}: relations need equal tokens. Give both one patch size, declare their "
                "prefix tokens, Tap(path, prefix_tokens=...), or distil features (FeatureKD)."
            )
        return s, t

    def skip(self, student: Probe, teacher: Probe) -> tuple[int, int]:
        """How many leading tokens to leave out: none if both have equally many prefix tokens, else these.

        Args:
            student: The student and one call of it.
            teacher: The teacher, likewise.

        Returns:
            The student's number and the teacher's.

        Raises:
            ShapeError: If the two cannot be compared token by token.
        """
        prefixes = self.student.prefix_tokens(student), self.teacher.prefix_tokens(teacher)
        skip = (0, 0) if prefixes[0] == prefixes[1] else prefixes
        self.read(student.observation, teacher.observation, skip=skip)
        return skip

    def heads(self, way_out: str) -> int:
        """Number of attention heads, which must be the same on both sides.

        Args:
            way_out: What to do if it is not, for the message.

        Returns:
            The number.

        Raises:
            ShapeError: If the numbers differ.
        """
        if self.student.heads != self.teacher.heads:
            raise ShapeError(
                f"the student's {self.student.tap.path!r} has {self.student.heads} heads and the teacher's "
                f"{self.teacher.tap.path!r} {self.teacher.heads}: {way_out}"
            )
        return self.student.heads


def attention_paths(model: nn.Module, name: str = "model") -> tuple[str, ...]:
    """Find the readable attention modules of a network's blocks, from the first to the last.

    Args:
        model: The network.
        name: What it is called in the message.

    Returns:
        Module paths.

    Raises:
        SetupError: If there is none.

    Example:
        >>> import timm
        >>> attention_paths(timm.create_model("test_vit", depth=2))
        ('blocks.0.attn', 'blocks.1.attn')
    """
    found = _find(model)
    if not found:
        raise SetupError(
            f"no attention module whose queries, keys and values can be read is known in the {name} "
            f"({type(model).__name__}): use a transformer such as timm's ViT, DeiT, BEiT or Swin, or one of "
            "transformers, or distil features (FeatureKD, CKAKD)."
        )
    return tuple(found)


def output_projection(model: nn.Module, path: str, name: str = "model") -> str:
    """Find the linear layer that turns the contexts of an attention module into its output.

    It is ``proj`` (timm), ``o_proj`` or ``out_proj`` (transformers) in the module, or ``output.dense`` beside it, as in
    BERT.

    Args:
        model: The network.
        path: Path of the attention module.
        name: What the network is called in the message.

    Returns:
        Path of the layer.

    Raises:
        SetupError: If there is none of these.

    Example:
        >>> import timm
        >>> output_projection(timm.create_model("test_vit"), "blocks.0.attn")
        'blocks.0.attn.proj'
    """
    beside = f"{path.rpartition('.')[0]}.output.dense".lstrip(".")
    candidates = [f"{path}.{leaf}".lstrip(".") for leaf in ("proj", "o_proj", "out_proj")]
    modules = module_paths(model)
    for candidate in [*candidates, beside]:
        if isinstance(modules.get(candidate), nn.Linear):
            return candidate
    raise SetupError(
        f"no output projection of the {name}'s {path!r} is known: none of {', '.join(candidates)} and {beside} is a "
        "linear layer."
    )


def attention_output(model: nn.Module, path: str, name: str = "model") -> str:
    """Find where the output of an attention module is compared: its projection; in BERT, after the residual and norm.

    Args:
        model: The network.
        path: Path of the attention module.
        name: What the network is called in the message.

    Returns:
        Path of the module whose output it is.

    Raises:
        SetupError: If no projection is known.
    """
    return output_projection(model, path, name).removesuffix(".dense")


def block_of(path: str) -> str:
    """Path of the block around an attention module: up to the last number.

    Args:
        path: Path of the attention module.

    Returns:
        Path of the block.

    Raises:
        SetupError: If no part of the path is a number.

    Example:
        >>> block_of("encoder.layer.3.attention.self")
        'encoder.layer.3'
    """
    names = path.split(".")
    depth = max((index for index, part in enumerate(names) if part.isdigit()), default=None)
    if depth is None:
        raise SetupError(f"{path!r} is in no numbered block such as 'blocks.3': name the attention of a block.")
    return ".".join(names[: depth + 1])


def _find(model: nn.Module) -> list[str]:
    return [
        path
        for path, module in module_paths(model).items()
        if any(part.isdigit() for part in path.split(".")) and form_of(module) is not None
    ]
