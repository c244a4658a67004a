"""What networks say about their inputs, and the transform that leads from the student's to the teacher's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from exporters.preprocessing import ImagePreprocessing, from_timm, from_transformers
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.teachers.views import Interpolation, ResizedView


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How the images that a network takes were normalised, and their size.

    Attributes:
        mean: Mean subtracted from each channel, of values from 0 to 1.
        std: Standard deviation that they were divided by, above 0.
        size: Height and width in pixels; ``None`` for any.
        interpolation: How images are brought to that size: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.

    Raises:
        SetupError: If ``mean`` and ``std`` differ in length, or a deviation is not above 0.

    Example:
        >>> import timm
        >>> InputSpec.of(timm.create_model("vit_tiny_patch16_224")).mean
        (0.5, 0.5, 0.5)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Check the values."""
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise SetupError(
                f"`mean` and `std` must have one value per channel, std above 0, got {self.mean} and {self.std}."
            )

    @classmethod
    def of(cls, source: Any) -> Self:
        """Read what is declared.

        Args:
            source: A timm network, a timm data configuration, an image processor of transformers or the content of its
                file, an `ImagePreprocessing`, or an `InputSpec`.

        Returns:
            The declaration. The size is that of the network's input, behind any crop; that of a network of timm which
            was made for another size (``img_size=``) is the latter.

        Raises:
            SetupError: If nothing is declared, or for audio.
        """
        if isinstance(source, cls):
            return source
        try:
            declared = source if isinstance(source, ImagePreprocessing) else _read(source)
        except (AttributeError, ValueError) as error:
            raise SetupError(
                f"`{type(source).__name__}` does not declare size, mean and standard deviation of its images: {error} "
                "Networks of timm do, and image processors of transformers; for others pass "
                "input_transform=NormalizedView(InputSpec(...), InputSpec(...))."
            ) from error
        if not isinstance(declared, ImagePreprocessing):
            raise SetupError(f"`{type(source).__name__}` takes audio: pass input_transform=WaveformView(...).")
        size = declared.crop if declared.crop is not None else declared.resize
        sides = (size, size) if isinstance(size, int) else size
        method = declared.interpolation
        known: Interpolation = "bicubic" if method == "bicubic" else "nearest" if method == "nearest" else "bilinear"
        return cls(declared.mean, declared.std, _made_for(source, sides), known)


@dataclass(frozen=True, slots=True)
class NormalizedView:
    """The very images that the student got, normalised and sized as the teacher knows them.

    A value x of the student is (x s + m) of the image, which the teacher takes as (x s + m - m') / s'.

    Attributes:
        student: How the student's images are normalised.
        teacher: How the teacher's are, and their size; without a size they keep the student's.

    Raises:
        SetupError: If the two differ in their number of channels.

    Example:
        >>> view = NormalizedView(InputSpec((0.0,), (1.0,)), InputSpec((0.5,), (0.25,), size=(2, 2)))
        >>> view(torch.full((1, 1, 4, 4), 0.75)).flatten()
        tensor([1., 1., 1., 1.])
    """

    student: InputSpec
    teacher: InputSpec

    def __post_init__(self) -> None:
        """Check the values."""
        if len(self.student.mean) != len(self.teacher.mean):
            raise SetupError(
                f"`student` and `teacher` must take images of equally many channels, got {len(self.student.mean)} and "
                f"{len(self.teacher.mean)}."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images as the teacher takes them.

        Args:
            images: Shape ``(N, C, H, W)``, floating point.

        Returns:
            Shape ``(N, C, *size)``.

        Raises:
            ShapeError: If ``images`` has not four axes, or other channels.
        """
        if images.ndim != 4 or images.shape[1] != len(self.student.mean):
            raise ShapeError(
                f"`images` must have shape (N, {len(self.student.mean)}, H, W), got {tuple(images.shape)}."
            )
        s_mean, s_std, t_mean, t_std = (
            torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
            for spec in (self.student, self.teacher)
            for values in (spec.mean, spec.std)
        )
        if (self.student.mean, self.student.std) != (self.teacher.mean, self.teacher.std):
            images = images * (s_std / t_std) + (s_mean - t_mean) / t_std
        size = self.teacher.size
        return images if size is None else ResizedView(size, mode=self.teacher.interpolation)(images)


def matching_transform(student: nn.Module, teacher: nn.Module) -> NormalizedView:
    """The transform between what two networks declare.

    Args:
        student: A network that declares its images.
        teacher: Likewise.

    Returns:
        The transform.

    Raises:
        SetupError: If one of them declares nothing.
    """
    return NormalizedView(InputSpec.of(student), InputSpec.of(teacher))


def _read(source: Any) -> Any:
    if isinstance(source, nn.Module) or (isinstance(source, Mapping) and "mean" in source):
        return from_timm(source)
    return from_transformers(source)


def _made_for(source: Any, declared: tuple[int, int] | None) -> tuple[int, int] | None:
    """Size that a network's own patch embedding was made for, else the declared one."""
    size = getattr(getattr(source, "patch_embed", None), "img_size", None)
    return declared if size is None else (int(size[0]), int(size[1]))
