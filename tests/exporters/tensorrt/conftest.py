"""TensorRT, or what stands in for it here."""

import importlib.util
import sys
from pathlib import Path

import pytest

DEVICE = {"name": "Stand-in GPU", "compute_capability": "8.7", "cuda_driver": 13000}


@pytest.fixture(params=["10.16.1", "11.4.0"])
def tensorrt(request, monkeypatch):
    """A stand-in for each version of TensorRT, with a GPU that it can use."""
    specification = importlib.util.spec_from_file_location("tensorrt", Path(__file__).with_name("stand_in.py"))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.__version__ = request.param
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module.CudaRuntime())
    monkeypatch.setattr("exporters.tensorrt.build.describe_device", lambda: dict(DEVICE))
    return module
