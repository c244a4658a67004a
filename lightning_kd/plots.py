"""Pictures of what was measured; needs matplotlib, which the extra ``report`` installs."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from lightning_kd.errors import MissingExtraError, SetupError
from lightning_kd.similarity import LayerMatch, SimilarityMap

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise MissingExtraError("plots need matplotlib, got none: pip install 'lightning-kd[report]'.") from error

NUMBERED_CELLS = 144


def plot_similarity(similarity: SimilarityMap, matches: Sequence[LayerMatch], path: str | Path) -> None:
    """Draw a similarity map as a heat map, with the matched pairs marked, and write it as PNG.

    The student's layers go down, the teacher's to the right, both from the first to the last. Colours span CKA 0 to 1;
    values below 0 have the colour of 0. Up to 144 cells carry their values as numbers.

    Args:
        similarity: What `similarity_map` returned.
        matches: What `match_layers` returned for it; may be empty.
        path: File to write.

    Raises:
        SetupError: If a match is of layers that the map does not have, or ``path`` cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from lightning_kd.plots import plot_similarity
        >>> from lightning_kd.similarity import SimilarityMap, match_layers
        >>> similarity = SimilarityMap(("a", "b"), ("x", "y"), torch.eye(2, dtype=torch.float64), samples=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_similarity(similarity, match_layers(similarity), Path(folder) / "similarity.png")
    """
    picture = io.BytesIO()
    similarity_figure(similarity, matches).savefig(picture, format="png", dpi=150, bbox_inches="tight", pad_inches=0.1)
    try:
        Path(path).write_bytes(picture.getvalue())
    except OSError as error:
        raise SetupError(f"`path` must be a file that can be written, got '{path}': {error.strerror}.") from error


def similarity_figure(similarity: SimilarityMap, matches: Sequence[LayerMatch]) -> Figure:
    """Draw what `plot_similarity` writes, for a page or a notebook.

    Args:
        similarity: What `similarity_map` returned.
        matches: What `match_layers` returned for it; may be empty.

    Returns:
        The figure; texts and axes outside the map have matplotlib's colours.

    Raises:
        SetupError: If a match is of layers that the map does not have.
    """
    return _draw(similarity, [_cell(similarity, match) for match in matches])


def _cell(similarity: SimilarityMap, match: LayerMatch) -> tuple[int, int]:
    for layer, layers in ((match.student, similarity.student_layers), (match.teacher, similarity.teacher_layers)):
        if layer not in layers:
            raise SetupError(f"`matches` must be of layers in the map, got {layer!r}.")
    return similarity.student_layers.index(match.student), similarity.teacher_layers.index(match.teacher)


def _draw(similarity: SimilarityMap, cells: Sequence[tuple[int, int]]) -> Figure:
    values = similarity.values.tolist()
    rows, columns = similarity.values.shape
    numbered = rows * columns <= NUMBERED_CELLS
    inches = 0.42 if numbered else 0.2
    figure = Figure(figsize=(inches * columns, inches * rows))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis")
    bar = axes.inset_axes((1.0 + 0.5 / columns, 0.0, 0.5 / columns, 1.0))
    figure.colorbar(image, cax=bar, ticks=[0.0, 0.25, 0.5, 0.75, 1.0] if rows > 2 else [0.0, 1.0])
    bar.set_ylabel("CKA", fontsize=9)
    bar.tick_params(labelsize=7)
    marked = ", matched pairs framed" if cells else ""
    axes.set_title(f"Unbiased linear CKA of {similarity.samples} samples{marked}", fontsize=9)
    axes.set_xlabel("teacher layer", fontsize=9)
    axes.set_ylabel("student layer", fontsize=9)
    axes.set_xticks(range(columns), similarity.teacher_layers, rotation=90, fontsize=7)
    axes.set_yticks(range(rows), similarity.student_layers, fontsize=7)
    for row, column in cells:
        frame = Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, edgecolor="red", linewidth=1.6)
        axes.add_patch(frame)
    if numbered:
        for row, column in itertools.product(range(rows), range(columns)):
            colour = "black" if values[row][column] > 0.6 else "white"
            axes.text(column, row, f"{values[row][column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    return figure
