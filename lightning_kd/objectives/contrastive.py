"""Contrastive distillation: a sample's student embedding shall be told by its teacher embedding, and the reverse."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe
from lightning_kd.adapters.memory import ContrastiveMemory, check_momentum, contrast_groups
from lightning_kd.layout import pooled
from lightning_kd.losses import noise_contrastive
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class CRDKD(Objective):
    """Contrastive representation distillation (CRD) with its two memory banks.

    Features averaged over the grid go through one learned linear map per side, the teacher's too, to embeddings of
    length 1. Each is scored against its sample's embedding in the other side's bank and against those of
    ``negatives`` other samples, drawn anew for every sample; then the banks remember the new embeddings.

    The batch must name its samples: wrap the training data, ``IndexedDataset(dataset)``, and take one more item in
    ``training_step``. Under DDP the banks of all ranks are the same. They hold ``2 * samples * width`` floats, are
    saved with the adapters, and DDP sends them to all ranks every step unless ``broadcast_buffers=False``.

    Args:
        student: Place in the student: module path or tap, usually the last feature.
        teacher: Place in the teacher.
        samples: Size of the training data, ``len(dataset)``; may be left out with ``labels``.
        labels: Class of each sample of the training data in the order of its index. Then negatives are of other
            classes, as published; without, they are any other samples.
        negatives: How many other samples each is contrasted with; some data sets are too small for the default.
        width: Size of the embeddings.
        temperature: Divides the cosines, above 0, dimensionless.
        momentum: What an embedding in a bank keeps of its former self when its sample is seen again, in [0, 1).
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        ValueError: If an argument is out of range, or there are fewer samples to contrast with than ``negatives``.
        SetupError: In training, if the batch names no samples or indices are not those of the data.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation", arXiv:1910.10699; the defaults are those
        of its CIFAR-100 runs. Negatives without labels, and equal banks on all ranks, are ours.

    Example:
        >>> CRDKD("layer4", "blocks.11", samples=50_000)
        CRDKD(samples=50000, negatives=16384, width=128, temperature=0.07, momentum=0.5)
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: str | Tap,
        teacher: str | Tap,
        *,
        samples: int | None = None,
        labels: Sequence[int] | Tensor | None = None,
        negatives: int = 16384,
        width: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        weight: Weight = 0.8,
        name: str = "crd",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("width", width)
        check_positive("temperature", temperature)
        check_momentum(momentum)
        self.student_taps, self.teacher_taps = (Tap.of(student),), (Tap.of(teacher),)
        self.groups = contrast_groups(samples, labels, negatives=negatives)
        self.negatives = negatives
        self.width = width
        self.temperature = temperature
        self.momentum = momentum

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        of_student, of_teacher = student.geometry(self.student_taps[0]), teacher.geometry(self.teacher_taps[0])
        self.layouts = of_student.layout, of_teacher.layout
        self.student_embedding = nn.Linear(of_student.width, self.width)
        self.teacher_embedding = nn.Linear(of_teacher.width, self.width)
        self.memory = ContrastiveMemory(self.groups, self.width, temperature=self.temperature, momentum=self.momentum)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        s, t = self._embeddings(student.features[self.student_taps[0]], teacher.features[self.teacher_taps[0]])
        indices = step.indices.to(s.device)
        scores = self.memory(s, t, self.memory.candidates(indices, self.negatives))
        self.memory.update(indices, s, t)
        of_student, of_teacher = (noise_contrastive(side, samples=len(self.groups)) for side in scores)
        return of_student + of_teacher

    def _embeddings(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        s, t = (pooled(layout.channels_first(x)) for layout, x in zip(self.layouts, (student, teacher), strict=True))
        return F.normalize(self.student_embedding(s), dim=1), F.normalize(self.teacher_embedding(t), dim=1)

    @override
    def extra_repr(self) -> str:
        return (
            f"samples={len(self.groups)}, negatives={self.negatives}, width={self.width}, "
            f"temperature={self.temperature}, momentum={self.momentum}"
        )
