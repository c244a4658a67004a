"""Where knowledge comes from."""

from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.masked_and_clean import MaskedAndClean
from lightning_kd.teachers.tail import TeacherTail
from lightning_kd.teachers.views import ResizedView

__all__ = ["FrozenTeacher", "MaskedAndClean", "ResizedView", "TeacherTail"]
