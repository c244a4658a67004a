"""Operators that some converter lacks, or translates into something else: the same in every format."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import exporters
from exporters.plain import PlainOperators
from exporters.runtimes import EXPORTERS, import_runtime


@pytest.mark.parametrize("pad", [(1, 2), (0, 3, 2, 0), (8, 0, 0, 9)])
def test_circular_padding_is_that_of_pytorch(pad):
    image = torch.randn(2, 3, 9, 8) if len(pad) == 4 else torch.randn(3, 9, 8)
    expected = F.pad(image, pad, mode="circular")
    with PlainOperators():
        actual = F.pad(image, pad, mode="circular")
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_padding_by_more_than_there_is_has_pytorchs_error():
    with PlainOperators(), pytest.raises(RuntimeError, match="wrap"):
        F.pad(torch.randn(2, 3, 9, 8), (10, 0, 0, 0), mode="circular")


def test_circular_padding_may_cut():
    image = torch.randn(2, 3, 9, 8)
    expected = F.pad(image, (-1, 0, 0, 0), mode="circular")
    with PlainOperators():
        torch.testing.assert_close(F.pad(image, (-1, 0, 0, 0), mode="circular"), expected, rtol=0, atol=0)


class Rare(nn.Module):
    """Operators that students have now and then, on an image of a known size."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular")
        self.flow = nn.Conv2d(6, 2, 1)
        self.norm = nn.RMSNorm(5)
        self.head = nn.Linear(5, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = F.elu(self.stem(image), 0.7)
        moved = F.grid_sample(features, self.flow(features).tanh().permute(0, 2, 3, 1), align_corners=False)
        windows = F.adaptive_avg_pool2d(moved, (3, 5)) + F.adaptive_max_pool2d(features, (3, 5))
        lines = F.adaptive_avg_pool1d(features.flatten(2), 7)
        spread = features.flatten(2).unfold(2, 8, 5).std(-1) + features.flatten(2).var(2, keepdim=True)
        scores = self.head(self.norm(windows))
        return {"scores": scores, "lines": lines, "spread": spread, "most": F.adaptive_max_pool2d(moved, 1)}


# torch.onnx has no adaptive maxima over several windows, so that the two formats made by it refuse this network.
@pytest.mark.slow
@pytest.mark.parametrize("to", [to for to in EXPORTERS if to not in ("onnx", "tensorrt")])
def test_rare_operators_are_those_of_pytorch_in_a_batch_of_any_size(to, tmp_path):
    path = tmp_path / f"n{import_runtime(EXPORTERS, to)().suffix}"
    artifact = exporters.export(Rare(), torch.randn(1, 3, 10, 12), to=to, path=path, dynamic_batch=(1, 4))
    assert {output.name for output in artifact.parity.outputs} == {"scores", "lines", "spread", "most"}
    assert max(output.relative_l2 for output in artifact.parity.outputs) < 1e-5
