"""Images that are mixed of two: pairs that are mixed before the teacher sees them, and crops of one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_kd._checks import check_fraction, check_not_negative, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.teachers.cache.record import FieldList, Records
from lightning_kd.teachers.cache.replay import SEED_LIMIT, Values, generator_of, seeded, with_image

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedReplay:
    """Random transforms under a stored seed, then mixup or cutmix with a partner that is stored too (TinyViT).

    The samples of a view are paired off; both of a pair are mixed by parameters drawn from the exclusive or of their
    seeds. The teacher sees the mixed image. The record has seed, partner and the partner's seed, so batches and
    samplers may be any; each mixed sample reads two images.

    Attributes:
        mixup: Parameter of mixup's beta distribution; 0 leaves mixup out.
        cutmix: Parameter of cutmix's beta distribution; 0 leaves cutmix out.
        switch: Probability of cutmix where both are in.
        probability: Share of the pairs that are mixed.
        class_count: Number of classes: labels become shares of shape ``(class_count,)``. ``None`` leaves labels as
            they are, those of the image that is mixed into: for training without a task loss.
        label: Index or key of the label in a sample.
        image: Index or key of the image, a floating-point tensor ``(C, H, W)``; all of one size.
        seed: From which seeds and pairs are drawn.

    Raises:
        ValueError: If a value is out of range, or mixup and cutmix are both left out.

    Source:
        Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", arXiv:2207.10666; storing
        the partner is ours, after Faghri et al., "Reinforce Data, Multiply Impact", arXiv:2303.08983.

    Example:
        >>> data = [(torch.zeros(1, 4, 4), 0), (torch.ones(1, 4, 4), 1)]
        >>> replay = MixedReplay(cutmix=0.0, class_count=2)
        >>> (first, first_label), _ = replay.draw(data, 0, view=0)
        >>> (second, second_label), _ = replay.draw(data, 1, view=0)
        >>> bool((first + second).allclose(torch.ones(()))), bool(first[0, 0, 0] == first_label[1])
        (True, True)
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    probability: float = 1.0
    class_count: int | None = None
    label: int | str = 1
    image: int | str = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("mixup", "cutmix"):
            check_not_negative(name, getattr(self, name))
        for name in ("switch", "probability"):
            check_fraction(name, getattr(self, name))
        if not self.mixup and not self.cutmix:
            raise ValueError("`mixup` and `cutmix` must not both be 0: use SeededReplay to mix nothing.")

    @property
    def fields(self) -> FieldList:
        """Seed, partner and the partner's seed."""
        return (("seed", "<u4", ()), ("partner", "<u4", ()), ("partner_seed", "<u4", ()))

    def draw(self, dataset: Any, index: int, view: int) -> tuple[Any, Values]:
        """A sample mixed with its partner in this view."""
        partner = partner_of(index, len(dataset), generator_of(self.seed, view, len(dataset)))
        own, other = (int(generator_of(self.seed, view, i).integers(SEED_LIMIT)) for i in (index, partner))
        values = {"seed": own, "partner": partner, "partner_seed": other}
        return self._mixed(dataset, index, values), values

    def repeat(self, dataset: Any, index: int, records: Records) -> list[Any]:
        """The sample, once with the partner of each record."""
        return [
            self._mixed(dataset, index, {name: int(record[name]) for name, *_ in self.fields}) for record in records
        ]

    def _mixed(self, dataset: Any, index: int, values: Mapping[str, int]) -> Any:
        with seeded(values["seed"]):
            sample = dataset[index]
        with seeded(values["partner_seed"]):
            partner = dataset[values["partner"]]
        image, other = sample[self.image], partner[self.image]
        share, box = self._parameters(image, np.random.default_rng(values["seed"] ^ values["partner_seed"]))
        mixed = share * image + (1 - share) * other if box is None else pasted(image, other, box)
        sample = with_image(sample, self.image, mixed)
        if self.class_count is None:
            return sample
        return with_image(sample, self.label, self._label(sample, partner, share))

    def _parameters(self, image: Any, generator: np.random.Generator) -> tuple[float, Box | None]:
        if not isinstance(image, Tensor) or not image.is_floating_point():
            raise SetupError(f"`image` must be a floating-point tensor to be mixed, got {type(image).__name__}.")
        if generator.random() >= self.probability:
            return 1.0, None
        cut = bool(self.cutmix) and (not self.mixup or generator.random() < self.switch)
        if not cut:
            return float(generator.beta(self.mixup, self.mixup)), None
        box = random_box(image, generator.beta(self.cutmix, self.cutmix), generator)
        return share_outside(image, box), box

    def _label(self, sample: Any, partner: Any, share: float) -> Tensor:
        mixed = torch.zeros(self.class_count or 0)
        for part, label in ((share, sample[self.label]), (1 - share, partner[self.label])):
            mixed[int(label)] += part
        return mixed


@dataclass(frozen=True, slots=True)
class SelfMix:
    """Regions of one image's crops exchanged among themselves, their stored labels mixed by area (FerKD).

    Attributes:
        alpha: Parameter of the beta distribution of the share that stays.
        image: Index or key of the image in a sample, a tensor ``(C, H, W)``.

    Raises:
        ValueError: If ``alpha`` is not above 0.

    Source:
        Shen, "FerKD: Surgical Label Adaptation for Efficient Distillation", arXiv:2312.17473, from its abstract: how
        regions are drawn is ours.
    """

    alpha: float = 1.0
    image: int | str = 0

    def __post_init__(self) -> None:
        """Check the values."""
        check_positive("alpha", self.alpha)

    def __call__(self, samples: Sequence[Any], generator: np.random.Generator) -> "list[Mixture]":
        """Mix every crop with another one of the same image.

        Args:
            samples: At least two crops of one image.
            generator: Draws partners and regions.

        Returns:
            A mixture for each crop.
        """
        count = len(samples)
        step = int(generator.integers(1, count))
        mixtures = []
        for index, sample in enumerate(samples):
            partner = (index + step) % count
            image, other = sample[self.image], samples[partner][self.image]
            box = random_box(image, generator.beta(self.alpha, self.alpha), generator)
            mixed = with_image(sample, self.image, pasted(image, other, box))
            mixtures.append(Mixture(mixed, partner, share_outside(image, box)))
        return mixtures


class Mixture(NamedTuple):
    """A crop with a region of another one.

    Attributes:
        sample: The sample with the mixed image.
        partner: Place of the other crop in the list.
        share: Share of the own crop in the image's area.
    """

    sample: Any
    partner: int
    share: float


def partner_of(index: int, count: int, generator: np.random.Generator) -> int:
    """The partner of a sample when all are paired off at random, in constant memory.

    Places ``factor * index + offset`` modulo ``count`` are a permutation; neighbours in it are partners. Of an odd
    number of samples one is its own partner.

    Args:
        index: The sample.
        count: Number of samples.
        generator: Draws the permutation; new for every call, with the same seed.

    Returns:
        The partner, whose partner is ``index``.

    Example:
        >>> partners = [partner_of(i, 6, np.random.default_rng(1)) for i in range(6)]
        >>> [partners[partner] for partner in partners]
        [0, 1, 2, 3, 4, 5]
    """
    if count == 1:
        return index
    factor, offset = int(generator.integers(1, count)), int(generator.integers(count))
    while gcd(factor, count) > 1:
        factor = factor % count + 1
    place = (factor * index + offset) % count ^ 1
    return index if place == count else (place - offset) * pow(factor, -1, count) % count


def random_box(image: Tensor, stays: float, generator: np.random.Generator) -> Box:
    """A box, cut off at the edges, that leaves about the share ``stays`` of the image: top, left, bottom, right."""
    height, width = image.shape[-2:]
    half_tall, half_wide = (int(side * sqrt(1 - stays)) // 2 for side in (height, width))
    middle, centre = int(generator.integers(height)), int(generator.integers(width))
    return (
        max(middle - half_tall, 0),
        max(centre - half_wide, 0),
        min(middle + half_tall, height),
        min(centre + half_wide, width),
    )


def share_outside(image: Tensor, box: Box) -> float:
    """Share of the image's area outside a box."""
    top, left, bottom, right = box
    return 1.0 - (bottom - top) * (right - left) / (image.shape[-2] * image.shape[-1])


def pasted(image: Tensor, other: Tensor, box: Box) -> Tensor:
    """The image with the region ``box`` of another one of its size."""
    top, left, bottom, right = box
    mixed = image.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed
