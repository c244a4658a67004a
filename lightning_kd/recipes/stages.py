"""Training in stages: one fit in which objectives take turns."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_kd._checks import check_positive
from lightning_kd.errors import SetupError
from lightning_kd.objectives import Objective
from lightning_kd.schedules import Window


@dataclass(frozen=True, slots=True)
class Stage:
    """Objectives that are distilled together for a while.

    Attributes:
        objectives: The terms of this stage.
        epochs: How long; ``None`` for the rest of training, in the last stage only.

    Raises:
        SetupError: If there is no objective.
        ValueError: If ``epochs`` is not above 0.
    """

    objectives: Sequence[Objective]
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.objectives:
            raise SetupError("`objectives` of a stage must hold at least one objective, got an empty sequence.")
        if self.epochs is not None:
            check_positive("epochs", self.epochs)


def in_stages(*stages: Stage) -> list[Objective]:
    """Let each stage's objectives work in their own epochs and rest in all others.

    An objective that rests is not computed, its taps are not read, and its adapters get no gradient (under DDP a
    gradient of zero, which an optimizer with weight decay or momentum still follows). Schedules of its own go on
    counting from the start of training.

    Args:
        stages: The stages in order.

    Returns:
        All objectives, for `KnowledgeDistillation`.

    Raises:
        SetupError: If a stage before the last has no length.

    Example:
        >>> from lightning_kd import FeatureKD, LogitKD, Progress
        >>> hint, logit = in_stages(Stage([FeatureKD("layer3", "layer3")], epochs=10), Stage([LogitKD()]))
        >>> [(hint.weight(at), logit.weight(at)) for at in (Progress(epoch=9), Progress(epoch=10))]
        [(1.0, 0.0), (0.0, 1.0)]
    """
    objectives: list[Objective] = []
    begin = 0
    for position, stage in enumerate(stages):
        if stage.epochs is None and position < len(stages) - 1:
            raise SetupError(f"`epochs` of stage {position} must be given, because another stage follows it.")
        end = None if stage.epochs is None else begin + stage.epochs
        for objective in stage.objectives:
            objective.weight = Window(objective.weight, begin, end)
            objectives.append(objective)
        begin = 0 if end is None else end
    return objectives
