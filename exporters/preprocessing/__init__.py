"""What happens before a network, as data that an export can put into the graph and a file can carry."""

from exporters.preprocessing.content import Preprocessing, preprocessing_from_content
from exporters.preprocessing.image import ImagePreprocessing
from exporters.preprocessing.logmel import LogMelPreprocessing
from exporters.preprocessing.sources import from_timm, from_torchvision, from_transformers

__all__ = [
    "ImagePreprocessing",
    "LogMelPreprocessing",
    "Preprocessing",
    "from_timm",
    "from_torchvision",
    "from_transformers",
    "preprocessing_from_content",
]
