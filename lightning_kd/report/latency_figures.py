"""Plots of latencies: over batch sizes, and layer by layer."""

from collections.abc import Mapping
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from exporters.profiling import Estimate
from exporters.profiling.layers import LayerProfile
from lightning_kd.report.figures import PALETTE, as_svg

MILLISECONDS_PER_SECOND = 1e3
Sweep = Mapping[int, Estimate]
"""Median latency of one batch, ms, by batch size."""


def batch_sweep(sweeps: Mapping[str, Sweep]) -> str:
    """Draw latency and throughput over the batch size, one line per entry, with intervals.

    Args:
        sweeps: What to draw, by name; each of at least one batch size.

    Returns:
        An ``<svg>`` element.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(9, 4), layout="constrained")
        latency, throughput = figure.subplots(1, 2)
        for (name, sweep), colour in zip(sweeps.items(), cycle(PALETTE), strict=False):
            sizes = sorted(sweep)
            times = [sweep[size] for size in sizes]
            rates = [_rate(size, sweep[size]) for size in sizes]
            for axes, figures in ((latency, times), (throughput, rates)):
                errors = [
                    [found.value - found.low for found in figures],
                    [found.high - found.value for found in figures],
                ]
                values = [found.value for found in figures]
                axes.errorbar(sizes, values, yerr=errors, color=colour, marker="o", capsize=3)
            latency.plot([], [], color=colour, label=name)
        sizes = sorted({size for sweep in sweeps.values() for size in sweep})
        for axes, label in ((latency, "median latency of a batch, ms"), (throughput, "samples per second")):
            axes.set(xlabel="samples in a batch", ylabel=label, xscale="log", yscale="log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.15, linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", frameon=False, ncols=2)
        return figure

    return as_svg(draw, "Latency and throughput over the batch size")


def layer_waterfall(profile: LayerProfile, *, most: int = 24) -> str:
    """Draw one bar per module, each beginning where the one before ended.

    Modules are in the order of their first operation; of more than ``most`` the shortest become one bar at the end.

    Args:
        profile: Where the time went.
        most: Largest number of bars, at least 2.

    Returns:
        An ``<svg>`` element.
    """
    bars = waterfall_bars(profile, most=most)

    def draw() -> Figure:
        figure = Figure(figsize=(9, 0.8 + 0.27 * len(bars)), layout="constrained")
        axes = figure.add_subplot(xlabel="time in operations so far, ms")
        start_ms = 0.0
        for row, (_, time_ms) in enumerate(bars):
            axes.barh(row, time_ms, left=start_ms, color=PALETTE[0])
            start_ms += time_ms
            axes.annotate(f" {profile.share(time_ms):.0%}", (start_ms, row), va="center", fontsize=9)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.08, y=0.01)
        axes.grid(axis="x", alpha=0.15, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    return as_svg(draw, f"Time by module of {profile.subject.name}, {profile.subject.properties['runtime']}")


def waterfall_bars(profile: LayerProfile, *, most: int) -> list[tuple[str, float]]:
    """Names and times, ms, of the bars of `layer_waterfall`.

    Where a file names no modules, operations of one kind are one bar.
    """
    times = profile.by_module()
    named = {_name_of(module): time_ms for module, time_ms in times.items()}
    if set(times) == {None}:
        named = {}
        for layer in profile.layers:
            named[layer.operator] = named.get(layer.operator, 0.0) + layer.time_ms
    spent = {name: time_ms for name, time_ms in named.items() if time_ms > 0}
    if len(spent) <= most:
        return list(spent.items())
    kept = set(sorted(spent, key=spent.__getitem__, reverse=True)[: most - 1])
    bars = [(name, time_ms) for name, time_ms in spent.items() if name in kept]
    rest_ms = sum(time_ms for name, time_ms in spent.items() if name not in kept)
    return [*bars, (f"{len(spent) - len(bars)} others", rest_ms)]


def _name_of(module: str | None) -> str:
    if module is None:
        return "added by the runtime"
    return module or "the network itself"


def _rate(batch_size: int, latency_ms: Estimate) -> Estimate:
    """Samples per second of batches one after the other."""
    samples = batch_size * MILLISECONDS_PER_SECOND
    return Estimate(samples / latency_ms.value, samples / latency_ms.high, samples / latency_ms.low)
