"""Who may take part in distillation, checked before anything starts."""

from collections.abc import Iterable, Sequence

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.objectives import LogitKD, Objective
from lightning_kd.teachers import FrozenTeacher, Teacher
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


def check_taught(teacher: nn.Module | Teacher | None, objectives: Iterable[Objective]) -> None:
    """Raise `SetupError` unless ``teacher`` is a module or a teacher, or ``None`` while no objective needs one."""
    if teacher is not None or any(objective.needs_teacher for objective in objectives):
        check_teacher(teacher)


def check_transform(teacher: nn.Module | Teacher | None, input_transform: object) -> None:
    """Raise `SetupError` if a transform is given beside a teacher that has its own."""
    if input_transform is not None and isinstance(teacher, Teacher):
        raise SetupError(
            f"`input_transform` must be given to the {type(teacher).__name__} itself when `teacher` is one."
        )


def as_teacher(
    student: nn.Module, teacher: nn.Module | Teacher | None, objectives: Iterable[Objective]
) -> Teacher | None:
    """The teacher, a module as one that cannot train, prepared for the student; ``None`` where none is needed."""
    check_taught(teacher, objectives)
    if teacher is None:
        return None
    check_strangers(student, teacher)
    ready = teacher if isinstance(teacher, Teacher) else FrozenTeacher(teacher)
    ready.prepare(student)
    check_served(ready, objectives)
    return ready


def check_served(teacher: Teacher, objectives: Iterable[Objective]) -> None:
    """Raise `SetupError` if an objective reads what the teacher does not give."""
    for objective in objectives:
        if not objective.needs_teacher:
            continue
        wanted = {"output": objective.needs_teacher_output, "features": bool(objective.teacher_taps)}
        missing = [what for what, needed in wanted.items() if needed and what not in teacher.serves]
        if missing:
            kind = type(teacher).__name__
            raise SetupError(
                f"`objectives`: {objective.name!r} ({type(objective).__name__}) reads the teacher's "
                f"{' and '.join(missing)}, and this {kind} serves {' and '.join(teacher.serves) or 'nothing'} only: "
                f"give it another teacher (a network serves both), or another objective."
            )


def check_strangers(student: nn.Module, teacher: nn.Module | Teacher) -> None:
    """Raise `SetupError` if ``teacher`` is none, or shares a parameter with ``student``."""
    check_teacher(teacher)
    if shares_parameters(student, teacher):
        raise SetupError(
            "`teacher` and student share parameters, and freezing the teacher would freeze the student: "
            "pass copy.deepcopy(model) as the teacher."
        )


def shares_parameters(module: nn.Module, teacher: nn.Module | Teacher) -> bool:
    """Whether a parameter of the teacher's network, if it has one yet, is one of ``module``."""
    network = teacher.module if isinstance(teacher, Teacher) else teacher
    owned = {id(parameter) for parameter in module.parameters()}
    return network is not None and any(id(parameter) in owned for parameter in network.parameters())
