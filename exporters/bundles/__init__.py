"""One folder or archive with a network for several runtimes, that says what it holds and runs without this project."""

from exporters.bundles.card import ModelCard
from exporters.bundles.reading import Bundle, open_bundle
from exporters.bundles.writing import bundle

__all__ = ["Bundle", "ModelCard", "bundle", "open_bundle"]
