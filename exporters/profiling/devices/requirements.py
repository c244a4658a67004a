"""What a device must have to run an artifact, and the command that installs it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporters.errors import DeviceError
from exporters.profiling.runner.job import JOB_FILE

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
    """What the job in ``folder`` needs beside Python.

    Raises:
        DeviceError: If there is no job in it, or one for which no runner exists.
    """
    try:
        format = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"`folder` must hold a job, got {folder} without a readable {JOB_FILE}: {error}.") from error
    if format not in PACKAGES:
        raise DeviceError(f"`format` in {JOB_FILE} must be one of {', '.join(PACKAGES)}, got {format!r}.")
    return Requirements({"numpy": "numpy", **PACKAGES[format]})
