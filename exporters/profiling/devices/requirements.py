"""What a device must have to run an artifact, and the command that installs it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporters.artifact import MANIFEST_SUFFIX
from exporters.errors import ArtifactError

OLDEST_PYTHON = (3, 10)

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "coreai": {"coreai": "coreai-core"},
    "coreml": {"coremltools": "coremltools"},
    "executorch": {"executorch": "executorch", "torch": "torch"},
    "onnx": {"onnxruntime": "onnxruntime"},
    "openvino": {"openvino": "openvino"},
    "tensorrt": {"cuda": "cuda-bindings", "tensorrt": "tensorrt"},
}
"""Packages that bring the runtime, by importable module, by format."""


class Requirements(NamedTuple):
    """What must be importable on the device.

    Args:
        packages: Names for pip, by importable module.
    """

    packages: Mapping[str, str]

    def command(self, python: str, missing: Sequence[str]) -> str:
        """Command that installs the ``missing`` modules there.

        Example:
            >>> Requirements({"numpy": "numpy", "onnxruntime": "onnxruntime"}).command("/opt/python", ["onnxruntime"])
            '/opt/python -m pip install onnxruntime'
        """
        return shlex.join([python, "-m", "pip", "install", *(self.packages[module] for module in missing)])


def requirements_of(folder: Path) -> Requirements:
    """What the artifact in ``folder`` needs beside Python.

    Raises:
        ArtifactError: If a manifest in it names a format that no device runs.
    """
    packages = {"numpy": "numpy"}
    for manifest in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        format = json.loads(manifest.read_text(encoding="utf-8"))["format"]
        if format not in PACKAGES:
            raise ArtifactError(f"`format` of {manifest.name} must be one of {sorted(PACKAGES)}, got {format!r}.")
        packages |= PACKAGES[format]
    return Requirements(packages)
