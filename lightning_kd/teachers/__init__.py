"""Where knowledge comes from."""

from typing import TYPE_CHECKING

from lightning_kd._lazy import lazy_names
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

if TYPE_CHECKING:
    from lightning_kd.teachers.cache import (
        CachedDataset,
        CacheSpec,
        CacheWriter,
        CropReplay,
        MixedReplay,
        NoReplay,
        RegionCalibration,
        SeededReplay,
        SelfMix,
        TeacherCache,
        Views,
        densify,
    )

__all__ = [
    "BaseTeacher",
    "CacheSpec",
    "CacheWriter",
    "CachedDataset",
    "CropReplay",
    "EMATeacher",
    "EnsembleTeacher",
    "Execution",
    "FrozenTeacher",
    "InputSpec",
    "Knowledge",
    "MaskedAndClean",
    "MixedReplay",
    "NoReplay",
    "NormalizedView",
    "PastTeacher",
    "PeerTeacher",
    "RegionCalibration",
    "ResizedView",
    "SeededReplay",
    "SelfMix",
    "SharedEncoderTeacher",
    "Teacher",
    "TeacherCache",
    "TeacherTail",
    "Views",
    "WaveformView",
    "densify",
    "random_teacher",
    "source_weights",
    "task_similarity",
]

_HOMES = {
    "cache": (
        "CacheSpec",
        "CacheWriter",
        "CachedDataset",
        "CropReplay",
        "MixedReplay",
        "NoReplay",
        "RegionCalibration",
        "SeededReplay",
        "SelfMix",
        "TeacherCache",
        "Views",
        "densify",
    ),
}

__getattr__ = lazy_names(__name__, _HOMES)
