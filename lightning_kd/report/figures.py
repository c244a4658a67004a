"""Plots as SVG text that takes the colour of the page around it, light or dark."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import cycle

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from exporters.profiling import Estimate

PALETTE = ("#3f7fe0", "#e0892b", "#2aa37a", "#d4567a", "#8a6bd8", "#6f8291")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^", "v", "P")
# No plot uses this colour; it stands for the page's own until the drawing is text.
INK = "#010203"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network in a runtime, with what it costs and what it is worth.

    Args:
        network: Name of the network; candidates of one name share a colour.
        runtime: Name of the runtime; candidates of one name share a marker.
        latency_ms: Median latency with its interval, ms.
        accuracy: Fraction of right answers, 0 to 1.
    """

    network: str
    runtime: str
    latency_ms: Estimate
    accuracy: float


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other beats in both, by median latency: fastest first, each more accurate than the one before.

    Example:
        >>> def at(ms, accuracy):
        ...     return Candidate(network="n", runtime="r", latency_ms=Estimate(ms, ms, ms), accuracy=accuracy)
        >>> [found.accuracy for found in pareto_front([at(2, 0.9), at(1, 0.8), at(3, 0.85)])]
        [0.8, 0.9]
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.latency_ms.value, -candidate.accuracy)):
        if not front or candidate.accuracy > front[-1].accuracy:
            front.append(candidate)
    return front


def accuracy_against_latency(candidates: Sequence[Candidate], *, of: str = "one image") -> str:
    """Draw accuracy over median latency, one mark per candidate: colour is the network, shape the runtime.

    A dashed line joins the `pareto_front`.

    Args:
        candidates: What to draw, at least one.
        of: What the latency is one of.

    Returns:
        An ``<svg>`` element.
    """
    networks = list(dict.fromkeys(candidate.network for candidate in candidates))
    runtimes = list(dict.fromkeys(candidate.runtime for candidate in candidates))

    colours = dict(zip(networks, cycle(PALETTE), strict=False))
    markers = dict(zip(runtimes, cycle(MARKERS), strict=False))

    def draw() -> Figure:
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot(xlabel=f"median latency of {of}, ms", ylabel="test accuracy, %")
        for candidate in candidates:
            latency = candidate.latency_ms
            axes.errorbar(
                latency.value,
                100 * candidate.accuracy,
                xerr=[[latency.value - latency.low], [latency.high - latency.value]],
                color=colours[candidate.network],
                marker=markers[candidate.runtime],
                markersize=9,
                capsize=3,
            )
        front = pareto_front(candidates)
        best_ms, best = [found.latency_ms.value for found in front], [100 * found.accuracy for found in front]
        axes.plot(best_ms, best, color=INK, linestyle="--", linewidth=0.8, zorder=0)
        axes.margins(x=0.1, y=0.2)
        _style(axes)
        keys = [Line2D([], [], color=colours[name], linewidth=6, label=name) for name in networks]
        keys += [Line2D([], [], color=INK, marker=markers[name], linestyle="", label=name) for name in runtimes]
        figure.legend(handles=keys, loc="outside right center", frameon=False)
        return figure

    return as_svg(draw, "Test accuracy against latency")


def latency_distribution(latencies_ms: Mapping[str, Sequence[float]], *, of: str = "one image") -> str:
    """Draw the share of runs that were at most so slow, one curve per entry.

    Args:
        latencies_ms: Latency of every run, ms, by name; each with at least one.
        of: What the latency is one of.

    Returns:
        An ``<svg>`` element.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot(xlabel=f"latency of {of}, ms", ylabel="share of runs, %")
        for index, (name, values) in enumerate(latencies_ms.items()):
            ordered = np.sort(values)
            shares = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
            # Only what can be seen: a curve of ten thousand steps has no more shape than one of 400.
            kept = np.unique(np.linspace(0, len(ordered) - 1, 400).round().astype(int))
            colour, line = PALETTE[index % len(PALETTE)], LINES[index // len(PALETTE) % len(LINES)]
            axes.step(ordered[kept], shares[kept], where="post", color=colour, linestyle=line, label=name)
        axes.set_ylim(0, 101)
        _style(axes)
        figure.legend(loc="outside right center", frameon=False)
        return figure

    return as_svg(draw, "Distribution of latencies")


def as_svg(draw: Callable[[], Figure], title: str) -> str:
    """Draw a figure with the page's text colour and no background.

    Args:
        draw: Makes the figure; it must not choose the colours of text and axes.
        title: What screen readers say of it.

    Returns:
        An ``<svg>`` element without size of its own, the same text for the same figure.
    """
    text = io.StringIO()
    with _page_colours(title):
        draw().savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}">{body}'


@contextmanager
def _page_colours(salt: str) -> Iterator[None]:
    """Matplotlib's settings for one drawing; ``salt`` keeps its ids apart from those of others on the page."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings = dict.fromkeys(inked, INK) | {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 11}
    with mpl.rc_context(settings):
        yield


def _style(axes: Axes) -> None:
    """Latency on a logarithmic axis with few round marks, and a faint grid."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color=INK, alpha=0.15, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
