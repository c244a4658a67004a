"""Where knowledge comes from."""

from lightning_kd.teachers.frozen import FrozenTeacher

__all__ = ["FrozenTeacher"]
