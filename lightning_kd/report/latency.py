"""Latencies as a page."""

from collections.abc import Mapping, Sequence

import numpy as np

from exporters.profiling import Estimate, Profile
from exporters.profiling.layers import LayerProfile
from lightning_kd.report.figures import Candidate, accuracy_against_latency, latency_distribution, pareto_front
from lightning_kd.report.latency_figures import batch_sweep, layer_waterfall
from lightning_kd.report.latency_rows import HEADINGS, label_of, latency_rows
from lightning_kd.report.page import Picture, Report, Section, Table, write_report

__all__ = ["latency_report", "write_report"]

_SLOWEST_LAYERS = 12


def latency_report(
    profiles: Sequence[Profile],
    *,
    layers: Sequence[LayerProfile] = (),
    accuracies: Mapping[str, float] | None = None,
) -> Report:
    """Describe latencies as one page.

    Args:
        profiles: What was measured, at least one.
        layers: Where the time goes, for any of the networks.
        accuracies: Accuracy of networks, 0 to 1, by file name; ``None`` leaves out what needs it.

    Returns:
        The page: a table of all, distributions, batch sizes where there are several, accuracy against latency, layers.
    """
    machine = profiles[0].machine
    machines = {profile.machine.cpu for profile in profiles}
    place = f"{machine.cpu}, {machine.cores} cores" if len(machines) == 1 else f"{len(machines)} kinds of processor"
    sections = [
        _table_section(profiles),
        _distribution_section(profiles),
        *_sweep_sections(profiles),
        *_accuracy_sections(profiles, accuracies or {}),
        *map(_layer_section, layers),
    ]
    return Report(
        title="Latency",
        summary=f"{len(profiles)} measurements on {place}. Nothing was clipped; intervals are 95 % and assume no "
        f"distribution. They speak of one loaded instance each: compare two networks with `lightning-kd compare`.",
        sections=sections,
    )


def _table_section(profiles: Sequence[Profile]) -> Section:
    table = Table(headings=HEADINGS, rows=latency_rows(profiles), caption="Percentiles with 95 % intervals.")
    text = "Latency of one batch, one run after the other, after a warm-up. A percentile with too few runs is refused."
    return Section(heading="Figures", text=text, parts=[table])


def _distribution_section(profiles: Sequence[Profile]) -> Section:
    smallest = min(profile.subject.batch_size for profile in profiles)
    shown = [profile for profile in profiles if profile.subject.batch_size == smallest]
    latencies_ms: dict[str, list[float]] = {}
    for profile in shown:
        latencies_ms.setdefault(_series(profile, shown), []).extend(np.divide(profile.latencies_ns, 1e6).tolist())
    picture = Picture(
        svg=latency_distribution(latencies_ms, of="one batch"),
        caption="A steep curve is an even latency; a long tail to the right is what users notice.",
    )
    text = f"Every measured run at a batch of {smallest}; none was left out. What was measured twice is one curve."
    return Section(heading="Distribution", text=text, parts=[picture])


def _sweep_sections(profiles: Sequence[Profile]) -> list[Section]:
    sweeps: dict[str, dict[int, Estimate]] = {}
    for profile in profiles:
        if profile.p50_ms is not None:
            sweeps.setdefault(_series(profile, profiles), {})[profile.subject.batch_size] = profile.p50_ms
    shown = {name: sweep for name, sweep in sweeps.items() if len(sweep) > 1}
    if not shown:
        return []
    picture = Picture(svg=batch_sweep(shown), caption="Throughput is that of batches one after the other.")
    text = (
        "What larger batches cost and give. Networks measured at one batch size are left out; of what was measured "
        "twice the later figure counts."
    )
    return [Section(heading="Batch sizes", text=text, parts=[picture])]


def _accuracy_sections(profiles: Sequence[Profile], accuracies: Mapping[str, float]) -> list[Section]:
    smallest = min(profile.subject.batch_size for profile in profiles)
    candidates = [
        Candidate(
            network=profile.subject.name,
            runtime=f"{profile.subject.properties['runtime']} {profile.active_precision or ''}".strip(),
            latency_ms=profile.p50_ms,
            accuracy=accuracies[profile.subject.name],
        )
        for profile in profiles
        if profile.subject.batch_size == smallest and profile.p50_ms and profile.subject.name in accuracies
    ]
    if not candidates:
        return []
    front = ", ".join(f"{candidate.network} on {candidate.runtime}" for candidate in pareto_front(candidates))
    picture = Picture(
        svg=accuracy_against_latency(candidates, of="one batch"),
        caption="Better is up and to the left. The dashed line joins what nothing else beats in both.",
    )
    text = f"At a batch of {smallest}. Nothing is both faster and at least as accurate as: {front}."
    return [Section(heading="Accuracy against latency", text=text, parts=[picture])]


def _layer_section(profile: LayerProfile) -> Section:
    slowest = sorted(profile.layers, key=lambda layer: layer.time_ms, reverse=True)[:_SLOWEST_LAYERS]
    rows = [
        (
            layer.name,
            "unknown" if layer.module is None else layer.module or "the network itself",
            layer.operator,
            f"{layer.time_ms:.4f}",
            f"{profile.share(layer.time_ms):.1%}",
        )
        for layer in slowest
    ]
    headings = ("operation", "module", "operator", "ms", "share")
    return Section(
        heading=f"Layers of {profile.subject.name}",
        text=f"Means of {profile.runs} runs of {profile.subject.properties['runtime']} with its counters on, which "
        f"take time themselves: a run took {profile.run_ms:.3g} ms with them, {profile.layers_ms:.3g} ms of it in "
        f"operations. Counters count whole microseconds.",
        parts=[
            Picture(svg=layer_waterfall(profile), caption="Modules in the order in which they first run."),
            Table(headings=headings, rows=rows, caption=f"The {len(rows)} slowest operations."),
        ],
    )


def _series(profile: Profile, among: Sequence[Profile]) -> str:
    """A name that tells profiles of different batch sizes at most apart."""
    parts = [label_of(profile, among), str(profile.subject.properties["runtime"])]
    if len({other.threads for other in among}) > 1:
        parts.append(f"{profile.threads} threads")
    return ", ".join(parts)
