"""Which samples to distil on, and which to ask the teacher about."""

from lightning_kd.selection.active import robust_active_subset, robust_probabilities
from lightning_kd.selection.difficulty import Measure, difficulty
from lightning_kd.selection.exemplars import exemplar_subset, herd
from lightning_kd.selection.passes import sample_difficulty, sample_features
from lightning_kd.selection.subsets import Keep, distillation_share, random_subset, scored_subset

__all__ = [
    "Keep",
    "Measure",
    "difficulty",
    "distillation_share",
    "exemplar_subset",
    "herd",
    "random_subset",
    "robust_active_subset",
    "robust_probabilities",
    "sample_difficulty",
    "sample_features",
    "scored_subset",
]
