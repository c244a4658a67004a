"""Every name of TensorRT that we use, in NVIDIA's real Python bindings of both versions.

The bindings are a small wheel without the libraries. Stub libraries with the nine functions that they leave undefined
let them be imported; nothing can be built with them.
"""

import json
import operator
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda.bindings import runtime

pytestmark = pytest.mark.slow
VERSIONS = ("10.16.1.11", "11.4.0.106")
ROOT = Path(__file__).parents[3]
RUNNER = "profiling/runner/runtimes/tensorrt.py"
MODULES = ("tensorrt/build.py", "tensorrt/engine.py", "sessions/tensorrt.py", RUNNER)
SOURCES = [ROOT / "exporters" / name for name in MODULES]
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
UNDEFINED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


@pytest.fixture(scope="module", params=VERSIONS)
def bindings(request, tmp_path_factory):
    """Variables of an environment in which ``import tensorrt_bindings`` works."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler `cc` must be installed to make stub libraries; on Debian: apt install gcc"
    folder = tmp_path_factory.mktemp(f"tensorrt-{request.param}")
    packages, libraries = folder / "packages", folder / "libraries"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    package = f"tensorrt-cu13-bindings=={request.param}"
    subprocess.run([*install, "--target", packages, "--no-deps", package], check=True, timeout=300)
    libraries.mkdir()
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in UNDEFINED))
    major = request.param.partition(".")[0]
    for name in LIBRARIES:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", libraries / f"lib{name}.so.{major}", source], check=True)
    paths = {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": os.pathsep.join(map(str, (packages, ROOT)))}
    return {**os.environ, **{name: str(path) for name, path in paths.items()}}


def run(bindings, *arguments):
    finished = subprocess.run(
        [sys.executable, *arguments], env=bindings, check=False, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def resolve(bindings, *sources):
    return json.loads(run(bindings, Path(__file__).with_name("resolve.py"), *sources))


def test_both_versions_have_every_name(bindings):
    found = resolve(bindings, *SOURCES)
    assert found["version"] in VERSIONS
    assert (found["missing"], found["untyped"]) == ([], [])
    # One of each kind: a function, a flag, a method, a property that is set, methods of what other methods return.
    assert {
        "nptype",
        "BuilderFlag.STRIP_PLAN",
        "OnnxParser.parse",
        "IBuilderConfig.builder_optimization_level",
        "IExecutionContext.execute_async_v3",
        "ITimingCache.serialize",
        "ParserError.desc",
    } <= set(found["resolved"])


def test_a_name_that_one_version_lacks_is_noticed(bindings, tmp_path):
    source = tmp_path / "old.py"
    source.write_text(
        "def build(tensorrt, builder: 'trt.Builder', engine: 'trt.ICudaEngine'):\n"
        "    config: trt.IBuilderConfig = builder.create_builder_config()\n"
        "    config.set_flag(tensorrt.BuilderFlag.FP16)\n"
        "    config.int8_calibrator = None\n"
        "    flags = tensorrt.NetworkDefinitionCreationFlag\n"
        "    builder.create_network(1 << int(flags.EXPLICIT_BATCH))\n"
        "    return engine.device_memory_size, engine.create_execution_context().execute_async_v2()\n"
    )
    found = resolve(bindings, source)
    # The last has gone from both.
    gone = {"IExecutionContext.execute_async_v2"}
    if found["version"].startswith("11"):
        gone |= {
            "BuilderFlag.FP16",
            "IBuilderConfig.int8_calibrator",
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            "ICudaEngine.device_memory_size",
        }
    assert set(found["missing"]) == gone


def test_a_value_of_unknown_class_is_noticed(bindings, tmp_path):
    source = tmp_path / "untyped.py"
    source.write_text("def ask(parser: 'trt.OnnxParser'):\n    return parser.get_subgraph_nodes(0).number\n")
    assert resolve(bindings, source)["untyped"] == ["OnnxParser.get_subgraph_nodes().number"]


def test_the_stand_in_has_nothing_that_tensorrt_lacks(bindings, tensorrt):
    names = [name for name in vars(tensorrt) if name[0].isupper() and isinstance(vars(tensorrt)[name], type)]
    names.remove("CudaRuntime")
    members = [f"{name}.{member}" for name in names for member in vars(vars(tensorrt)[name]) if member[0].isalpha()]
    assert {"BuilderFlag.STRIP_PLAN", "OnnxParser.num_errors", "IExecutionContext.infer_shapes"} <= set(members)
    code = (
        "import json, operator, sys, tensorrt_bindings\n"
        "def there(name):\n"
        "    try: return operator.attrgetter(name)(tensorrt_bindings) is not None\n"
        "    except AttributeError: return False\n"
        "print(json.dumps([name for name in sys.argv[1:] if not there(name)]))"
    )
    assert json.loads(run(bindings, "-c", code, *names, *members)) == []


def test_without_a_gpu_the_builder_is_refused_in_our_words(bindings):
    code = (
        "import tensorrt_bindings as tensorrt; from pathlib import Path; "
        "from exporters.tensorrt.build import _Build; from exporters.tensorrt.options import *\n"
        "logger = tensorrt.Logger(tensorrt.Logger.WARNING)\n"
        "try: _Build(tensorrt, logger, Path(), {}, BuildOptions())._builder()\n"
        "except UnavailableError as error: print(error)"
    )
    assert run(bindings, "-c", code).startswith("TensorRT must find a usable GPU, but its builder says:")


def test_the_cuda_functions_exist():
    text = (ROOT / "exporters" / "tensorrt" / "memory.py").read_text()
    used = set(re.findall(r"\bcuda\.([\w.]+)|_cuda\.([\w.]+)", text))
    names = {first or second for first, second in used} - {"bindings.runtime"}
    assert {"cudaMemcpyAsync", "cudaMemcpyKind.cudaMemcpyHostToDevice"} <= names
    for name in names:
        assert operator.attrgetter(name)(runtime) is not None
