"""Fusion of a student's levels from deep to shallow, as in ReviewKD and TransKD: one projection in, one out, per level.

The two methods share the walk and the projections. They differ in how a level's own map and the fused map of the
deeper levels become one: a module of two tensors, here `AttentionMerge` (ReviewKD).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import AdapterNorm, Geometry, as_map
from lightning_kd.errors import ShapeError
from lightning_kd.losses import hierarchical_context


class Level(nn.Module):
    """One level of a fusion: ``Conv1x1, BN`` to the middle width, a merger, ``Conv3x3, BN`` to the teacher's width.

    Args:
        inputs: Student's width.
        outputs: Teacher's width.
        middle: Width in which maps are merged.
        merge: Module of ``(own, deeper)``, two maps of the middle width and one grid; ``None`` for the deepest level.
    """

    def __init__(self, inputs: int, outputs: int, middle: int, merge: nn.Module | None) -> None:
        super().__init__()
        self.enter = _projection(inputs, middle, kernel=1)
        self.merge = merge
        self.leave = _projection(middle, outputs, kernel=3)

    @override
    def forward(self, own: Tensor, deeper: Tensor | None, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the fused map of the middle width, and what it is in the teacher's width; both on ``grid``."""
        fused: Tensor = self.enter(own)
        if self.merge is not None and deeper is not None:
            fused = self.merge(fused, _resized(deeper, tuple(fused.shape[2:])))
        fused = _resized(fused, grid)
        return fused, self.leave(fused)


class DeepToShallowFusion(nn.Module):
    r"""Fuses the levels of a student from the deepest to the shallowest, and shows each fusion in the teacher's width.

    .. math::
        r_m = \mathrm{merge}_m(c^1_m(F_m), \uparrow r_{m+1}), \qquad G_m = c^2_m(r_m)

    with :math:`c^1` a 1x1 and :math:`c^2` a 3x3 convolution, each without bias and followed by BatchNorm, and
    :math:`\uparrow` nearest upsampling. The deepest level has nothing to merge. The fused map :math:`r_m`, not
    :math:`G_m`, is what is passed upwards. Where the student's grid is not the teacher's, :math:`r_m` is resized
    (nearest) to the teacher's.

    Args:
        student: Geometry of each level of the student, from shallow to deep.
        teacher: Geometry of each level of the teacher.
        middle: Width :math:`d` in which maps are merged.
        merger: Makes the merger of one level from the middle width.

    Raises:
        ShapeError: If the numbers of levels differ, or there is none.

    Source:
        The loop is common to ReviewKD (arXiv:2104.09044) and TransKD (arXiv:2202.13393).

    Example:
        >>> from lightning_kd.layout import Layout
        >>> student = [Geometry(Layout("NCHW"), 16, (8, 8)), Geometry(Layout("NCHW"), 32, (4, 4))]
        >>> teacher = [Geometry(Layout("NCHW"), 24, (8, 8)), Geometry(Layout("NCHW"), 48, (4, 4))]
        >>> fusion = DeepToShallowFusion(student, teacher, middle=32, merger=AttentionMerge)
        >>> [tuple(map_.shape) for map_ in fusion([torch.zeros(2, 16, 8, 8), torch.zeros(2, 32, 4, 4)])]
        [(2, 24, 8, 8), (2, 48, 4, 4)]
    """

    def __init__(
        self,
        student: Sequence[Geometry],
        teacher: Sequence[Geometry],
        *,
        middle: int,
        merger: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        if not student or len(student) != len(teacher):
            raise ShapeError(
                f"`student` and `teacher` must have one geometry per level, got {len(student)} and {len(teacher)}."
            )
        self.grids = [geometry.plane for geometry in teacher]
        deepest = len(student) - 1
        self.levels = nn.ModuleList(
            Level(s.width, t.width, middle, merger(middle) if index < deepest else None)
            for index, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    @override
    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map per level, shape ``(N, C_teacher, *grid_teacher)``, from shallow to deep.

        Args:
            maps: Student's map of each level, shape ``(N, C_student, H, W)``, from shallow to deep; see
                `lightning_kd.adapters.as_map`.

        Returns:
            The maps to compare with the teacher's.
        """
        outputs: list[Tensor] = []
        fused: Tensor | None = None
        for level, map_, grid in reversed(list(zip(self.levels, maps, self.grids, strict=True))):
            fused, output = level(map_, fused, grid)
            outputs.append(output)
        return outputs[::-1]


def fused_context(fusion: DeepToShallowFusion, levels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum over the levels of `hierarchical_context` between the student's fused map and the teacher's.

    Args:
        fusion: Built for these levels.
        levels: Feature of student and teacher at each level, channels first, ``(N, C, *grid)``, from shallow to deep.

    Returns:
        The sum, shape ``()``.
    """
    students, teachers = zip(*levels, strict=True)
    fused = fusion([as_map(s) for s in students])
    targets = [as_map(t) if t.ndim == 2 else t for t in teachers]
    return torch.stack([hierarchical_context(s.reshape(t.shape), t) for s, t in zip(fused, targets, strict=True)]).sum()


class AttentionMerge(nn.Module):
    r"""ReviewKD's attention-based fusion of two maps (ABF).

    .. math::
        r = z_0 \odot x + z_1 \odot u, \qquad z = \sigma(\mathrm{Conv1x1}([x; u]))

    with one weight per position and map.

    Args:
        width: Width of both maps.

    Source:
        Chen et al., "Distilling Knowledge via Knowledge Review", arXiv:2104.09044.

    Example:
        >>> merge = AttentionMerge(3)
        >>> _ = nn.init.zeros_(merge.attention.weight), nn.init.zeros_(merge.attention.bias)
        >>> merge(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2)).unique()  # both weights are 1/2
        tensor([1.], grad_fn=<Unique2Backward0>)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(2 * width, 2, 1)

    @override
    def forward(self, own: Tensor, deeper: Tensor) -> Tensor:
        """Return the merged map.

        Args:
            own: The level's own map, shape ``(N, width, H, W)``.
            deeper: Fused map of the deeper levels, same shape.

        Returns:
            Their weighted sum, same shape.
        """
        weights = torch.sigmoid(self.attention(torch.cat([own, deeper], dim=1)))
        return own * weights[:, :1] + deeper * weights[:, 1:]


def _projection(inputs: int, outputs: int, *, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, AdapterNorm(outputs))


def _resized(map_: Tensor, grid: tuple[int, ...]) -> Tensor:
    return map_ if tuple(map_.shape[2:]) == grid else F.interpolate(map_, size=grid, mode="nearest")
