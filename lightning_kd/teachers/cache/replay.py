"""How the student gets the very pixels that the teacher saw: a stored seed, a stored crop, or no randomness at all."""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_kd._checks import check_choice, check_fraction
from lightning_kd.errors import SetupError
from lightning_kd.teachers.cache.record import FieldList, Records

Values = Mapping[str, Any]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
SEED_LIMIT = 2**31
MOST_PIXELS = 2**16 - 1
_ATTEMPTS = 10
_global_generators = threading.RLock()


class Replay(Protocol):
    """Draws an augmentation once, stores it in the record, and repeats it from there."""

    @property
    def fields(self) -> FieldList:
        """Fields of the record that repeat the augmentation."""

    def draw(self, dataset: Any, index: int, view: int) -> tuple[Any, Values]:
        """A sample with a newly drawn augmentation, and the values of its fields.

        The same data set, index and view give the same.
        """

    def repeat(self, dataset: Any, index: int, records: Records) -> list[Any]:
        """The samples of one index with the augmentations in ``records``."""


@dataclass(frozen=True, slots=True)
class NoReplay:
    """The data set gives the same sample every time.

    Example:
        >>> NoReplay().draw(["first", "second"], 1, view=0)
        ('second', {})
    """

    @property
    def fields(self) -> FieldList:
        """None."""
        return ()

    def draw(self, dataset: Any, index: int, view: int) -> tuple[Any, Values]:  # noqa: ARG002 - all views are equal
        """The sample."""
        return dataset[index], {}

    def repeat(self, dataset: Any, index: int, records: Records) -> list[Any]:
        """The sample, once per record."""
        return [dataset[index] for _ in records]


@dataclass(frozen=True, slots=True)
class SeededReplay:
    """The data set's own random transforms, whatever library they are from, under a seed that is stored.

    While a sample is made, Python's, NumPy's and PyTorch's generators start from the seed, and go on afterwards as if
    nothing had happened. So every transform that draws from them repeats exactly. Samples of one process are made one
    at a time; the workers of a `DataLoader` are processes.

    Attributes:
        seed: From which the seeds of all samples and views are drawn.

    Example:
        >>> class Noise:
        ...     def __getitem__(self, index):
        ...         return float(torch.rand(()))
        >>> replay = SeededReplay()
        >>> sample, values = replay.draw(Noise(), 3, view=0)
        >>> sample == replay.draw(Noise(), 3, view=0)[0], sample == replay.draw(Noise(), 3, view=1)[0]
        (True, False)
    """

    seed: int = 0

    @property
    def fields(self) -> FieldList:
        """The seed."""
        return (("seed", "<u4", ()),)

    def draw(self, dataset: Any, index: int, view: int) -> tuple[Any, Values]:
        """A sample under the seed of this index and view."""
        seed = int(generator_of(self.seed, view, index).integers(SEED_LIMIT))
        with seeded(seed):
            return dataset[index], {"seed": seed}

    def repeat(self, dataset: Any, index: int, records: Records) -> list[Any]:
        """The sample, once under the seed of each record."""
        samples = []
        for record in records:
            with seeded(int(record["seed"])):
                samples.append(dataset[index])
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class CropReplay:
    """Random crops, resized and perhaps mirrored, whose place in the source image is stored (FKD).

    The data set gives whole images, PIL or tensors ``(C, H, W)``; several crops of one image cost one reading.

    Attributes:
        size: Height and width of the crops in pixels; one number for both.
        scale: Least and largest share of the image's area.
        ratio: Least and largest ratio of width to height.
        flip: Probability that a crop is mirrored.
        interpolation: How crops are resized, all but ``"nearest"`` with antialiasing.
        then: Transforms of the resized crop, without randomness.
        image: Index or key of the image in a sample.
        seed: From which crops are drawn.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", arXiv:2112.01528, whose scale
        is (0.08, 0.936); whole pixels are ours, so that nothing is rounded when crops are repeated.

    Example:
        >>> replay = CropReplay(size=4)
        >>> sample, values = replay.draw([(torch.arange(64.0).reshape(1, 8, 8), 5)], 0, view=0)
        >>> sample[0].shape, sorted(values)
        (torch.Size([1, 4, 4]), ['crop', 'flip'])
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    interpolation: Interpolation = "bilinear"
    then: Any = None
    image: int | str = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        check_fraction("flip", self.flip)
        check_choice("interpolation", self.interpolation, ("bilinear", "bicubic", "nearest"))
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                raise ValueError(f"`{name}` must be a range of numbers above 0, got {(low, high)}.")

    @property
    def fields(self) -> FieldList:
        """Top, left, height and width in pixels of the source image, and whether the crop is mirrored."""
        return (("crop", "<u2", (4,)), ("flip", "|u1", ()))

    def draw(self, dataset: Any, index: int, view: int) -> tuple[Any, Values]:
        """A sample with the crop of this index and view."""
        sample = dataset[index]
        generator = generator_of(self.seed, view, index)
        height, width = F.get_size(_image(sample, self.image))
        box = self._box(height, width, generator)
        values = {"crop": box, "flip": int(generator.random() < self.flip)}
        return self._cropped(sample, box, mirror=bool(values["flip"])), values

    def repeat(self, dataset: Any, index: int, records: Records) -> list[Any]:
        """The crops of one image, which is read once."""
        sample = dataset[index]
        boxes = [(tuple(map(int, record["crop"])), bool(record["flip"])) for record in records]
        return [self._cropped(sample, box, mirror=mirror) for box, mirror in boxes]

    def _box(self, height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
        if max(height, width) > MOST_PIXELS:
            raise SetupError(f"images must have at most {MOST_PIXELS} pixels a side, got {height} by {width}.")
        low, high = map(log, self.ratio)
        for _ in range(_ATTEMPTS):
            area = height * width * generator.uniform(*self.scale)
            ratio = exp(generator.uniform(low, high))
            wide, tall = round(sqrt(area * ratio)), round(sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                top, left = generator.integers(height - tall + 1), generator.integers(width - wide + 1)
                return int(top), int(left), tall, wide
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        wide, tall = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def _cropped(self, sample: Any, box: Sequence[int], *, mirror: bool) -> Any:
        size = [self.size, self.size] if isinstance(self.size, int) else list(self.size)
        image = F.resized_crop(
            _image(sample, self.image), *box, size=size, interpolation=v2.InterpolationMode(self.interpolation)
        )
        image = F.horizontal_flip(image) if mirror else image
        return with_image(sample, self.image, image if self.then is None else self.then(image))


def generator_of(seed: int, view: int, index: int) -> np.random.Generator:
    """A generator of its own for each sample of each view."""
    return np.random.default_rng((seed, view, index))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start the generators that transforms draw from at ``seed``, and restore them after the block."""
    with _global_generators:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - transforms use it
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.set_rng_state(before[2])


def _image(sample: Any, place: int | str) -> Any:
    try:
        return sample[place]
    except (KeyError, IndexError, TypeError) as error:
        found = type(sample).__name__
        raise SetupError(f"`image` must be where a sample has its image, got {place!r} of {found}.") from error


def with_image(sample: Any, place: int | str, image: Any) -> Any:
    """The sample with another image."""
    if isinstance(sample, Mapping):
        return {**sample, place: image}
    return tuple(image if index == place else part for index, part in enumerate(sample))
