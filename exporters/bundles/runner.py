"""Runs a file of this bundle with Python, NumPy and its runtime alone.

python run.py onnx-fp32/model.onnx
python run.py onnx-fp32/model.onnx --inputs inputs.npz --outputs outputs.npz
"""

import argparse
import asyncio
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def main() -> None:
    """Check one file, run it, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what to run, as README.md lists it")
    parser.add_argument("--inputs", type=Path, help="arrays by input name (.npz); random ones if not given")
    parser.add_argument("--outputs", type=Path, help="where the arrays by output name go (.npz)")
    arguments = parser.parse_args()
    manifest = json.loads(arguments.file.with_name(arguments.file.name + ".manifest.json").read_text(encoding="utf-8"))
    check_files(arguments.file.parent, manifest)
    if arguments.inputs:
        with np.load(arguments.inputs, allow_pickle=False) as arrays:
            inputs = dict(arrays)
    else:
        inputs = random_inputs(manifest["signature"])
    outputs = run(arguments.file, manifest, inputs)
    for name, array in outputs.items():
        sys.stdout.write(f"{name}: {array.dtype} {array.shape}, from {array.min():.6g} to {array.max():.6g}\n")
    if arguments.outputs:
        np.savez(arguments.outputs, **outputs)  # type: ignore[arg-type]


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """End with a message if a file is not what was exported."""
    for record in manifest["files"]:
        content = (folder / record["name"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise SystemExit(f"{record['name']} was changed: its SHA-256 is not that of the manifest")


def random_inputs(signature: dict[str, Any]) -> Arrays:
    """Standard normal numbers, zeros for integers; every dynamic size is its smallest."""
    generator = np.random.default_rng(0)
    inputs = {}
    for spec in signature["inputs"]:
        shape = [size if isinstance(size, int) else signature["dimensions"][size][0] for size in spec["shape"]]
        drawn = generator.standard_normal(shape) if spec["dtype"].startswith("float") else np.zeros(shape)
        inputs[spec["name"]] = drawn.astype(spec["dtype"])
    return inputs


def run(file: Path, manifest: dict[str, Any], inputs: Arrays) -> Arrays:
    """Outputs by name."""
    runners = {
        "onnx": run_onnx,
        "openvino": run_openvino,
        "executorch": run_executorch,
        "coreai": run_coreai,
        "coreml": run_coreml,
    }
    if manifest["format"] not in runners:
        raise SystemExit(f"{manifest['format']} files are not run here; build the engine as the notes in README.md say")
    names = [spec["name"] for spec in manifest["signature"]["outputs"]]
    ordered = {spec["name"]: inputs[spec["name"]] for spec in manifest["signature"]["inputs"]}
    return runners[manifest["format"]](file, ordered, names)


def run_onnx(file: Path, inputs: Arrays, names: list[str]) -> Arrays:
    """ONNX Runtime on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_openvino(file: Path, inputs: Arrays, names: list[str]) -> Arrays:
    """OpenVINO on the CPU, in the precision that it chooses."""
    compiled = importlib.import_module("openvino").Core().compile_model(file, "CPU")
    results = compiled(inputs)
    return {name: np.array(results[name]) for name in names}


def run_executorch(file: Path, inputs: Arrays, names: list[str]) -> Arrays:
    """ExecuTorch, whose Python interface takes tensors."""
    torch = importlib.import_module("torch")
    runtime = importlib.import_module("executorch.runtime").Runtime.get()
    program = runtime.load_program(file)
    outputs = program.load_method("forward").execute([torch.from_numpy(array) for array in inputs.values()])
    return {name: output.numpy().copy() for name, output in zip(names, outputs, strict=True)}


def run_coreai(file: Path, inputs: Arrays, names: list[str]) -> Arrays:
    """Core AI on macOS, or its interpreter elsewhere."""

    async def call() -> Arrays:
        asset = importlib.import_module("coreai.authoring.asset").AIModelAsset.load(file)
        array = importlib.import_module("coreai.runtime").NDArray
        async with asset.executable() as model:
            outputs = await model.load_function("main")({name: array(value) for name, value in inputs.items()})
            return {name: np.array(outputs[name].numpy()) for name in names}

    return asyncio.run(call())


def run_coreml(file: Path, inputs: Arrays, names: list[str]) -> Arrays:
    """Core ML, on macOS only."""
    if sys.platform != "darwin":
        raise SystemExit(f"{file.name} is run by Core ML on macOS and iOS only, and this is {sys.platform}")
    outputs = importlib.import_module("coremltools").models.MLModel(str(file)).predict(inputs)
    return {name: np.asarray(outputs[name]) for name in names}


if __name__ == "__main__":
    main()
