"""Adapters are built from shapes."""

import pytest
import timm
import torch

from lightning_kd.adapters import AdapterNorm, Align, Geometry, Probe, as_map
from lightning_kd.errors import ShapeError
from lightning_kd.layout import Layout
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Tap


def test_align_brings_student_to_the_teachers_shape():
    torch.manual_seed(0)
    frames = Geometry(Layout("NTD"), 4, (9,))
    tokens = Geometry(Layout("NLD", 1), 8, (2, 2))
    student, teacher = Align(frames, Geometry(Layout("NTD"), 6, (5,)))(torch.randn(2, 9, 4), torch.randn(2, 5, 6))
    assert student.shape == teacher.shape == (2, 6, 5)
    pooled = Geometry(Layout("ND"), 3, ())
    student, teacher = Align(tokens, pooled)(torch.randn(2, 5, 8), torch.randn(2, 3))
    assert student.shape == teacher.shape == (2, 3)
    same = Align(tokens, tokens)
    assert not list(same.parameters())
    x = torch.randn(2, 5, 8)
    assert torch.equal(same(x, x)[0], x[:, 1:].transpose(1, 2).reshape(2, 8, 2, 2))
    assert len(list(Align(tokens, tokens, projection="always").parameters())) == 2
    with pytest.raises(ShapeError, match=r"`projection='none'` needs equal widths, got student 8 and teacher 3"):
        Align(tokens, pooled, projection="none")


def test_a_probe_measures_a_tapped_feature():
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64)
    recorder = TapRecorder(vit, [Tap("blocks.0")])
    with recorder.recording() as calls:
        vit(torch.zeros(1, 3, 64, 64))
    assert Probe(vit, calls[0]).geometry(Tap("blocks.0")) == Geometry(Layout("NLD", 1, (4, 4)), 192, (4, 4))


@pytest.mark.parametrize(("shape", "plane"), [((2, 3, 4, 5), (4, 5)), ((2, 3, 7), (1, 7)), ((2, 3), (1, 1))])
def test_every_feature_reads_as_a_map(shape, plane):
    feature = torch.randn(shape)
    assert as_map(feature).shape == (2, 3, *plane)
    assert Geometry(Layout("NCHW"), 3, shape[2:]).plane == plane
    assert torch.equal(as_map(feature).flatten(), feature.flatten())


def test_the_norm_of_adapters_is_batch_norm_where_that_is_defined():
    torch.manual_seed(3)
    norm, reference = AdapterNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(2, 3, 2, 2)
    assert torch.equal(norm(x), reference(x))
    assert torch.equal(norm.running_var, reference.running_var)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_adapters_trains_on_a_single_value_per_channel(dtype):
    norm = AdapterNorm(3)
    norm(torch.randn(4, 3, 2, 2))
    stored = norm.running_mean.clone()
    x = torch.randn(1, 3, 1, 1, dtype=dtype, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert torch.equal(norm.running_mean, stored)
    assert y.isfinite().all()
    assert (x.grad != 0).all()
