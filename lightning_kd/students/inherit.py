"""A student that starts with a part of its teacher's weights: TinyCLIP's manual weight inheritance."""

import math
from collections.abc import Collection
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lightning_kd._projections import form_of, heads_of
from lightning_kd.errors import SetupError
from lightning_kd.taps import module_paths

# Of each axis the sizes that it is a product of, each with whether it may be cut.
Factors = tuple[tuple[int, bool], ...]
Axes = tuple[Factors, ...]
_FUSED = ("qkv.weight", "qkv.bias", "in_proj_weight", "in_proj_bias")
_SEPARATE = ("q_proj", "k_proj", "v_proj", "query", "key", "value", "q_bias", "k_bias", "v_bias")
_OUTPUTS = ("proj", "out_proj", "o_proj")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def inherit_weights(student: nn.Module, teacher: nn.Module, *, skip: Collection[str] = ()) -> dict[str, str]:
    """Copy the front of every dimension of the teacher's weights into a smaller student of the same naming.

    Of a list of blocks, block ``i`` of the student inherits from block ``i * (depth_t // depth_s)`` of the teacher,
    separately in each stage and each tower. Of a tensor, the first entries along every axis of channels are taken; of
    attention, the first heads and the front of each head, in queries, keys, values and the output alike. Axes that are
    not channels, such as kernels and positions, must be of equal size. Floating-point buffers are inherited, too. The
    student is changed only if everything fits.

    Args:
        student: The network to initialise, such as a timm ViT, or a model with a tower ``visual`` and one ``text``.
        teacher: A trained network with the same names, at least as deep and as wide everywhere.
        skip: Patterns of the student's weights that keep their values, such as ``"head.*"`` for other classes.

    Returns:
        Where each weight of the student came from: its name to the teacher's.

    Raises:
        SetupError: If the teacher has no such weight, is smaller, or differs in an axis that cannot be cut; or a
            pattern in ``skip`` matches nothing.

    Source:
        Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", arXiv:2309.12314,
        manual inheritance. Heads of another width, and towers other than CLIP's, are ours.

    Example:
        >>> student, teacher = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(4, 5))
        >>> inherit_weights(student, teacher)
        {'0.weight': '0.weight', '0.bias': '0.bias'}
        >>> torch.equal(student[0].weight, teacher[0].weight[:3, :2])
        True
    """
    targets = {name: value for name, value in student.state_dict().items() if value.is_floating_point()}
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in targets):
            raise SetupError(f"`skip` pattern {pattern!r} matches none of the student's weights.")
    wanted = [name for name in targets if not any(fnmatchcase(name, pattern) for pattern in skip)]
    students, teachers = module_paths(student), module_paths(teacher)
    sources = {name: _source_of(name, students, teachers) for name in wanted}
    values = teacher.state_dict()
    missing = [name for name in wanted if sources[name] not in values]
    if missing:
        raise SetupError(f"the teacher has no weights for {missing} of the student: leave them out with skip=.")
    inherited = {
        name: _cut(values[source], _axes(source, values[source], teachers), _axes(name, targets[name], students), name)
        for name, source in sources.items()
    }
    with torch.no_grad():
        for name, value in inherited.items():
            targets[name].copy_(value)
    return sources


def _source_of(name: str, students: dict[str, nn.Module], teachers: dict[str, nn.Module]) -> str:
    """Name of the teacher's weight: every number that counts the blocks of a list is stretched to its depth."""
    own: list[str] = []
    source: list[str] = []
    for part in name.split("."):
        blocks, given = students.get(".".join(own)), teachers.get(".".join(source))
        own.append(part)
        source.append(part if blocks is None or given is None else str(_block_index(part, blocks, given, name)))
    return ".".join(source)


def _block_index(part: str, student: nn.Module, teacher: nn.Module, name: str) -> str | int:
    depths = len(list(student.children())), len(list(teacher.children()))
    if not part.isdigit() or depths[0] == depths[1]:
        return part
    if depths[0] > depths[1]:
        raise SetupError(f"{name!r} is in a list of {depths[0]} blocks and the teacher's has only {depths[1]}.")
    if len({type(child) for child in teacher.children()}) > 1:
        raise SetupError(
            f"{name!r} is in a list of {depths[0]} modules, the teacher's has {depths[1]} of different types, which "
            "are no blocks to choose from: leave it out with skip=."
        )
    return int(part) * (depths[1] // depths[0])


def _axes(name: str, value: Tensor, modules: dict[str, nn.Module]) -> Axes:
    """The axes of a weight: those of channels may be cut; heads are a factor of their own."""
    path, _, leaf = name.rpartition(".")
    outer, _, inner = path.rpartition(".")
    axes = _plain_axes(value, convolution=isinstance(modules.get(path), _CONVOLUTIONS))
    for owner, local in ((path, leaf), (outer, f"{inner}.{leaf}")):
        module = modules.get(owner)
        if module is not None and form_of(module) is not None:
            return _attention_axes(axes, local, module)
        if module is not None and inner == "fc1" and getattr(module, "chunk_dim", None) is not None:
            return (((2, False), (value.shape[0] // 2, True)), *axes[1:])
    return axes


def _plain_axes(value: Tensor, *, convolution: bool) -> Axes:
    """Of convolutions the first two axes are channels, of tables of positions (1, L, D) the last, else all."""
    channels = range(2) if convolution or value.ndim < 3 else range(value.ndim - 1, value.ndim)
    return tuple(((size, axis in channels),) for axis, size in enumerate(value.shape))


def _attention_axes(axes: Axes, local: str, module: nn.Module) -> Axes:
    heads = heads_of(module)
    # The output must be cut like the projections; where it is not at a known place, heads must have one width.
    known_output = any(name in _OUTPUTS for name, _ in module.named_children())

    def split(axis: int, count: int) -> Factors:
        return (heads, True), (axes[axis][0][0] // (count * heads), known_output)

    if local in _FUSED:
        return (((3, False), *split(0, 3)), *axes[1:])
    if local.partition(".")[0] in _SEPARATE:
        return (split(0, 1), *axes[1:])
    if local in {f"{output}.weight" for output in _OUTPUTS}:
        return (axes[0], split(1, 1))
    if local == "relative_position_bias_table":
        return (((axes[0][0][0], False),), axes[1])
    return axes


def _cut(value: Tensor, have: Axes, want: Axes, name: str) -> Tensor:
    """The front of ``value`` along every factor, in the shape that the axes ``want`` stand for."""
    given, wanted = ([factor for axis in axes for factor in axis] for axes in (have, want))
    fits = len(given) == len(wanted) and all(
        t >= s if cuttable else t == s for (t, _), (s, cuttable) in zip(given, wanted, strict=False)
    )
    if not fits:
        raise SetupError(
            f"{name!r} of sizes {[size for size, _ in wanted]} cannot be cut out of the teacher's "
            f"{[size for size, _ in given]}: channels, heads and blocks must be at most the teacher's, kernels and "
            "positions equal; or leave it out with skip=."
        )
    front = value.reshape([size for size, _ in given])[tuple(slice(size) for size, _ in wanted)]
    return front.reshape([math.prod(size for size, _ in axis) for axis in want])
