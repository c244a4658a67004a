"""Everything that a build needs beside the graph: shapes to tune for, options, and how to start it."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from exporters.parity import Precision
from exporters.signature import Signature
from exporters.tensorrt.options import ENGINE, GRAPH, LAYERS, SPECIFICATION, BuildOptions

LAUNCHER = "build.py"
# A package of the same name as ours: the modules are the ones that run here, and nothing else of ours is needed there
# to build, to load and to time an engine.
_CARRIED = ("__init__.py", "build.py", "engine.py", "inspector.py", "memory.py", "options.py")
_LAUNCHER = '''"""Build the engine of this folder: python build.py. Needs Python 3.10 and TensorRT 10 or 11 only."""

import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
sys.path.insert(0, str(folder))

from exporters.tensorrt.build import main

sys.exit(main(folder))
'''

Profiles = Mapping[str, Mapping[str, list[int]]]


def write_specification(
    folder: Path, signature: Signature, *, precision: Precision, options: BuildOptions
) -> dict[str, Any]:
    """Write ``build.json``, ``build.py`` and the modules that it runs beside the graph.

    Args:
        folder: Holds the graph.
        signature: Inputs and the ranges of their dimensions.
        precision: What the engine has to compute in.
        options: How to build it.

    Returns:
        The content of ``build.json``.
    """
    graph = (folder / GRAPH).read_bytes()
    profiles = profiles_of(signature)
    content = {
        "schema_version": 1,
        "onnx_sha256": hashlib.sha256(graph).hexdigest(),
        "precision": precision,
        "profiles": profiles,
        "options": asdict(options),
        "trtexec": {version: trtexec(profiles, options, version=version) for version in ("10", "11")},
        "nodes": [f"{node.op_type} `{node.name}`" for node in onnx.ModelProto.FromString(graph).graph.node],
    }
    (folder / SPECIFICATION).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / LAUNCHER).write_text(_LAUNCHER, encoding="utf-8")
    package = folder / "exporters" / "tensorrt"
    package.mkdir(parents=True)
    (folder / "exporters" / "__init__.py").write_text('"""What build.py needs of exporters."""\n', encoding="utf-8")
    shutil.copyfile(Path(__file__).parents[1] / "errors.py", folder / "exporters" / "errors.py")
    for name in _CARRIED:
        shutil.copyfile(Path(__file__).with_name(name), package / name)
    return content


def profiles_of(signature: Signature) -> Profiles:
    """Smallest, typical and largest shape of every input; the engine is tuned for the typical one.

    Example:
        >>> from exporters.signature import DimensionRange, Signature, TensorSpec
        >>> inputs = (TensorSpec("x", ("batch", 3), "float32"),)
        >>> signature = Signature(inputs=inputs, outputs=(), dimensions={"batch": DimensionRange(1, 8, optimum=4)})
        >>> profiles_of(signature)
        {'x': {'min': [1, 3], 'opt': [4, 3], 'max': [8, 3]}}
    """
    sizes = {
        "min": {name: ends.smallest for name, ends in signature.dimensions.items()},
        "opt": {name: ends.typical for name, ends in signature.dimensions.items()},
        "max": {name: ends.largest for name, ends in signature.dimensions.items()},
    }
    return {spec.name: {end: list(spec.at(chosen)) for end, chosen in sizes.items()} for spec in signature.inputs}


def trtexec(profiles: Profiles, options: BuildOptions, *, version: str) -> str:
    """The command that builds the same engine with NVIDIA's ``trtexec``; it does not audit what it built.

    Args:
        profiles: Shapes of the inputs.
        options: How to build.
        version: ``"10"``, where strong typing has to be asked for, or ``"11"``, which knows nothing else.

    Returns:
        The command, for a POSIX shell.
    """
    words = ["trtexec", f"--onnx={GRAPH}", f"--saveEngine={ENGINE}", "--skipInference"]
    words += ["--stronglyTyped"] if version == "10" else []
    for flag, end in (("minShapes", "min"), ("optShapes", "opt"), ("maxShapes", "max")):
        shapes = (f"{name}:{'x'.join(map(str, ends[end]))}" for name, ends in profiles.items() if ends[end])
        words.append(f"--{flag}={','.join(shapes)}")
    words += ["--profilingVerbosity=detailed", f"--exportLayerInfo={LAYERS}"]
    words += [f"--builderOptimizationLevel={options.optimization_level}"]
    words += [f"--timingCacheFile={options.timing_cache or 'timing.cache'}"]
    if options.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_bytes}B")
    hardware = {"ampere_plus": "ampere+", "same_compute_capability": "sameComputeCapability"}
    chosen = {
        "--noTF32": not options.tf32,
        "--versionCompatible": options.version_compatible,
        f"--hardwareCompatibilityLevel={hardware.get(options.hardware)}": options.hardware in hardware,
        "--refit": options.weights == "refittable",
        "--stripWeights": options.weights == "stripped",
        "--sparsity=enable": options.sparse_weights,
        f"--useDLACore={options.dla_core}": options.dla_core is not None,
        "--allowGPUFallback": options.dla_core is not None and options.gpu_fallback,
    }
    return shlex.join(words + [flag for flag, on in chosen.items() if on])
