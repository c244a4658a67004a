"""What compression did to the weights is in the exported files."""

import numpy as np
import onnx
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from onnx import numpy_helper
from torch import nn

import exporters
from exporters.quantization.sparsity import is_two_four
from lightning_kd import ExportStudent, KnowledgeDistillation, LowBitTraining, QuantizationAwareTraining, recipes
from lightning_kd.compression import TernaryWeights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def weights_of(path, *, axes=(2, 4)):
    """The initialisers of an ONNX file that have as many axes as layers' weights have."""
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return [tensor for tensor in tensors if tensor.ndim in axes]


class Network(nn.Module):
    """Convolutions of 8 and 4 inputs behind an image's three, with BatchNorm, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).mean((2, 3)))


def test_int8_weights_of_a_sparse_student_are_sparse(classifier, teacher, loader, trainer, tmp_path):
    module = classifier(Network())
    for phase in (None, QuantizationAwareTraining(student="net")):
        with pytest.warns(UserWarning, match="the family of the student"):
            callbacks = recipes.sparse_distillation(teacher, module.net, path="net", quantization=phase)
        kd = KnowledgeDistillation(teacher, student="net")
        trainer(callbacks=[kd, *callbacks[1:]]).fit(module, loader())
    path = tmp_path / "sparse.onnx"
    exporters.export(module.net, torch.randn(1, 3, 8, 8), to="onnx", path=path, precision="int8")
    integers = [weight for weight in weights_of(path) if weight.dtype == np.int8]
    sparse = [is_two_four(w) or is_two_four(w, axis=0) for w in integers if w.shape[:2] != (8, 3)]
    assert sparse == [True, True]
    assert all(np.count_nonzero(weight) for weight in integers)


def test_the_best_checkpoint_is_exported_with_ternary_weights(classifier, teacher, loader, trainer, tmp_path):
    export = ExportStudent(to="onnx", student="net", folder=str(tmp_path))
    kd, low_bit = KnowledgeDistillation(teacher, student="net"), LowBitTraining(TernaryWeights(), student="net")
    best = ModelCheckpoint(tmp_path, monitor="kd/total")
    module = classifier(Network())
    trainer(callbacks=[kd, low_bit, export, best], enable_checkpointing=True).fit(module, loader())
    (linear,) = weights_of(tmp_path / "student.onnx", axes=(2,))
    rows = linear if linear.shape == (5, 4) else linear.T
    assert all(len(np.unique(np.abs(row))) <= 2 for row in rows)
