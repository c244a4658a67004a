"""Centred kernel alignment (CKA): similarity of two sets of features of any widths, as a measure and as a loss."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands, without_autocast
from lightning_kd.losses._gram import GramOptions, Kernel, inner_products, inverse_root


def cka(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    bandwidth: float | None = None,
    center: bool = True,
) -> Tensor:
    r"""Centred kernel alignment of two sets of features of the same samples.

    .. math::
        \mathrm{CKA} = \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\, \mathrm{HSIC}(L, L)}}, \qquad
        K_{ij} = x_i^\top x_j \;\text{ or }\; \exp\left(-\frac{\lVert x_i - x_j \rVert^2}{2 b^2 m}\right)

    with :math:`x_i` the rows of ``student``, :math:`L` likewise of ``teacher``, :math:`b` the ``bandwidth`` and
    :math:`m` the median of all :math:`n^2` squared distances. The biased estimate is
    :math:`\mathrm{HSIC} = \langle HKH, HLH \rangle_F` with :math:`H = I - 11^\top / n`, the unbiased one the inner
    product of the U-centred kernels, which leaves the diagonal out. With far fewer samples than features the biased
    estimate is near 1 for unrelated features; the unbiased one is near 0 and may be negative.

    Linear CKA does not change under rotation, scaling or translation of either side. It is computed from the smaller
    of the Gram and the covariance matrices, outside autocast, in at least float32. No gradient flows to ``teacher``;
    the median is differentiated like the rest. Features that are equal for all samples up to rounding, or whose
    centred kernel is zero up to rounding, are aligned with nothing: the value is 0 and the gradient zero.

    Args:
        student: Features, shape ``(n, d_s)``, floating point, one row per sample.
        teacher: Features of the same samples, shape ``(n, d_t)``.
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether HSIC is estimated without bias. Needs at least 4 samples; biased needs 3, uncentred 2.
        bandwidth: :math:`b > 0`, dimensionless, for ``"rbf"`` only; ``None`` is 1.
        center: Whether to centre. ``False`` gives the cosine of the plain kernels and needs ``unbiased=False``.

    Returns:
        Similarity, dimensionless, at most 1, at least 0 if biased, shape ``()``.

    Raises:
        ShapeError: If a side is not ``(n, d)``, the numbers of samples differ, or there are too few.
        TypeError: If the features are not floating point.
        ValueError: If an option is unknown, out of range or contradicts another.

    Source:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", arXiv:1905.00414; Song
        et al., "Feature Selection via Dependence Maximization", JMLR 13, 2012 (unbiased HSIC); Szekely and Rizzo,
        "Partial Distance Correlation with Methods for Dissimilarities", arXiv:1310.2926 (U-centring).

    Example:
        >>> import torch
        >>> from lightning_kd.losses import cka
        >>> corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> cka(corners, 3.0 * corners.flip(1) - 1.0).round(decimals=4)  # mirrored, scaled, moved
        tensor(1.)
        >>> cka(corners, corners[:, :1], unbiased=False)  # 1 / sqrt(2)
        tensor(0.7071)
    """
    options = GramOptions(kernel=kernel, unbiased=unbiased, bandwidth=bandwidth, center=center)
    options.check(student, "student")
    options.check(teacher, "teacher")
    if len(student) != len(teacher):
        raise ShapeError(
            f"`student` and `teacher` must have the same samples, got {len(student)} and {len(teacher)} rows."
        )
    s, t = operands(student, teacher)
    with without_autocast(s):
        between, within_student, within_teacher = inner_products(s, t, options)
    return between * inverse_root(within_student) * inverse_root(within_teacher)


def cka_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: Kernel = "linear",
    unbiased: bool = True,
    bandwidth: float | None = None,
    center: bool = True,
) -> Tensor:
    """One minus `cka`.

    Args:
        student: Features, shape ``(n, d_s)``, floating point, one row per sample.
        teacher: Features of the same samples, shape ``(n, d_t)``; no gradient flows to them.
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether HSIC is estimated without bias. Needs at least 4 samples; biased needs 3, uncentred 2.
        bandwidth: RBF width as a fraction of the root of the median squared distance; ``None`` is 1.
        center: Whether to centre the kernels.

    Returns:
        Loss, dimensionless, non-negative, at least float32, shape ``()``; at most 1 if biased, else 2.

    Raises:
        ShapeError: If a side is not ``(n, d)``, the numbers of samples differ, or there are too few.
        TypeError: If the features are not floating point.
        ValueError: If an option is unknown, out of range or contradicts another.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import cka_loss
        >>> features = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0], [1.0, 5.0]])
        >>> cka_loss(features, torch.zeros(4, 3))  # features without any variation are aligned with nothing
        tensor(1.)
    """
    return 1.0 - cka(student, teacher, kernel=kernel, unbiased=unbiased, bandwidth=bandwidth, center=center)


class CKALoss(nn.Module):
    """Module form of `cka_loss`.

    Args:
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether HSIC is estimated without bias.
        bandwidth: RBF width as a fraction of the root of the median squared distance; ``None`` is 1.
        center: Whether to centre the kernels.

    Raises:
        ValueError: If an option is unknown, out of range or contradicts another.

    Example:
        >>> from lightning_kd.losses import CKALoss
        >>> CKALoss(kernel="rbf", bandwidth=0.5)
        CKALoss(kernel='rbf', unbiased=True, bandwidth=0.5, center=True)
    """

    def __init__(
        self,
        *,
        kernel: Kernel = "linear",
        unbiased: bool = True,
        bandwidth: float | None = None,
        center: bool = True,
    ) -> None:
        super().__init__()
        GramOptions(kernel=kernel, unbiased=unbiased, bandwidth=bandwidth, center=center)
        self.kernel: Kernel = kernel
        self.unbiased = unbiased
        self.bandwidth = bandwidth
        self.center = center

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cka_loss(
            student,
            teacher,
            kernel=self.kernel,
            unbiased=self.unbiased,
            bandwidth=self.bandwidth,
            center=self.center,
        )

    @override
    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}, unbiased={self.unbiased}, bandwidth={self.bandwidth}, center={self.center}"


class MinibatchCKA:
    r"""CKA between every student layer and every teacher layer, summed up over batches.

    .. math::
        \mathrm{CKA}_{ij} = \frac{\sum_b \mathrm{HSIC}_b(K_i, L_j)}
        {\sqrt{\sum_b \mathrm{HSIC}_b(K_i, K_i)}\, \sqrt{\sum_b \mathrm{HSIC}_b(L_j, L_j)}}

    where :math:`\mathrm{HSIC}_b` is the inner product of the centred kernels of batch :math:`b`, so that each batch
    counts by its number of pairs of samples. Sums of unbiased estimates converge to the CKA of the whole data set,
    whatever the size of the batches; means of per-batch CKA values do not. The sums are float64 on the CPU.

    Args:
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether HSIC is estimated without bias.
        bandwidth: RBF width as a fraction of the root of the batch's median squared distance; ``None`` is 1.

    Raises:
        ValueError: If an option is unknown, out of range or contradicts another.

    Source:
        Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?", arXiv:2010.15327.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import MinibatchCKA
        >>> layers = [torch.tensor([[0.0], [1.0], [2.0], [4.0]]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])]
        >>> similarity = MinibatchCKA()
        >>> similarity.update(layers, layers[:1])
        >>> similarity.compute().shape
        torch.Size([2, 1])
    """

    def __init__(self, *, kernel: Kernel = "linear", unbiased: bool = True, bandwidth: float | None = None) -> None:
        self._options = GramOptions(kernel=kernel, unbiased=unbiased, bandwidth=bandwidth)
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None
        self.samples = 0

    @torch.no_grad()
    def gram(self, features: Tensor) -> Tensor:
        """Reduce one layer's features to what `update_grams` needs, so that the features can be dropped.

        Args:
            features: Shape ``(n, d)``, floating point.

        Returns:
            Centred Gram matrix, shape ``(n, n)``, at least float32.

        Raises:
            ShapeError: If ``features`` is not ``(n, d)`` or has too few samples.
            TypeError: If ``features`` is not floating point.
        """
        self._options.check(features, "features")
        values, _ = operands(features, features)
        with without_autocast(values):
            return self._options.gram(values)

    def update(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Add one batch.

        Args:
            student: Features of each student layer, shapes ``(n, d)``, one row per sample.
            teacher: Features of each teacher layer on the same samples.

        Raises:
            ShapeError: If a feature is not ``(n, d)``, the numbers of samples or layers differ, or there are too few.
            TypeError: If a feature is not floating point.
        """
        self.update_grams([self.gram(layer) for layer in student], [self.gram(layer) for layer in teacher])

    def update_grams(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Add one batch whose features went through `gram`.

        Args:
            student: Centred Gram matrix of each student layer, shapes ``(n, n)``.
            teacher: Centred Gram matrix of each teacher layer on the same samples.

        Raises:
            ShapeError: If the numbers of samples differ, or those of layers from the batches before.
        """
        sizes = {len(gram) for gram in (*student, *teacher)}
        if not student or not teacher or len(sizes) != 1:
            raise ShapeError(
                "`student` and `teacher` must hold at least one layer each, all on the same samples, "
                f"got {len(student)} and {len(teacher)} layers on {sorted(sizes)} samples."
            )
        s, t = (torch.stack([gram.flatten().cpu() for gram in grams]).double() for grams in (student, teacher))
        batch = (s @ t.T, s.square().sum(dim=1), t.square().sum(dim=1))
        if self._sums is not None and self._sums[0].shape != batch[0].shape:
            raise ShapeError(
                f"`student` and `teacher` must have the layers of the batches before, {tuple(self._sums[0].shape)}, "
                f"got {tuple(batch[0].shape)}."
            )
        between, within_student, within_teacher = batch if self._sums is None else map(torch.add, self._sums, batch)
        self._sums = (between, within_student, within_teacher)
        self.samples += sizes.pop()

    def compute(self) -> Tensor:
        """Similarity of every pair of layers so far.

        Returns:
            Shape ``(student layers, teacher layers)``, float64 on the CPU, dimensionless, at most 1.

        Raises:
            ShapeError: If there was no batch yet.
        """
        if self._sums is None:
            raise ShapeError("CKA needs at least one batch, got none: call update() first.")
        between, within_student, within_teacher = self._sums
        return between * inverse_root(within_student)[:, None] * inverse_root(within_teacher)[None, :]
