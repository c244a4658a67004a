"""The pairs of the CIFAR-100 protocol, and its methods with the weights that were published for each pair.

A weight that changes from pair to pair stands in the pair: DKD's beta, ReviewKD's factor. ReviewKD's is 5 for
resnet32x4 to resnet8x4 in the usual code of the baselines; for other pairs it is that of the method's own repository,
and 1, the default of the former, where neither is known to us (the pairs of vgg13 and of ResNet50).

``PUBLISHED`` holds the published accuracies: of the best epoch, mean of five runs. Those of ReviewKD could not be
confirmed.
"""

from dataclasses import dataclass

import torch
from _cifar_networks import ARCHITECTURES, Architecture
from _training import Method
from torch import Tensor

from lightning_kd.objectives import (
    ATKD,
    CRDKD,
    CTKD,
    DISTKD,
    DKD,
    NKD,
    PKTKD,
    RKD,
    SPKD,
    VIDKD,
    FitNetKD,
    LogitKD,
    ReviewKD,
)
from lightning_kd.schedules import Ramp

WARM_UP_EPOCHS = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """A teacher and its student by name, and the published weights that are theirs alone.

    Attributes:
        teacher: Name of the teacher.
        student: Name of the student.
        beta: DKD's weight of the classes that are not the target.
        review: ReviewKD's weight.
    """

    teacher: str
    student: str
    beta: float
    review: float

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.teacher}-{self.student}"

    @property
    def networks(self) -> tuple[Architecture, Architecture]:
        """Architecture of the student and of the teacher."""
        return ARCHITECTURES[self.student], ARCHITECTURES[self.teacher]


_PAIRS = (
    Pair("resnet56", "resnet20", beta=2, review=0.6),
    Pair("resnet110", "resnet32", beta=2, review=1.0),
    Pair("resnet32x4", "resnet8x4", beta=8, review=5.0),
    Pair("wrn_40_2", "wrn_16_2", beta=6, review=5.0),
    Pair("wrn_40_2", "wrn_40_1", beta=6, review=5.0),
    Pair("vgg13", "vgg8", beta=6, review=1.0),
    Pair("resnet32x4", "ShuffleV1", beta=8, review=5.0),
    Pair("resnet32x4", "ShuffleV2", beta=8, review=8.0),
    Pair("wrn_40_2", "ShuffleV1", beta=8, review=5.0),
    Pair("vgg13", "MobileNetV2", beta=6, review=1.0),
    Pair("ResNet50", "MobileNetV2", beta=8, review=1.0),
)
PAIRS = {pair.name: pair for pair in _PAIRS}

_COLUMNS = {
    "teacher": (72.34, 74.31, 79.42, 75.61, 75.61, 74.64, 79.42, 79.42, 75.61, 74.64, 79.34),
    "alone": (69.06, 71.14, 72.50, 73.26, 71.98, 70.36, 70.50, 71.82, 70.50, 64.60, 64.60),
    "KD": (70.66, 73.08, 73.33, 74.92, 73.54, 72.98, 74.07, 74.45, 74.83, 67.37, 67.35),
    "FitNet": (69.21, 71.06, 73.50, 73.58, 72.24, 71.02, 73.59, 73.54, 73.73, 64.14, 63.16),
    "AT": (70.55, 72.31, 73.44, 74.08, 72.77, 71.43, 71.73, 72.73, 73.32, 59.40, 58.58),
    "RKD": (69.61, 71.82, 71.90, 73.35, 72.22, 71.48, None, None, None, None, None),
    "SP": (69.67, 72.69, 72.94, 73.83, 72.43, 72.68, None, None, None, None, None),
    "CRD": (71.16, 73.48, 75.51, 75.48, 74.14, 73.94, 75.11, 75.65, 76.05, 69.73, 69.11),
    "ReviewKD": (71.89, 73.89, 75.63, 76.12, 75.09, 74.84, 77.45, 77.78, 77.14, 70.37, 69.89),
    "DKD": (71.97, 74.11, 76.32, 76.23, 74.81, 74.68, 76.45, 77.07, 76.70, 69.71, 70.35),
    "LSKD": (71.43, 74.17, 76.62, 76.11, 74.37, 74.36, None, 75.56, None, 68.61, 69.02),
    "DIST": (None, None, 76.31, None, None, None, None, None, None, None, None),
}
PUBLISHED = {
    pair: {name: figures[index] for name, figures in _COLUMNS.items() if figures[index] is not None}
    for index, pair in enumerate(PAIRS)
}


def warm_up(weight: float) -> Ramp:
    """``weight * min(epoch / 20, 1)`` with epochs counted from 1, so a twentieth of it in the first epoch."""
    return Ramp(weight / WARM_UP_EPOCHS, weight, over=WARM_UP_EPOCHS - 1)


def methods(pair: Pair, labels: Tensor) -> dict[str, Method]:
    """Every way to train the student of ``pair``, by name.

    Args:
        pair: The networks.
        labels: Class of each training image, ``(N,)``, of which CRD draws its negatives; less than its 16384 where
            the images are too few.
    """
    student, teacher = pair.networks
    stages, pooled = (student.stages, teacher.stages), (student.pooled, teacher.pooled)
    levels = (*student.stages, student.pooled), (*teacher.before_activation, teacher.pooled)
    others = len(labels) - int(torch.bincount(labels).max())
    return {
        "alone": Method([]),
        "KD": Method([LogitKD(temperature=4.0, weight=0.9)], task_weight=0.1),
        "FitNet": Method([FitNetKD(student.stages[1], teacher.stages[1], rectify=True, weight=100.0)]),
        "AT": Method([ATKD(*stages, power=2, weight=1000.0)]),
        "SP": Method([SPKD(student.stages[-1], teacher.stages[-1], weight=3000.0)]),
        "VID": Method([VIDKD(*stages, variance=5.0, weight=1.0)]),
        "RKD": Method([RKD(*pooled, distance_weight=25.0, angle_weight=50.0, weight=1.0)]),
        "PKT": Method([PKTKD(*pooled, weight=30000.0)]),
        "CRD": Method([CRDKD(*pooled, labels=labels, negatives=min(16384, others), weight=0.8)]),
        "ReviewKD": Method([ReviewKD(*levels, weight=warm_up(pair.review))]),
        "DKD": Method([DKD(temperature=4.0, alpha=1.0, beta=pair.beta, weight=warm_up(1.0))]),
        "LSKD": Method([LogitKD(temperature=2.0, standardize=True, weight=9.0)], task_weight=0.1),
        "DIST": Method([DISTKD(temperature=4.0, weight=2.0)]),
        "NKD": Method([NKD(temperature=3.0, gamma=3.5, weight=1.0)]),
        "CTKD": Method([CTKD(weight=0.9)], task_weight=0.1),
    }
