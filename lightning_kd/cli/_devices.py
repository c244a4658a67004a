"""The options that say where to measure, and the measurement on several devices at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jsonargparse import ArgumentParser

from exporters.errors import ExportError
from exporters.profiling import JobOptions, Profile, RuntimeSettings
from exporters.profiling.devices import DEFAULT_TIMEOUT_S, Device, open_device
from exporters.profiling.runner.settings import Hint
from lightning_kd.cli._parsing import positive

DEVICE_OPTIONS = (
    "inventory",
    "timeout",
    "cores",
    "cold_starts",
    "sittings",
    "concurrency",
    "hint",
    "streams",
    "spinning",
)


class Failure(NamedTuple):
    """A measurement that gave no profile.

    Args:
        artifact: What was to be measured.
        device: Where.
        error: Why not.
    """

    artifact: str
    device: str
    error: str


def add_device_options(parser: ArgumentParser) -> None:
    """Add where to measure, and what is measured there beside latency."""
    where = "local, ssh://user@host:port, adb://serial or a name in the inventory; several are measured at once"
    default = JobOptions()
    parser.add_argument("--device", dest="devices", metavar="DEVICE", action="append", help=where)
    parser.add_argument("--inventory", metavar="FILE", help="TOML file that names devices")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help=f"longest time for one job on a device, s ({DEFAULT_TIMEOUT_S:g})"
    )
    parser.add_argument("--cores", type=int, nargs="+", metavar="N", help="cores to run on there; the last ones")
    parser.add_argument(
        "--cold-starts", type=int, metavar="N", help=f"cold starts to time there ({default.cold_starts})"
    )
    parser.add_argument(
        "--sittings", type=int, metavar="N", help=f"fresh processes to divide the runs among there ({default.sittings})"
    )
    parser.add_argument(
        "--concurrency", type=positive, nargs="+", metavar="N", help="numbers of requests at once to measure there"
    )
    parser.add_argument("--hint", choices=get_args(Hint), help="what OpenVINO tunes for there (latency)")
    parser.add_argument("--streams", type=positive, metavar="N", help="requests that OpenVINO works on at once there")
    parser.add_argument("--spinning", choices=("on", "off"), help="waiting threads of ONNX Runtime there (off)")


def devices_from(parser: ArgumentParser, options: Any) -> list[Device]:
    """Devices from the parsed ``options``, each once; wrong ones are an error of ``parser``."""
    if not options.devices:
        for name in DEVICE_OPTIONS:
            if getattr(options, name) is not None:
                parser.error(f"--{name.replace('_', '-')} must go with --device, got no device; add --device local")
        return []
    try:
        return [open_device(device, inventory=options.inventory) for device in dict.fromkeys(options.devices)]
    except ValueError as error:
        parser.error(str(error))


def job_from(parser: ArgumentParser, options: Any) -> JobOptions:
    """What is measured beside latency, from the parsed ``options``; impossible values are an error of ``parser``."""
    try:
        return JobOptions(
            cores=None if options.cores is None else tuple(options.cores),
            cold_starts=JobOptions().cold_starts if options.cold_starts is None else options.cold_starts,
            sittings=JobOptions().sittings if options.sittings is None else options.sittings,
            concurrency=tuple(options.concurrency or ()),
            settings=RuntimeSettings(
                hint=options.hint or RuntimeSettings().hint,
                streams=options.streams,
                spinning=options.spinning == "on",
            ),
            timeout_s=options.timeout,
        )
    except ValueError as error:
        parser.error(str(error))


def measure_everywhere(
    devices: Sequence[Device], artifacts: Sequence[str], measure: Callable[[str, Device], Profile]
) -> tuple[list[Profile], list[Failure]]:
    """Measure every artifact on every device: devices at once, artifacts one after the other.

    An interrupt ends every job and cleans up.

    Args:
        devices: Where.
        artifacts: What.
        measure: Measures one artifact on one device.

    Returns:
        What was found and what failed, both device by device.
    """
    profiles: list[Profile] = []
    failures: list[Failure] = []
    with ThreadPoolExecutor(len(devices)) as threads:
        futures = [threads.submit(_measure_on, device, artifacts, measure) for device in devices]
        try:
            for future in futures:
                for outcome in future.result():
                    (failures if isinstance(outcome, Failure) else profiles).append(outcome)  # type: ignore[arg-type]
        except BaseException:
            for device in devices:
                device.interrupt()
            raise
    return profiles, failures


def _measure_on(
    device: Device, artifacts: Sequence[str], measure: Callable[[str, Device], Profile]
) -> list[Profile | Failure]:
    outcomes: list[Profile | Failure] = []
    for artifact in artifacts:
        try:
            outcomes.append(measure(artifact, device))
        except (ExportError, ValueError) as error:
            outcomes.append(Failure(Path(artifact).name, device.settings.name, str(error)))
    return outcomes
