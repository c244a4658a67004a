"""A student that ends in its teacher's classifier (SimKD)."""

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from typing_extensions import override

from lightning_kd._modes import looking_only
from lightning_kd.adapters import Geometry, Probe, as_map
from lightning_kd.adapters.regressors import bottleneck_projector, is_rectified
from lightning_kd.errors import SetupError
from lightning_kd.layout import pooled
from lightning_kd.taps import Inputs, Observation, Tap, pick_tensor
from lightning_kd.teachers import FrozenTeacher


class ReusedClassifier(nn.Module):
    """Backbone, projector to the teacher's last map, average over the grid, the teacher's classifier.

    All of it is the student: the projector and the teacher's classifier stay at inference, and their weights are in the
    student's checkpoint and export. The classifier is frozen: dropout and BatchNorm in it stay in evaluation mode. A
    backbone with a finer
    grid than the teacher's is averaged to the teacher's before the projector. Build it with `with_teacher_classifier`.

    Args:
        backbone: Module that returns the student's last map or tokens.
        classifier: Copy of what the teacher computes from the average of its last map.
        student: Geometry of the backbone's output.
        teacher: Geometry of the teacher's last map.
        factor: By how much the projector is narrower inside than the teacher's last map.
        rectify: Whether the projector ends in a ReLU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        *,
        student: Geometry,
        teacher: Geometry,
        factor: int = 2,
        rectify: bool = True,
    ) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"`factor` must be at least 1, got {factor!r}.")
        self.backbone = backbone
        self.projector = bottleneck_projector(student.width, teacher.width, factor=factor, rectify=rectify)
        self.classifier = classifier.requires_grad_(False)
        self.layout = student.layout
        smaller = [min(sizes) for sizes in zip(student.plane, teacher.plane, strict=True)]
        self.grid = (smaller[0], smaller[1])
        self.train()

    @override
    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but what would drop or change values in the classifier."""
        super().train(mode)
        for module in self.classifier.modules():
            if isinstance(module, _BatchNorm | _DropoutNd):
                module.eval()
        return self

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores, shape ``(N, K)``.

        Args:
            images: What the backbone takes.

        Returns:
            The scores.
        """
        feature = as_map(self.layout.channels_first(pick_tensor(self.backbone(images), None, "the backbone")))
        scores: Tensor = self.classifier(pooled(self.projector(F.adaptive_avg_pool2d(feature, self.grid))))
        return scores


def with_teacher_classifier(
    backbone: nn.Module,
    teacher: nn.Module,
    example: Tensor,
    *,
    last_map: str | Tap,
    classifier: nn.Module | None = None,
    factor: int = 2,
    rectify: bool | None = None,
) -> ReusedClassifier:
    """Make a student that ends in its teacher's classifier, to be distilled with `lightning_kd.objectives.SimKD`.

    The teacher must classify the average of its last map; this is checked on the example. So the label sets are the
    same, and a transformer must average its tokens instead of reading a class token.

    Args:
        backbone: Module that returns the student's last map or tokens: of timm,
            ``create_model(name, num_classes=0, global_pool="")``. It becomes part of the student.
        teacher: The trained teacher, frozen here as by every distillation; its classifier is copied.
        example: Images as the student gets them, shape ``(N, C, H, W)``.
        last_map: Place of the teacher's last map, before the average.
        classifier: What the teacher computes from the average, shape ``(N, C)``; ``None`` takes ``get_classifier()``,
            which timm's networks have. Give it where there is more between, as a norm.
        factor: By how much the projector is narrower inside than the teacher's last map; 2 is published.
        rectify: Whether the projector ends in a ReLU; ``None`` decides by the teacher's map: yes if it has no negative
            value on the example, as published, else no (ours).

    Returns:
        The student.

    Raises:
        SetupError: If the teacher's output on the example is not its classifier applied to the average.
        LayoutError: If a last map's layout must be declared.
        ValueError: If ``factor`` is below 1.

    Source:
        Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", arXiv:2203.14001.

    Example:
        >>> import timm
        >>> backbone = timm.create_model("test_vit", img_size=64, num_classes=0, global_pool="")
        >>> teacher, images = timm.create_model("test_resnet", num_classes=10), torch.zeros(2, 3, 64, 64)
        >>> student = with_teacher_classifier(backbone, teacher, images, last_map="layer4")
        >>> student(images).shape
        torch.Size([2, 10])
    """
    frozen = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)
    inputs = Inputs((example,))
    tap = Tap.of(last_map)
    seen = _observed(frozen, inputs, tap)
    with looking_only(backbone):
        output = pick_tensor(backbone(example), None, "the backbone")
    geometry = Probe(frozen.module, seen).geometry(tap)
    target = geometry.layout.channels_first(seen.features[tap])
    reused = copy.deepcopy(_classifier(frozen.module) if classifier is None else classifier)
    _check_reuse(reused, pooled(target), pick_tensor(seen.output, None, "the teacher's output"))
    return ReusedClassifier(
        backbone,
        reused,
        student=Probe(backbone, Observation(inputs, output, {Tap(""): output})).geometry(Tap("")),
        teacher=geometry,
        factor=factor,
        rectify=is_rectified(target) if rectify is None else rectify,
    )


def _observed(teacher: FrozenTeacher, inputs: Inputs, tap: Tap) -> Observation:
    """One call of the teacher; the first of two finds out whether the tap is overwritten in place."""
    teacher.tap([tap])
    try:
        teacher.observe(inputs, copy_overwritten=True)
        return teacher.observe(inputs, copy_overwritten=True)
    finally:
        teacher.untap()


def _classifier(teacher: nn.Module) -> nn.Module:
    get_classifier = getattr(teacher, "get_classifier", None)
    if not callable(get_classifier):
        raise SetupError(
            f"the teacher ({type(teacher).__name__}) does not say what its classifier is: pass classifier=, the module "
            "that it applies to the average of its last map."
        )
    classifier: nn.Module = get_classifier()
    return classifier


def _check_reuse(classifier: nn.Module, average: Tensor, output: Tensor) -> None:
    with torch.no_grad():
        scores = classifier.eval()(average)
    if scores.shape != output.shape or not torch.allclose(scores, output, rtol=1e-3, atol=1e-3):
        raise SetupError(
            "the teacher's output is not its classifier applied to the average of `last_map`: name the map right "
            "before the average, pass classifier= with all that follows the average (a norm, for example), and use a "
            "transformer that averages its tokens (timm: global_pool='avg')."
        )
