"""Teacher outputs on disk: written once, read at every step, with the augmentation that they belong to."""

from lightning_kd.teachers.cache.calibration import RegionCalibration
from lightning_kd.teachers.cache.dataset import CachedDataset, Views
from lightning_kd.teachers.cache.densify import densify
from lightning_kd.teachers.cache.mixing import MixedReplay, SelfMix
from lightning_kd.teachers.cache.replay import CropReplay, NoReplay, SeededReplay
from lightning_kd.teachers.cache.teacher import TeacherCache
from lightning_kd.teachers.cache.writer import CacheSpec, CacheWriter

__all__ = [
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
]
