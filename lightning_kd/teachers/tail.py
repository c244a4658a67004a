"""The last stage of a frozen teacher, run on features that are not its own."""

import torch
from torch import Tensor, nn

from lightning_kd.errors import LayoutError
from lightning_kd.families import tail_paths, tap_on
from lightning_kd.hidden import Outside
from lightning_kd.layout import Layout
from lightning_kd.taps import resolve_module


class TeacherTail:
    """What a teacher makes of features that enter its last stage: gradients flow through, its weights stay.

    The last stage is that of networks with resolution stages, and the last two blocks of plain transformers and MLPs,
    each with the final norm in front of the pooling, see `lightning_kd.families.tail_paths`. The teacher's parameters
    stop requiring gradients; the stage runs in evaluation mode, also after a ``train()`` of the teacher.

    Args:
        teacher: A network of a family whose last stage is a chain of modules.
        name: What it is called in messages.

    Attributes:
        start: Where features enter: a tap on the output of the module in front of the last stage.
        end: Where they leave: a tap on the teacher's last map.

    Raises:
        SetupError: If the teacher's family is not known, or its last stage is no chain of modules.

    Example:
        >>> import timm
        >>> tail = TeacherTail(timm.create_model("test_vit", img_size=64))
        >>> tail.start.path, tail.end.path, tail(torch.zeros(2, 17, 64)).shape
        ('blocks.3', 'norm', torch.Size([2, 17, 64]))
    """

    def __init__(self, teacher: nn.Module, name: str = "teacher") -> None:
        start, *path = tail_paths(teacher, name)
        self.start = tap_on(teacher, start, name)
        self.end = tap_on(teacher, path[-1], name)
        self._chain = [Outside(resolve_module(teacher, place, name).requires_grad_(False)) for place in path]

    def __call__(self, feature: Tensor) -> Tensor:
        """Run the last stage.

        Args:
            feature: In the layout, grid and width of the teacher's own feature at ``start``.

        Returns:
            In the layout of the teacher's last map.
        """
        for stage in self._chain:
            if stage.module.training:
                stage.module.eval()
            parameter = next(stage.module.parameters(), feature)
            feature = stage.module(feature.to(parameter.dtype))
        return feature


def with_patches(own: Tensor, patches: Tensor, layout: Layout) -> Tensor:
    """Put other patches in the place of a feature's own; its prefix tokens stay.

    Args:
        own: Feature as tapped.
        patches: What replaces its map or patch tokens, shape ``(N, C, H, W)``.
        layout: Layout of ``own``.

    Returns:
        ``patches`` in the layout of ``own``, behind the prefix tokens of ``own``.

    Raises:
        LayoutError: If ``own`` is no map and no sequence of patch tokens.

    Example:
        >>> own = torch.tensor([[[9.0], [1.0], [2.0]]])
        >>> with_patches(own, torch.tensor([[[[3.0, 4.0]]]]), Layout("NLD", prefix_tokens=1, grid=(1, 2))).flatten()
        tensor([9., 3., 4.])
    """
    if layout.axes == "NCHW":
        return patches
    if layout.axes == "NHWC":
        return patches.movedim(1, -1)
    if layout.axes == "NLD":
        tokens = patches.flatten(2).transpose(1, 2)
        return torch.cat([own[:, : layout.prefix_tokens].to(tokens.dtype), tokens], dim=1)
    raise LayoutError(f"patches have no place in a feature of layout {layout.axes!r}: tap a map or patch tokens.")
