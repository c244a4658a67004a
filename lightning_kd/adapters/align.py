"""Modules that bring a student feature to the teacher's grid and width; built from shapes, used only in training."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError
from lightning_kd.layout import Layout, common_grid
from lightning_kd.taps import Observation, Tap, layout_hints

Projection = Literal["auto", "always", "none"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Layout and size of a tapped feature.

    Attributes:
        layout: Meaning of its axes.
        width: Number of channels.
        grid: Sizes of the grid: ``(H, W)``, ``(T,)`` or ``()``.
    """

    layout: Layout
    width: int
    grid: tuple[int, ...]

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of the feature as `as_map` reads it."""
        height, width = (1,) * (2 - len(self.grid)) + self.grid
        return height, width


@dataclass(frozen=True, slots=True)
class Probe:
    """A model and what one forward call of it showed: all that adapters are built from.

    Attributes:
        model: The student or the teacher.
        observation: One call, with the features at every tap.
    """

    model: nn.Module
    observation: Observation

    def geometry(self, tap: Tap) -> Geometry:
        """Layout and size of the feature at ``tap``.

        Args:
            tap: One of the taps observed.

        Returns:
            The geometry.

        Raises:
            LayoutError: If the layout can be neither read from the tap nor detected.
        """
        feature = self.observation.features[tap]
        layout = tap.layout(feature.shape, layout_hints(self.model, tap.path, self.observation.inputs))
        canonical = layout.channels_first(feature)
        return Geometry(layout, canonical.shape[1], tuple(canonical.shape[2:]))


class Align(nn.Module):
    """Brings a student feature and a teacher feature to one shape.

    Both are read channels first, prefix tokens dropped, averaged to the smaller grid; then the student is projected
    to the teacher's width. The teacher is never projected.

    Args:
        student: Geometry of the student's feature.
        teacher: Geometry of the teacher's feature.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.

    Raises:
        ShapeError: If ``projection="none"`` and the widths differ.
        ValueError: If ``projection`` is unknown.

    Example:
        >>> import torch
        >>> map_, tokens = Geometry(Layout("NCHW"), 64, (8, 8)), Geometry(Layout("NLD", 1), 192, (4, 4))
        >>> student, teacher = Align(map_, tokens)(torch.zeros(2, 64, 8, 8), torch.zeros(2, 17, 192))
        >>> student.shape, teacher.shape
        (torch.Size([2, 192, 4, 4]), torch.Size([2, 192, 4, 4]))
    """

    def __init__(self, student: Geometry, teacher: Geometry, *, projection: Projection = "auto") -> None:
        super().__init__()
        self.student = student.layout
        self.teacher = teacher.layout
        grid_axes = min(len(student.grid), len(teacher.grid))
        self.projection = projection_of(student.width, teacher.width, projection=projection, grid_axes=grid_axes)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both features in shape ``(N, C_teacher, *grid)``.

        Args:
            student: The student's feature as tapped.
            teacher: The teacher's feature as tapped.

        Returns:
            The aligned features.
        """
        student, teacher = common_grid(self.student.channels_first(student), self.teacher.channels_first(teacher))
        return self.projection(student), teacher


class AdapterNorm(nn.BatchNorm2d):
    """BatchNorm of adapters, defined for every batch.

    A single value per channel (one sample, 1x1 map) has no variance, and `torch.nn.BatchNorm2d` refuses to train on
    it; here such a map is normalised with the running statistics, which it leaves as they are.

    Example:
        >>> import torch
        >>> AdapterNorm(3)(torch.zeros(1, 3, 1, 1)).flatten()
        tensor([0., 0., 0.], grad_fn=<ViewBackward0>)
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised map.

        Args:
            input: Shape ``(N, C, H, W)``.

        Returns:
            Same shape.
        """
        if self.training and input.numel() <= input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        normalized: Tensor = super().forward(input)
        return normalized


def as_map(feature: Tensor) -> Tensor:
    """View a channels-first feature as a map: pooled features are 1x1, frames have height 1.

    Args:
        feature: Shape ``(N, C, H, W)``, ``(N, C, T)`` or ``(N, C)``.

    Returns:
        The same values, shape ``(N, C, H, W)``, ``(N, C, 1, T)`` or ``(N, C, 1, 1)``.

    Example:
        >>> import torch
        >>> as_map(torch.zeros(2, 64, 49)).shape
        torch.Size([2, 64, 1, 49])
    """
    return feature.reshape(*feature.shape[:2], *(1,) * (4 - feature.ndim), *feature.shape[2:])


def projection_of(student: int, teacher: int, *, projection: Projection, grid_axes: int = 0) -> nn.Module:
    """The learned pointwise map from the student's width to the teacher's, or nothing, as `Align` says.

    Args:
        student: Width of the student's feature.
        teacher: Width of the teacher's.
        projection: ``"auto"``, ``"always"`` or ``"none"``.
        grid_axes: Axes behind the channels, 0 to 2; with 0 the channels are on the last axis.

    Returns:
        The layer.

    Raises:
        ShapeError: If ``projection="none"`` and the widths differ.
        ValueError: If ``projection`` is unknown.
    """
    check_choice("projection", projection, ("auto", "always", "none"))
    if projection == "none" and student != teacher:
        raise ShapeError(
            f"`projection='none'` needs equal widths, got student {student} and teacher {teacher}: "
            "use projection='auto'."
        )
    if projection != "always" and student == teacher:
        return nn.Identity()
    if grid_axes == 0:
        return nn.Linear(student, teacher)
    return nn.Conv1d(student, teacher, 1) if grid_axes == 1 else nn.Conv2d(student, teacher, 1)
