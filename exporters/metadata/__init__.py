"""What a file says about the network in it, in one schema for every format."""

from exporters.metadata.readers import read_metadata
from exporters.metadata.schema import KEY, SCHEMA_VERSION, InputDescription, ModelMetadata, metadata_from

__all__ = ["KEY", "SCHEMA_VERSION", "InputDescription", "ModelMetadata", "metadata_from", "read_metadata"]
