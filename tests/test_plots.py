"""Claims about the pictures."""

import importlib
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from lightning_kd.errors import MissingExtraError, SetupError
from lightning_kd.plots import plot_similarity
from lightning_kd.similarity import LayerMatch, SimilarityMap, match_layers

RED = (1.0, 0.0, 0.0)


def a_map(rows, columns):
    values = torch.rand(rows, columns, dtype=torch.float64)
    names = [tuple(f"{whose}.{index}" for index in range(count)) for whose, count in (("s", rows), ("t", columns))]
    return SimilarityMap(*names, values, samples=64)


def count_pixels(picture, colour):
    return int((np.abs(picture[..., :3] - colour).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 7), (60, 60)])
def test_writes_a_picture_that_grows_with_the_map(tmp_path, rows, columns):
    path = tmp_path / "similarity.png"
    similarity = a_map(rows, columns)
    plot_similarity(similarity, match_layers(similarity, monotone=True), path)
    height, width = imread(path).shape[:2]
    # 0.2 inches per cell at least, at 150 dots per inch
    assert height > rows * 30
    assert width > columns * 30


def test_frames_the_matched_pairs(tmp_path):
    similarity = a_map(5, 5)
    red = []
    for matches in ([], match_layers(similarity, monotone=True, top=2), match_layers(similarity, monotone=True)):
        plot_similarity(similarity, matches, tmp_path / "similarity.png")
        red.append(count_pixels(imread(tmp_path / "similarity.png"), RED))
    assert red[0] == 0
    assert red[2] == pytest.approx(2.5 * red[1], rel=0.1)


def test_shows_negative_values(tmp_path):
    similarity = SimilarityMap(("s",), ("t",), torch.tensor([[-0.2]], dtype=torch.float64), samples=8)
    plot_similarity(similarity, [], tmp_path / "similarity.png")
    # The first colour of viridis
    assert count_pixels(imread(tmp_path / "similarity.png"), (0.267, 0.005, 0.329)) > 1000


def test_refuses_matches_of_another_map(tmp_path):
    with pytest.raises(SetupError, match=r"`matches` must be of layers in the map, got 'head'"):
        plot_similarity(a_map(2, 2), [LayerMatch("s.0", "head", 0.5)], tmp_path / "similarity.png")
    assert not list(tmp_path.iterdir())


def test_refuses_a_path_that_cannot_be_written(tmp_path):
    path = tmp_path / "missing" / "similarity.png"
    with pytest.raises(SetupError, match=r"`path` must be a file that can be written, got '.*missing.*': No such file"):
        plot_similarity(a_map(2, 2), [], path)


def test_names_the_extra_that_installs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "lightning_kd.plots")
    with pytest.raises(MissingExtraError, match=r"pip install 'lightning-kd\[report\]'"):
        importlib.import_module("lightning_kd.plots")
