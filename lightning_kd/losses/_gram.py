"""Centred Gram matrices, the common part of every kernel alignment."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.errors import ShapeError

Kernel = Literal["linear", "rbf"]
# Differences up to this many units of rounding are taken for rounding, so that constant features count as constant.
_ROUNDINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GramOptions:
    """How features become a centred Gram matrix.

    Attributes:
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether the diagonal is left out, so that inner products estimate HSIC without bias.
        bandwidth: RBF only: kernel width as a fraction of the root of the median squared distance; ``None`` is 1.
        center: Whether the kernel is centred.

    Raises:
        ValueError: If an option is unknown, out of range or contradicts another.
    """

    kernel: Kernel = "linear"
    unbiased: bool = True
    bandwidth: float | None = None
    center: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("kernel", self.kernel, ("linear", "rbf"))
        if self.bandwidth is not None:
            check_positive("bandwidth", self.bandwidth)
            if self.kernel == "linear":
                raise ValueError(
                    f"`bandwidth` must be left out with kernel='linear', got {self.bandwidth!r}: it belongs to 'rbf'."
                )
        if self.unbiased and not self.center:
            raise ValueError("`unbiased` must be False with center=False, got True: only centred kernels have a bias.")

    @property
    def least_samples(self) -> int:
        """Number of samples below which the alignment is undefined or the same for all features."""
        return 4 if self.unbiased else 2 + self.center

    def check(self, features: Tensor, name: str) -> None:
        """Raise `ShapeError` unless ``features`` has shape ``(n, d)`` with enough samples."""
        if features.ndim != 2:
            raise ShapeError(f"`{name}` must have shape (samples, features), got {tuple(features.shape)}.")
        if features.shape[0] < self.least_samples:
            kind = "unbiased" if self.unbiased else "biased"
            advice = "; use a larger batch or unbiased=False" if self.unbiased else "; use a larger batch"
            raise ShapeError(
                f"`{name}` must have at least {self.least_samples} samples for {kind} CKA, "
                f"got {features.shape[0]}{advice}."
            )

    def gram(self, features: Tensor) -> Tensor:
        """Gram matrix of shape ``(n, n)`` of ``features`` ``(n, d)``, centred as the options say."""
        if not self.center:
            return self._kernel(features @ features.T)
        # Centred kernels ignore translations: the mean, there for precision, can be a constant to autograd.
        rows = features - features.detach().mean(dim=0)
        gram = self._kernel((rows @ rows.T).masked_fill(_is_residue(rows, features), 0.0))
        centered = _u_center(gram) if self.unbiased else _double_center(gram)
        return centered.masked_fill(_is_residue(centered, gram), 0.0)

    def _kernel(self, products: Tensor) -> Tensor:
        return products if self.kernel == "linear" else _rbf(products, self.bandwidth or 1.0)


def inner_products(student: Tensor, teacher: Tensor, options: GramOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Inner products of the centred kernels: student with teacher, student and teacher with themselves.

    All three up to one factor per side. Linear kernels of few features go by their covariance.
    """
    (n, d_s), d_t = student.shape, teacher.shape[1]
    if options.kernel == "linear" and d_s * d_s + d_s * d_t + d_t * d_t < n * (d_s + d_t):
        s, t = (_unit_range(_centered(x) if options.center else x) for x in (student, teacher))
        product = _unbiased_by_covariance if options.unbiased else _by_covariance
    else:
        s, t = (_unit_range(options.gram(features)) for features in (student, teacher))
        product = _by_gram
    return product(s, t), product(s, s), product(t, t)


def squared_distances(products: Tensor) -> Tensor:
    """Squared distances ``(n, n)`` between the rows behind ``products``; what is rounding is zero, without gradient."""
    squares = products.diagonal()
    sums = squares[:, None] + squares[None, :]
    distances = sums - 2.0 * products
    return distances.masked_fill(distances <= _ROUNDINGS * torch.finfo(products.dtype).eps * sums, 0.0)


def inverse_root(squares: Tensor) -> Tensor:
    """One over the root where positive, else zero; NaN stays NaN."""
    degenerate = squares <= 0
    return torch.rsqrt(squares.masked_fill(degenerate, 1.0)).masked_fill(degenerate, 0.0)


def _by_gram(student: Tensor, teacher: Tensor) -> Tensor:
    return (student * teacher).sum()


def _by_covariance(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.T @ teacher).square().sum()


def _unbiased_by_covariance(student: Tensor, teacher: Tensor) -> Tensor:
    """Inner product of U-centred kernels.

    Centred rows' kernels have rows that sum to zero, so what leaving out their diagonals and centring again takes away
    depends on the two diagonals alone.
    """
    n = len(student)
    s, t = student.square().sum(dim=1), teacher.square().sum(dim=1)
    biased = _by_covariance(student, teacher)
    unbiased = biased - n / (n - 2) * (s * t).sum() + s.sum() * t.sum() / ((n - 1) * (n - 2))
    return unbiased.masked_fill(unbiased.abs() <= _ROUNDINGS * torch.finfo(biased.dtype).eps * biased, 0.0)


def _unit_range(values: Tensor) -> Tensor:
    """``values`` over their largest magnitude, which is a constant to autograd: alignment ignores the scale."""
    largest = _largest(values)
    return values / largest.masked_fill(largest == 0, 1.0)


def _centered(features: Tensor) -> Tensor:
    rows = features - features.mean(dim=0)
    return rows.masked_fill(_is_residue(rows, features), 0.0)


def _is_residue(centered: Tensor, original: Tensor) -> Tensor:
    return _largest(centered) <= _ROUNDINGS * torch.finfo(original.dtype).eps * _largest(original)


def _largest(values: Tensor) -> Tensor:
    low, high = torch.aminmax(values.detach())
    return torch.maximum(-low, high)


def _rbf(products: Tensor, bandwidth: float) -> Tensor:
    distances = squared_distances(products)
    width = 2.0 * bandwidth**2 * _median(distances.flatten())
    return torch.exp(-distances / width.clamp(min=torch.finfo(products.dtype).tiny))


def _median(values: Tensor) -> Tensor:
    """Middle value, or mean of the two middle values."""
    lower, upper = (values.kthvalue(rank).values for rank in ((len(values) + 1) // 2, len(values) // 2 + 1))
    return (lower + upper) / 2.0


def _double_center(gram: Tensor) -> Tensor:
    means = gram.mean(dim=1)
    return gram - means[:, None] - means[None, :] + means.mean()


def _u_center(gram: Tensor) -> Tensor:
    n = len(gram)
    diagonal = torch.eye(n, dtype=torch.bool, device=gram.device)
    rest = gram.masked_fill(diagonal, 0.0)
    means = rest.sum(dim=1) / (n - 2)
    means = means - means.sum() / (2 * (n - 1))
    return (rest - means[:, None] - means[None, :]).masked_fill(diagonal, 0.0)
