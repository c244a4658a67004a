"""Distillation on data that nobody labelled: from the web, or of other classes than those of the task."""

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.hidden import Outside
from lightning_kd.losses import image_text_contrastive, soft_target_kl
from lightning_kd.losses.unlabelled import (
    class_similarities,
    combined_confidence,
    most_confident,
    weight_aware_cross_entropy,
    weighted_feature_mse,
)
from lightning_kd.objectives._logits import LogitObjective
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight, check_weight, weight_at
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, pick_tensor, resolve_module


class KD3KD(LogitObjective):
    r"""Distillation on images from elsewhere: the batch's most trusted samples, their features, and the classifier.

    .. math::
        L = T^2 \, \overline{\mathrm{KL}} + a \left( L_\mathrm{features}
        + \frac{1}{C d_s} \lVert W_s - W_t P \rVert^2 \right)

    Of every batch those samples are distilled of which teacher and student together are surest
    (`combined_confidence`); which they are changes as the student learns. :math:`P` is a learned projection from what
    the student's classifier reads to what the teacher's reads: features are compared behind it, weighted by that
    confidence, and classifiers through it.

    Args:
        student: Path of the student's classifier, a ``nn.Linear``.
        teacher: Path of the teacher's.
        keep: Share of each batch that is distilled, above 0 and up to 1: a number, or a schedule.
        temperature: :math:`T`.
        alignment: :math:`a`.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if a path names no linear layer, or the layers tell other numbers of classes apart.
        ValueError: If a value is out of range.

    Source:
        Ours, after Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
        arXiv:2307.11469, from its abstract: how much each part weighs and how confidences are combined are ours. The
        contrast of images with perturbed ones is `InstanceAlignmentKD`.

    Example:
        >>> KD3KD("fc", "head.fc").teacher_taps[0].path
        'head.fc'
    """

    needs_examples = True

    def __init__(
        self,
        student: str,
        teacher: str,
        *,
        keep: Weight = 0.5,
        temperature: float = 4.0,
        alignment: float = 1.0,
        weight: Weight = 1.0,
        name: str = "kd3",
    ) -> None:
        super().__init__(student_output=None, teacher_output=None, ignore_index=None, name=name, weight=weight)
        check_positive("temperature", temperature)
        check_not_negative("alignment", alignment)
        if not callable(keep):
            check_weight("keep", keep)
        self.student_taps = (Tap(student, at="input"),)
        self.teacher_taps = (Tap(teacher, at="input"),)
        self.keep = keep
        self.temperature = temperature
        self.alignment = alignment
        self.projection: nn.Module = nn.Identity()
        self._classifiers: tuple[Outside, Outside] | None = None

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        of_student = _linear(student.model, self.student_taps[0].path, "student")
        of_teacher = _linear(teacher.model, self.teacher_taps[0].path, "teacher")
        if of_student.out_features != of_teacher.out_features:
            raise SetupError(
                f"`{self.name}` aligns classifiers of one label set, got {of_student.out_features} classes of the "
                f"student and {of_teacher.out_features} of the teacher."
            )
        self.projection = nn.Linear(of_student.in_features, of_teacher.in_features, bias=False)
        self._classifiers = Outside(of_student), Outside(of_teacher)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        confidence = combined_confidence(scores.student, scores.teacher)
        mask = most_confident(confidence, weight_at(self.keep, step.progress))
        divergence = soft_target_kl(scores.student, scores.teacher, temperature=self.temperature, mask=mask)
        projected = self.projection(student.features[self.student_taps[0]])
        features = weighted_feature_mse(projected, teacher.features[self.teacher_taps[0]], confidence * mask)
        return divergence + self.alignment * (features + self._between_classifiers())

    def _between_classifiers(self) -> Tensor:
        if self._classifiers is None or not isinstance(self.projection, nn.Linear):
            raise SetupError(f"`{self.name}` must be built before it is used: call Distiller.build.")
        of_student, of_teacher = (classifier.module.get_parameter("weight") for classifier in self._classifiers)
        projection = self.projection.weight
        return (of_student.to(projection) - of_teacher.detach().to(projection) @ projection).square().mean()

    @override
    def extra_repr(self) -> str:
        keep = getattr(self.keep, "__name__", self.keep)
        return f"keep={keep}, temperature={self.temperature}, alignment={self.alignment}, {super().extra_repr()}"


class InstanceAlignmentKD(Objective):
    """Contrast between images and their perturbed twins: a student is to see the same in both. It needs no teacher.

    The first half of each batch are images, the second half the same images perturbed, in the same order, for example
    by `lightning_kd.perturbation.mix_distribution`. Each is to find its twin among the others of the batch by the
    cosine of their features.

    Args:
        student: Path of the student's classifier: what it reads is compared.
        scale: Factor of the cosines above 0, dimensionless.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        ShapeError: If a batch cannot be halved, or holds fewer than 2 images.
        ValueError: If ``scale`` is not above 0.

    Source:
        Ours, for the third part of Tang et al., arXiv:2307.11469, as far as its abstract describes it.

    Example:
        >>> InstanceAlignmentKD("fc").student_taps[0].path
        'fc'
    """

    needs_examples = False
    needs_teacher = False
    needs_teacher_output = False

    def __init__(
        self, student: str, *, scale: float = 10.0, weight: Weight = 1.0, name: str = "instance_alignment"
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("scale", scale)
        self.student_taps = (Tap(student, at="input"),)
        self.scale = scale

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        features = student.features[self.student_taps[0]].flatten(1)
        if len(features) % 2 or len(features) < 4:
            raise ShapeError(
                f"`{self.name}` needs images and as many perturbed ones, two of each at least, got a batch of "
                f"{len(features)}: torch.cat([images, mix_distribution(images)])."
            )
        images, twins = features.chunk(2)
        return image_text_contrastive(images, twins, scale=self.scale)


class WeightAwareKD(Objective):
    """Pseudo-labels from a teacher's features, by how clearly they belong to one known class.

    The teacher needs no classifier: one that learnt without labels serves. A sample's pseudo-label is the class of the
    labelled sample whose feature is most similar, and its weight is by how much that similarity exceeds the one to the
    next class; samples of unknown classes hardly count. Labelled samples may be in the batch: they count like the
    others.

    Args:
        teacher: Where the teacher's feature of shape ``(N, d)`` is read.
        known: Features of labelled samples there, shape ``(M, d)``; see `lightning_kd.selection.sample_features`. Or
            the path of a ``.safetensors`` file that holds them and their labels as ``known`` and ``labels``.
        labels: Their class indices, shape ``(M,)``; every class up to the largest needs one. ``None`` with a file.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        name: Name of the term.

    Raises:
        SetupError: If a class has no labelled sample, if labels are given twice or not at all, or if a path names no
            readable file with both.
        ShapeError: If ``known`` and ``labels`` do not fit together, or the student tells another number of classes
            apart.

    Source:
        Du et al., "Semi-Supervised Learning via Weight-aware Distillation under Class Distribution Mismatch",
        arXiv:2308.11874, in the form of its code, without its rotated copies of each image and without its rounds, in
        which the surest pseudo-labels become labels.

    Example:
        >>> import torch
        >>> WeightAwareKD("trunk", torch.eye(4), torch.tensor([0, 0, 1, 2])).classes
        3
    """

    needs_examples = False
    needs_teacher_output = False

    def __init__(
        self,
        teacher: str | Tap,
        known: Tensor | str,
        labels: Tensor | None = None,
        *,
        weight: Weight = 1.0,
        student_output: int | str | None = None,
        name: str = "weight_aware",
    ) -> None:
        super().__init__(name=name, weight=weight)
        known, labels = _labelled_features(known, labels)
        if known.ndim != 2 or labels.shape != known.shape[:1] or len(known) == 0:
            raise ShapeError(
                f"`known` and `labels` must have shapes (M, d) and (M,), got {tuple(known.shape)} and "
                f"{tuple(labels.shape)}."
            )
        self.classes = int(labels.max()) + 1
        missing = sorted(set(range(self.classes)) - set(labels.tolist()))
        if missing or self.classes < 2:
            raise SetupError(
                f"`labels` must have a sample of every class from 0 on, and of two at least, got none of {missing}."
            )
        self.teacher_taps = (Tap.of(teacher),)
        self.student_output = student_output
        self.known: Tensor
        self.labels: Tensor
        self.register_buffer("known", known.detach(), persistent=False)
        self.register_buffer("labels", labels.long(), persistent=False)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        logits = pick_tensor(student.output, self.student_output, "the student's output")
        features = teacher.features[self.teacher_taps[0]]
        if logits.shape[-1] != self.classes:
            raise ShapeError(
                f"`labels` name {self.classes} classes and the student tells {logits.shape[-1]} apart: they must agree."
            )
        known, labels = self.known.to(features.device), self.labels.to(features.device)
        similarities = class_similarities(features, known, labels, classes=self.classes)
        return weight_aware_cross_entropy(logits, similarities)


def _labelled_features(known: Tensor | str, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features and labels, read from a file where a path is given."""
    if isinstance(known, Tensor) and labels is not None:
        return known, labels
    if isinstance(known, Tensor) or labels is not None:
        raise SetupError("`labels` must be given beside features, and not beside the path of a file that holds them.")
    try:
        content = load_file(known)
    except (OSError, SafetensorError) as error:
        raise SetupError(f"`known` must be the path of a .safetensors file, got {known}: {error}") from error
    if content.keys() != {"known", "labels"}:
        raise SetupError(f"`known` must be a file of `known` and `labels`, got {sorted(content)} in {known}.")
    return content["known"], content["labels"]


def _linear(network: nn.Module, path: str, role: str) -> nn.Linear:
    layer = resolve_module(network, path, role)
    if not isinstance(layer, nn.Linear):
        raise SetupError(f"`{role}` must be the path of a linear classifier, got {type(layer).__name__} at {path!r}.")
    return layer
