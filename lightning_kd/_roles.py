"""Who may take part in distillation, checked before anything starts."""

from collections.abc import Iterable, Sequence

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.objectives import LogitKD, Objective
from lightning_kd.teachers import FrozenTeacher
from lightning_kd.teachers.frozen import check_teacher


def named(objectives: Sequence[Objective] | None) -> dict[str, Objective]:
    """Objectives by name; a list that is not given stands for logit distillation."""
    given = [LogitKD()] if objectives is None else list(objectives)
    if not given:
        raise SetupError("`objectives` must hold at least one objective, got an empty list.")
    by_name: dict[str, Objective] = {}
    for objective in given:
        if not isinstance(objective, Objective):
            raise SetupError(f"`objectives` must hold objectives such as LogitKD(), got {objective!r}.")
        if objective.name in by_name or objective.name in ("task", "total"):
            raise SetupError(f"`objectives` has two terms named {objective.name!r}: give each its own name=...")
        by_name[objective.name] = objective
    return by_name


def check_taught(teacher: nn.Module | None, objectives: Iterable[Objective]) -> None:
    """Raise `SetupError` unless ``teacher`` is a module, or ``None`` while no objective needs one."""
    if teacher is not None or any(objective.needs_teacher for objective in objectives):
        check_teacher(teacher)


def frozen(student: nn.Module, teacher: nn.Module | None, objectives: Iterable[Objective]) -> FrozenTeacher | None:
    """The teacher as one that cannot train, checked against the student; ``None`` where no objective needs one."""
    if teacher is None:
        check_taught(teacher, objectives)
        return None
    check_strangers(student, teacher)
    return teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)


def check_strangers(student: nn.Module, teacher: nn.Module) -> None:
    """Raise `SetupError` if ``teacher`` is no module, or shares a parameter with ``student``."""
    check_teacher(teacher)
    owned = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in owned for parameter in teacher.parameters()):
        raise SetupError(
            "`teacher` and student share parameters, and freezing the teacher would freeze the student: "
            "pass copy.deepcopy(model) as the teacher."
        )
