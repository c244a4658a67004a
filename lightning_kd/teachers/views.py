"""What a teacher sees of the student's input."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True, slots=True)
class ResizedView:
    """The very images that the student got, augmented and mixed, at the teacher's size.

    DeiT-LT shows its teacher, a CNN trained with weak augmentation, the strongly augmented images of the student, only
    resized: their labels come from outside what the teacher was trained on. Its code resizes with ``mode="bicubic"``,
    with or without antialiasing as the version of torchvision has it; the default here is ours.

    Attributes:
        size: Height and width of the teacher's input in pixels; one number for both.
        mode: ``"bilinear"``, ``"bicubic"`` (both with antialiasing) or ``"nearest"``.

    Raises:
        ValueError: If ``size`` is not above 0 or ``mode`` is unknown.

    Source:
        Rangwani et al., "DeiT-LT: Distillation Strikes Back for Vision Transformer Training on Long-Tailed Datasets",
        arXiv:2404.02900.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_kd import FrozenTeacher
        >>> teacher = FrozenTeacher(nn.Identity(), input_transform=ResizedView(32))
        >>> ResizedView(32)(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 3, 32, 32])
    """

    size: int | tuple[int, int]
    mode: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("mode", self.mode, ("bilinear", "bicubic", "nearest"))
        if min(self._sides()) < 1:
            raise ValueError(f"`size` must be at least 1 pixel, got {self.size}.")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images at the teacher's size.

        Args:
            images: Shape ``(N, C, H, W)``, floating point.

        Returns:
            Shape ``(N, C, *size)``.

        Raises:
            ShapeError: If ``images`` has not four axes.
        """
        if images.ndim != 4:
            raise ShapeError(f"`images` must have shape (N, C, H, W), got {tuple(images.shape)}.")
        if images.shape[2:] == self._sides():
            return images
        return F.interpolate(images, self._sides(), mode=self.mode, antialias=self.mode != "nearest")

    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size
