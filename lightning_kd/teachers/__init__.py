"""Where knowledge comes from."""

from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.tail import TeacherTail

__all__ = ["FrozenTeacher", "TeacherTail"]
