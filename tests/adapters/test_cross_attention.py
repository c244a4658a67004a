"""Claims about the cross-attention projector."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from scipy.special import softmax
from torch.testing import assert_close

from lightning_kd.adapters import Geometry
from lightning_kd.adapters.cross_attention import CrossAttentionProjector
from lightning_kd.errors import LayoutError, ShapeError
from lightning_kd.layout import Layout

MAP = Geometry(Layout("NCHW"), 6, (4, 5))


def reference(projector, feature, queries):
    """One sample, one head and one query at a time, in NumPy; BatchNorm with its running statistics."""
    p = {name: tensor.numpy() for name, tensor in projector.state_dict().items()}
    kernel = p["enter.0.weight"]
    entered = np.stack(
        [
            sum(correlate2d(feature[c], kernel[o, c], mode="same") for c in range(len(feature)))
            for o in range(len(kernel))
        ]
    )
    mean, variance = p["enter.1.running_mean"], p["enter.1.running_var"]
    normed = (entered - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    normed = normed * p["enter.1.weight"][:, None, None] + p["enter.1.bias"][:, None, None]
    x = (np.maximum(normed, 0) + p["positions"][0]).reshape(len(feature), -1).T
    width = len(queries)
    q = np.maximum(queries.reshape(width, -1).T @ p["ask.0.weight"][:, :, 0, 0].T + p["ask.0.bias"], 0)
    query, key, value = (
        tokens @ p[f"to_{name}.weight"].T + p[f"to_{name}.bias"]
        for name, tokens in (("query", q), ("key", x), ("value", x))
    )
    size = width // projector.heads
    gathered = np.empty_like(query)
    for head in range(projector.heads):
        part = slice(head * size, (head + 1) * size)
        for index, row in enumerate(query):
            gathered[index, part] = softmax(5.0 * key[:, part] @ row[part] / np.sqrt(size)) @ value[:, part]
    joined = gathered @ p["join.weight"].T + p["join.bias"]
    n = (joined - joined.mean(1, keepdims=True)) / np.sqrt(joined.var(1, keepdims=True) + 1e-5)
    n = n * p["norm.weight"] + p["norm.bias"]
    hidden = np.maximum(n @ p["feed_forward.0.weight"].T + p["feed_forward.0.bias"], 0)
    out = n + hidden @ p["feed_forward.2.weight"].T + p["feed_forward.2.bias"]
    return torch.from_numpy(out.T.reshape(queries.shape))


@pytest.mark.parametrize("learned", [True, False])
def test_equals_the_reference(learned):
    projector = CrossAttentionProjector(MAP, width=8, grid=(2, 3), heads=2, learned_queries=learned).double().eval()
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    projector.enter[1].running_mean.normal_()
    projector.enter[1].running_var.uniform_(0.5, 2.0)
    feature, given = torch.randn(3, 6, 4, 5).double(), torch.randn(3, 8, 2, 3).double()
    projected = projector(feature) if learned else projector(feature, given)
    queries = projector.queries.detach().expand(3, -1, -1, -1) if learned else given
    expected = [reference(projector, f.numpy(), q.numpy()) for f, q in zip(feature, queries, strict=True)]
    assert_close(projected, torch.stack(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (Geometry(Layout("NHWC"), 6, (4, 5)), (2, 4, 5, 6)),
        (Geometry(Layout("NLD", prefix_tokens=1, grid=(4, 5)), 6, (4, 5)), (2, 21, 6)),
    ],
)
def test_reads_every_layout(source, shape):
    projector = CrossAttentionProjector(source, width=16, grid=(2, 2))
    assert projector(torch.randn(shape)).shape == (2, 16, 2, 2)


def test_initial_weights_are_the_published_ones():
    projector = CrossAttentionProjector(Geometry(Layout("NCHW"), 32, (16, 16)), width=64, grid=(16, 16))
    assert projector.queries.std().item() == pytest.approx(1.0, rel=0.05)
    assert projector.positions.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("grid", [(4, 5), (1, 1)])
def test_one_sample_trains_under_bfloat16(grid):
    projector = CrossAttentionProjector(Geometry(Layout("NCHW"), 6, grid), width=16, grid=(2, 2))
    feature = torch.randn(1, 6, *grid, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = projector(feature)
    projected.float().square().sum().backward()
    assert projected.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in projector.parameters())
    assert feature.grad.isfinite().all()


def test_given_queries_get_gradients():
    projector = CrossAttentionProjector(MAP, width=8, grid=(2, 2), learned_queries=False)
    queries = torch.randn(2, 8, 2, 2, requires_grad=True)
    projector(torch.randn(2, 6, 4, 5), queries).square().sum().backward()
    assert queries.grad.ne(0).any()


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"`heads` must divide the teacher's width of 10, got 8"):
        CrossAttentionProjector(MAP, width=10, grid=(2, 2))
    with pytest.raises(LayoutError, match=r"got grid \(7,\)"):
        CrossAttentionProjector(Geometry(Layout("NTD"), 6, (7,)), width=8, grid=(2, 2))
    projector = CrossAttentionProjector(MAP, width=8, grid=(2, 2))
    with pytest.raises(ShapeError, match=r"grid is \(6, 6\) and the positions were made for \(4, 5\)"):
        projector(torch.randn(2, 6, 6, 6))
    with pytest.raises(ShapeError, match="`queries` are learned"):
        projector(torch.randn(2, 6, 4, 5), torch.randn(2, 8, 2, 2))
    with pytest.raises(ShapeError, match="`queries` must be given"):
        CrossAttentionProjector(MAP, width=8, grid=(2, 2), learned_queries=False)(torch.randn(2, 6, 4, 5))
    with pytest.raises(ValueError, match=r"`sharpness` must be a finite number above 0, got 0\.0"):
        CrossAttentionProjector(MAP, width=8, grid=(2, 2), sharpness=0.0)
    with pytest.raises(ValueError, match="`heads` must be a finite number above 0, got 0"):
        CrossAttentionProjector(MAP, width=8, grid=(2, 2), heads=0)
