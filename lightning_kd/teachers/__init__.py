"""Where knowledge comes from."""

from lightning_kd.teachers.ensemble import EnsembleTeacher
from lightning_kd.teachers.execution import Execution
from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.input_spec import InputSpec, NormalizedView
from lightning_kd.teachers.masked_and_clean import MaskedAndClean
from lightning_kd.teachers.moving import EMATeacher, PastTeacher, random_teacher
from lightning_kd.teachers.peer import PeerTeacher
from lightning_kd.teachers.protocol import BaseTeacher, Knowledge, Teacher
from lightning_kd.teachers.shared_encoder import SharedEncoderTeacher
from lightning_kd.teachers.sources import source_weights, task_similarity
from lightning_kd.teachers.tail import TeacherTail
from lightning_kd.teachers.views import ResizedView
from lightning_kd.teachers.waveforms import WaveformView

__all__ = [
    "BaseTeacher",
    "EMATeacher",
    "EnsembleTeacher",
    "Execution",
    "FrozenTeacher",
    "InputSpec",
    "Knowledge",
    "MaskedAndClean",
    "NormalizedView",
    "PastTeacher",
    "PeerTeacher",
    "ResizedView",
    "SharedEncoderTeacher",
    "Teacher",
    "TeacherTail",
    "WaveformView",
    "random_teacher",
    "source_weights",
    "task_similarity",
]
