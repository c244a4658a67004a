"""What is known of the common families of vision networks: where their stages, norms and embeddings are."""

from lightning_kd.families.embeddings import patch_embedding_paths
from lightning_kd.families.lookup import family_of, last_map_tap, stage_taps, stages_of, tail_paths, tap_on
from lightning_kd.families.table import FAMILIES, Family

__all__ = [
    "FAMILIES",
    "Family",
    "family_of",
    "last_map_tap",
    "patch_embedding_paths",
    "stage_taps",
    "stages_of",
    "tail_paths",
    "tap_on",
]
