"""Crops on which the teacher is not sure, and what to learn from them instead (FerKD)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionCalibration:
    r"""Sorts crops by the teacher's confidence, its largest probability m.

    ====================  ==================================================================
    m < drop              the crop is not used: another view of the image is taken
    drop <= m < low       a hard crop, all context: the softened label
                          :math:`(1 - \epsilon) \mathrm{onehot}(y) + \epsilon / C`
    low <= m < high       the teacher's distribution
    high <= m             an easy crop: the teacher's distribution, or not used
    ====================  ==================================================================

    Attributes:
        low: Least confidence with which the teacher is believed.
        high: Confidence from which a crop is easy.
        drop: Least confidence with which a crop is used.
        smoothing: The :math:`\epsilon` of the softened label.
        keep_easy: Whether easy crops are used.

    Raises:
        ValueError: If a value is not in [0, 1], or drop, low and high are not in this order.

    Source:
        Shen, "FerKD: Surgical Label Adaptation for Efficient Distillation", arXiv:2312.17473, whose thresholds are not
        public: these have no defaults from there, and (0, 0, 1) for drop, low and high is FKD.

    Example:
        >>> import torch
        >>> calibration = RegionCalibration(low=0.5, smoothing=0.2)
        >>> calibration(torch.tensor([[0.4, 0.6], [0.5, 0.5]]), torch.tensor([0, 0]))
        tensor([[0.4000, 0.6000],
                [0.5000, 0.5000]])
        >>> calibration(torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.tensor([2]))
        tensor([[0.0500, 0.0500, 0.8500, 0.0500]])
    """

    low: float
    high: float = 1.0
    drop: float = 0.0
    smoothing: float = 0.1
    keep_easy: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("low", "high", "drop", "smoothing"):
            check_fraction(name, getattr(self, name))
        if not self.drop <= self.low <= self.high:
            raise ValueError(
                f"`drop`, `low` and `high` must be in ascending order, got {self.drop}, {self.low} and {self.high}."
            )

    def accepts(self, confidence: float) -> bool:
        """Whether a crop with this confidence is used."""
        return confidence >= self.drop and (self.keep_easy or confidence < self.high)

    def __call__(self, distribution: Tensor, labels: Tensor) -> Tensor:
        """Replace the distributions of hard crops by softened labels.

        Args:
            distribution: The teacher's, shape ``(N, C)``.
            labels: Class indices, shape ``(N,)``.

        Returns:
            Shape ``(N, C)``, each with sum 1.
        """
        count = distribution.shape[-1]
        softened = (1 - self.smoothing) * F.one_hot(labels, count).to(distribution) + self.smoothing / count
        hard = distribution.amax(dim=-1, keepdim=True) < self.low
        return softened.where(hard, distribution)
