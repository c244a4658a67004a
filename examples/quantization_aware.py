"""Distil a student while it learns to compute in int8, and export it without calibration.

Run it: ``python examples/quantization_aware.py``
"""

import argparse
import copy
import tempfile
from pathlib import Path

import lightning as L
import torch
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher
from torch import nn

import exporters
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat
from lightning_kd import KnowledgeDistillation, LogitKD, QuantizationAwareTraining

# Few bits, so that rounding costs something on images as easy as these.
FEW_BITS = FakeQuantization(weight_bits=2, learned_scales=True)


def accuracy(net: nn.Module) -> float:
    """Accuracy on the validation images, from 0 to 1.

    Args:
        net: A network.

    Returns:
        The accuracy.
    """
    images, labels = Digits().validation.tensors
    with torch.no_grad():
        return (net.eval()(images).argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 3 if parser.parse_args().fast else 15
    teacher = trained_teacher(epochs)

    L.seed_everything(1)
    student = Classifier(convolutional(width=4))
    kd = {"student": "net", "objectives": [LogitKD(temperature=4.0)]}
    quiet_trainer(epochs, [KnowledgeDistillation(teacher, **kd)]).fit(student, Digits())
    print(f"student in float:                 {accuracy(student.net):.3f}")

    rounded = copy.deepcopy(student.net)
    images = Digits().training.tensors[0][:300]
    prepare_qat(rounded, images[:2], FEW_BITS)
    calibrate(rounded, [images])
    print(f"2-bit weights, rounded afterwards: {accuracy(rounded):.3f}")

    callbacks = [KnowledgeDistillation(teacher, **kd), QuantizationAwareTraining(FEW_BITS, student="net")]
    quiet_trainer(epochs, callbacks).fit(student, Digits())
    print(f"2-bit weights, distilled with it:  {accuracy(student.net):.3f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.onnx"
        artifact = exporters.export(student.net, images[:1], to="onnx", path=path, precision="int8", dynamic_batch=True)
    print(f"exported: {artifact.audit.operators} operators, no calibration")


if __name__ == "__main__":
    main()
