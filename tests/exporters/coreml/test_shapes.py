"""Programs whose shapes were made plain compute the same, in at most five dimensions."""

import itertools

import pytest
import torch
from torch import nn

import exporters
from exporters.coreml.shapes import read_sizes, with_plain_shapes


class Permuted(nn.Module):
    """Rows seen as six dimensions, permuted."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, rows):
        parts = rows.view(rows.shape[0], 2, 3, 4, 1, 2).permute(self.order)
        return parts.reshape(*((rows.shape[0], -1) if self.order[0] == 0 else (-1,)))


def captured(model, rows):
    return torch.export.export(model, (rows,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},))


def ranks(program):
    values = [node.meta.get("val") for node in program.graph.nodes]
    return [value.ndim for value in values if isinstance(value, torch.Tensor)]


ORDERS = [*itertools.islice(itertools.permutations(range(6)), 0, None, 23), (0, 2, 4, 1, 3, 5), (0, 1, 3, 2, -2, -1)]


@pytest.mark.parametrize("order", ORDERS)
def test_six_dimensions_are_permuted_by_at_most_five(order):
    model, rows = Permuted(order), torch.randn(3, 48)
    program = with_plain_shapes(captured(model, rows))
    assert max(ranks(program)) <= 5
    for batch in (rows, rows[:1]):
        torch.testing.assert_close(program.module()(batch), model(batch), rtol=0, atol=0)


def test_a_size_that_is_known_is_written_out():
    class Heads(nn.Module):
        def forward(self, rows):
            return rows.view(rows.shape[0], 4, -1) * 2

    program = with_plain_shapes(captured(Heads(), torch.randn(3, 48)))
    (view,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default)
    assert view.args[1][1:] == [4, 12]


def test_sizes_are_read_off_tensors_that_have_them():
    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 4, 3, 2), nn.Conv1d(4, 8, 3, 2)

        def forward(self, sound):
            features = self.second(self.first(sound)).transpose(1, 2)
            length = features.shape[1]
            before = torch.arange(length)[None, :] <= torch.arange(length)[:, None]
            return features.reshape(sound.shape[0], length, 2, 4).sum(2) * 2, before.expand(sound.shape[0], -1, -1)

    model, sound = Strided(), torch.randn(3, 1, 48)
    batch, time = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("time", min=20, max=90)
    program = torch.export.export(model, (sound,), dynamic_shapes=({0: batch, 2: time},))
    read_sizes(program)
    left = [node.target for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.SymInt)]
    assert set(left) == {torch.ops.aten.sym_size.int}
    for example in (sound, sound[:1, :, :33]):
        torch.testing.assert_close(program.module()(example), model(example))


class Windows(nn.Module):
    """Means over windows, over a grid and over patches of a map, as Swin, MaxViT and TNT cut it."""

    def forward(self, image):
        batch, channels, height, width = image.shape
        parts = image.view(batch, channels, height // 4, 4, width // 4, 4)
        windows = parts.permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, channels).mean(1)
        grid = parts.permute(0, 3, 5, 2, 4, 1).reshape(-1, height * width // 16, channels).mean(1)
        patches = nn.functional.unfold(image, 4, stride=4).mean(1)
        columns = nn.functional.unfold(image, 3, padding=1, stride=2)
        overlapping = nn.functional.fold(columns.tanh(), (height, width), 3, padding=1, stride=2)
        dilated = nn.functional.unfold(image, 3, padding=1, stride=2, dilation=2).mean(1)
        return windows.view(batch, -1), grid.view(batch, -1), patches, overlapping, dilated


@pytest.mark.slow
def test_windows_are_cut_from_a_batch_of_any_size(tmp_path):
    image = torch.randn(2, 3, 8, 12)
    artifact = exporters.export(Windows(), image, to="coreml", path=tmp_path / "n.mlpackage", dynamic_batch=(1, 4))
    assert {1, 4} <= set(artifact.parity.batch_sizes)
    assert max(output.relative_l2 for output in artifact.parity.outputs) < 1e-6
