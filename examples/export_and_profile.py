"""Export a trained network to three runtimes, run it there, and measure which of them is faster.

Run it: ``python examples/export_and_profile.py``
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import numpy as np
from digits import Classifier, Digits, convolutional, quiet_trainer

import exporters
from exporters.profiling import ProfileOptions, compare, profile
from lightning_kd import ExportStudent


def train_and_export(epochs: int, folder: Path) -> dict[str, exporters.Artifact]:
    """Train a network; a callback exports it when training ends.

    Each file is compared with PyTorch, number by number and at several batch sizes, before it appears in ``folder``.

    Args:
        epochs: How long to train.
        folder: Where the files go.

    Returns:
        The exported networks by format.
    """
    L.seed_everything(1)
    export = ExportStudent(
        to=["onnx", "openvino", "coreml"], student="net", weights="last", dynamic_batch=(1, 64), folder=str(folder)
    )
    quiet_trainer(epochs, [export]).fit(Classifier(convolutional(width=8)), Digits())
    return export.artifacts


def print_artifact(artifact: exporters.Artifact) -> None:
    """Print what an export is and how it was checked."""
    print(f"{artifact.format}: {artifact.path.name}, {artifact.size_bytes} bytes, verified on {artifact.verified_on}")
    if artifact.parity is not None:
        for output in artifact.parity.outputs:
            print(f"  {output.name}: largest error {output.max_abs_of_range:.1e} of the output's range")
    for note in artifact.notes:
        print(f"  {note}")


def accuracy(artifact: exporters.Artifact) -> float:
    """Run an exported network on the validation images; this needs NumPy and the runtime, not PyTorch.

    Args:
        artifact: The exported network.

    Returns:
        Accuracy, from 0 to 1.
    """
    images, labels = (tensor.numpy() for tensor in Digits().validation.tensors)
    session = exporters.load(artifact)
    scores = [session.run({"input": batch})["output"] for batch in np.array_split(images, 10)]
    return float((np.concatenate(scores).argmax(axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="train and measure briefly")
    fast = parser.parse_args().fast
    options = ProfileOptions(min_runs=100, min_seconds=0.5, min_warm_up_seconds=0.1) if fast else ProfileOptions()

    with TemporaryDirectory() as folder:
        artifacts = train_and_export(1 if fast else 15, Path(folder))
        for artifact in artifacts.values():
            print_artifact(artifact)

        runnable = [artifacts["onnx"], artifacts["openvino"]]  # Core ML runs on Apple's systems only
        for artifact in runnable:
            result = profile(artifact, threads=1, options=options)
            print(f"{artifact.format}: accuracy {accuracy(artifact):.3f}, {result.runs} runs at batch 1")
            print(f"  p50 {result.p50_ms.value:.4f} ms ({result.p50_ms.low:.4f} to {result.p50_ms.high:.4f})")

        comparison = compare(*runnable, threads=1, options=options)
        ratio = comparison.ratio
        print(f"OpenVINO is {comparison.verdict} against ONNX Runtime:")
        print(f"  ratio {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), noise {comparison.noise_floor:.0%}")


if __name__ == "__main__":
    main()
