"""Recipes for networks of two towers."""

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.objectives import AffinityKD
from lightning_kd.objectives.affinity import Towers
from lightning_kd.students.inherit import inherit_weights
from lightning_kd.teachers.frozen import unwrapped


def tinyclip(
    teacher: nn.Module,
    student: nn.Module,
    *,
    path: str = "",
    outputs: Towers = ("image_embeds", "text_embeds"),
    scale_output: int | str | None = None,
    gather: bool = True,
    inherit: bool = True,
) -> KnowledgeDistillation:
    """TinyCLIP: the student starts from the teacher's weights and learns its affinities, without a contrastive loss.

    Args:
        teacher: A trained network of an image and a text tower.
        student: A smaller one with the same names inside, which the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        outputs: Keys or positions of the image and the text embeddings in both outputs.
        scale_output: Key or position of the logit scale in both outputs; ``None`` takes 50 for both, as published.
        gather: Whether the embeddings of all ranks are compared.
        inherit: Whether the student's weights are cut out of the teacher's now; it must then be shaped like it.

    Returns:
        The callback; the task loss is left out.

    Source:
        Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", arXiv:2309.12314, with
        manual inheritance.
    """
    if inherit:
        inherit_weights(student, unwrapped(teacher))
    affinity = AffinityKD(student_output=outputs, scale_output=scale_output, gather=gather)
    return KnowledgeDistillation(teacher, student=path, objectives=[affinity], task_weight=0.0)
