"""Learned maps from a student's feature to a teacher's, as they were published with FitNets, VID, SimKD and ICKD."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import AdapterNorm, Geometry, as_map
from lightning_kd.layout import common_grid


def is_rectified(feature: Tensor) -> bool:
    """Whether ``feature`` holds no value below 0, as after a ReLU: only then can a map that ends in one reach it."""
    return not bool((feature < 0).any())


class HintRegressor(nn.Module):
    """Predicts a teacher's map from a student's: one convolution that also bridges the grids, BatchNorm, ReLU.

    Along each axis the convolution has kernel 3 and stride 2 if the student's grid is twice the teacher's, is
    transposed with kernel 4 and stride 2 if it is half of it, and else has the kernel ``1 + s - t`` that leaves ``t``
    of ``s`` positions. These are the regressors of the CIFAR-100 baselines, for square maps. Where the student is
    smaller in another ratio they have none: the teacher is averaged to the smaller grid, and the convolution keeps it
    with kernel 3, as in SimKD's code; where each side is the smaller along one axis, both are averaged (ours).
    The weights grow with the kernel's area, so that grids of ratio 1 or 2 are the ones to pair.

    Args:
        student: Geometry of the student's feature.
        teacher: Geometry of the teacher's feature.
        rectify: Whether to end in the ReLU; without it a target with negative values can be reached.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, in the form of the CIFAR-100 baselines;
        Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", arXiv:2203.14001, for other ratios.

    Example:
        >>> import torch
        >>> from lightning_kd.layout import Layout
        >>> fine, coarse = Geometry(Layout("NCHW"), 8, (8, 8)), Geometry(Layout("NCHW"), 16, (4, 4))
        >>> HintRegressor(fine, coarse, rectify=True).convolution
        Conv2d(8, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
        >>> prediction, target = HintRegressor(coarse, fine, rectify=True)(
        ...     torch.zeros(2, 16, 4, 4), torch.zeros(2, 8, 8, 8)
        ... )
        >>> prediction.shape == target.shape == (2, 8, 8, 8)
        True
    """

    def __init__(self, student: Geometry, teacher: Geometry, *, rectify: bool) -> None:
        super().__init__()
        convolution = _bridge(student, teacher)
        self.pools = convolution is None
        self.convolution = nn.Conv2d(student.width, teacher.width, 3, padding=1) if convolution is None else convolution
        self.norm = AdapterNorm(teacher.width)
        self.activation = nn.ReLU() if rectify else nn.Identity()

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction and what it predicts, both ``(N, C_teacher, H, W)``.

        Args:
            student: The student's feature, channels first.
            teacher: The teacher's feature, channels first.

        Returns:
            Prediction and target.
        """
        student, teacher = as_map(student), as_map(teacher)
        if self.pools:
            student, teacher = common_grid(student, teacher)
        return self.activation(self.norm(self.convolution(student))), teacher


def information_regressor(inputs: int, outputs: int) -> nn.Sequential:
    """VID's mean: three 1x1 convolutions without bias with ReLU between them, ``inputs`` to ``outputs`` channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
    )


def channel_embedding(inputs: int, outputs: int) -> nn.Sequential:
    """ICKD's map to the teacher's channels: a 1x1 convolution without bias, and BatchNorm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), AdapterNorm(outputs))


def bottleneck_projector(inputs: int, outputs: int, *, factor: int = 2, rectify: bool = True) -> nn.Sequential:
    """SimKD's projector: 1x1 to ``outputs / factor`` channels, 3x3, 1x1 to ``outputs``; BatchNorm and ReLU after each.

    ``rectify`` says whether the last ReLU is there.
    """
    middle = max(outputs // factor, 1)
    layers: list[nn.Module] = []
    for width_in, width_out, kernel in ((inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1)):
        convolution = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
        layers += [convolution, AdapterNorm(width_out), nn.ReLU()]
    return nn.Sequential(*(layers if rectify else layers[:-1]))


def _bridge(student: Geometry, teacher: Geometry) -> nn.Module | None:
    """The published convolution between two grids; ``None`` if there is none."""
    axes = list(zip(student.plane, teacher.plane, strict=True))
    widths = (student.width, teacher.width)
    if all(s >= t for s, t in axes):
        kernels, strides, paddings = zip(*(_downward(s, t) for s, t in axes), strict=True)
        return nn.Conv2d(*widths, kernels, strides, paddings)
    if all(t in (s, 2 * s) for s, t in axes):
        kernels, strides, paddings = zip(*((1, 1, 0) if s == t else (4, 2, 1) for s, t in axes), strict=True)
        return nn.ConvTranspose2d(*widths, kernels, strides, paddings)
    return None


def _downward(student: int, teacher: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that turn ``student`` positions into as many or fewer."""
    return (3, 2, 1) if student == 2 * teacher else (1 + student - teacher, 1, 0)


class TokenReverse(nn.Module):
    r"""Recovers a teacher's tokens from a student's, which are fewer and mean other places (SiT's reverse module).

    .. math::
        y = (W_2 \, \mathrm{GELU}(W_1 \, \mathrm{LN}(x))) , \qquad \mathrm{out} = y + \mathrm{MLP}(\mathrm{LN}(y))

    with :math:`W_1` and :math:`W_2` across the tokens, from :math:`L_s` over :math:`4 L_t` to :math:`L_t`, and the MLP
    across the channels over four times their number.

    Args:
        tokens: Number of the student's tokens :math:`L_s`.
        recovered: Number of the teacher's tokens :math:`L_t`.
        width: Number of channels.

    Source:
        Zong et al., "Self-slimmed Vision Transformer", arXiv:2111.12624.

    Example:
        >>> import torch
        >>> TokenReverse(tokens=5, recovered=17, width=8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 17, 8])
    """

    def __init__(self, *, tokens: int, recovered: int, width: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.across_tokens = _mlp(tokens, 4 * recovered, recovered)
        self.channel_norm = nn.LayerNorm(width)
        self.across_channels = _mlp(width, 4 * width, width)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(N, L_t, width)`` for ``(N, L_s, width)``."""
        mixed: Tensor = self.across_tokens(self.token_norm(tokens).transpose(1, 2)).transpose(1, 2)
        recovered: Tensor = mixed + self.across_channels(self.channel_norm(mixed))
        return recovered


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    first, second = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for linear in (first, second):
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(first, nn.GELU(), second)
