"""Core ML packages: they are made and checked on any system and run by Apple's frameworks only."""

import sys
from typing import NoReturn

from exporters.artifact import Artifact
from exporters.errors import PlatformError
from exporters.session import InferencePrecision


def refuse_session(artifact: Artifact, *, threads: int, precision: InferencePrecision) -> NoReturn:  # noqa: ARG001
    """Say why a Core ML package cannot be run here.

    Raises:
        PlatformError: Always.
    """
    raise PlatformError(
        f"`artifact` must be an ONNX or OpenVINO export to be run here, got Core ML's {artifact.path.name} on "
        f"{sys.platform}: Core ML runs on macOS and iOS only. Open the package in Xcode or an app, "
        f"or export the same network with to='onnx' or to='openvino'."
    )
