"""Distillation of what two-tower models say about images and texts: TinyCLIP's affinity mimicking."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.distributed import gather_rows
from lightning_kd.losses import affinity_mimicking, image_text_contrastive
from lightning_kd.losses.affinity import LOGIT_SCALE, Scale
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, pick_tensor

Towers = tuple[int | str, int | str]


class AffinityKD(Objective):
    r"""The teacher's affinities between the batch's images and texts, in both directions.

    .. math::
        L = \alpha \, L_{\text{affinity}} + (1 - \alpha) \, L_{\text{contrastive}}

    Embeddings are read from the outputs of both models; their widths may differ. A batch of one has nothing to tell
    apart and gives zero. The cost is quadratic in the (gathered) batch.

    Args:
        alpha: Share of affinity mimicking, from 0 to 1; the rest is CLIP's contrastive loss. The published 1 is
            mimicking alone.
        student_output: Keys or positions of the image and the text embeddings in the student's output.
        teacher_output: Likewise for the teacher; ``None`` takes the student's.
        scale_output: Key or position of the logit scale in both outputs (the factor, not its logarithm); ``None`` takes
            the two numbers.
        student_scale: Logit scale of the student where the output has none, above 0, dimensionless.
        teacher_scale: Likewise for the teacher.
        gather: Whether to compare the embeddings of all ranks, with gradient, as published. Without, each rank compares
            its own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        ValueError: If ``alpha`` is not in [0, 1] or a scale is not a finite number above 0.

    Source:
        Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", arXiv:2309.12314.

    Example:
        >>> AffinityKD(student_output=(0, 1), gather=True).alpha
        1.0
    """

    needs_examples = False

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        student_output: Towers = ("image_embeds", "text_embeds"),
        teacher_output: Towers | None = None,
        scale_output: int | str | None = None,
        student_scale: float = LOGIT_SCALE,
        teacher_scale: float = LOGIT_SCALE,
        gather: bool = False,
        weight: Weight = 1.0,
        name: str = "affinity",
    ) -> None:
        super().__init__(name=name, weight=weight)
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be in [0, 1], got {alpha!r}.")
        check_positive("student_scale", student_scale)
        check_positive("teacher_scale", teacher_scale)
        self.alpha = alpha
        self.student_output = student_output
        self.teacher_output = student_output if teacher_output is None else teacher_output
        self.scale_output = scale_output
        self.scales = (student_scale, teacher_scale)
        self.gather = gather

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        image, text, scale = self._read(student.output, self.student_output, self.scales[0], "the student's output")
        terms = []
        if self.alpha > 0:
            given = self._read(teacher.output, self.teacher_output, self.scales[1], "the teacher's output")
            mimicking = affinity_mimicking(image, text, *given[:2], student_scale=scale, teacher_scale=given[2])
            terms.append(self.alpha * mimicking)
        if self.alpha < 1:
            terms.append((1 - self.alpha) * image_text_contrastive(image, text, scale=scale))
        return sum(terms[1:], terms[0])

    def _read(self, output: Any, towers: Towers, scale: float, where: str) -> tuple[Tensor, Tensor, Scale]:
        """Image embeddings, text embeddings and logit scale."""
        image, text = (pick_tensor(output, tower, where) for tower in towers)
        if self.gather:
            image, text = gather_rows(image), gather_rows(text)
        if self.scale_output is None:
            return image, text, scale
        return image, text, pick_tensor(output, self.scale_output, where).squeeze()

    @override
    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gather={self.gather}, weight={self.weight}"
