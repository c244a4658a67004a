"""What the measurement ran on: processor, cores, load, versions."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cores import read_cores
from .units import KIBIBYTE

DECISIVE_FEATURES = frozenset(
    [
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "amx_int8",
        "amx_fp16",
        "asimd",
        "asimddp",
        "asimdhp",
        "bf16",
        "i8mm",
        "sve",
        "sme",
    ]
)
GPU_FACTS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "power.limit", "temperature.gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Fingerprint of a machine just before a measurement.

    Args:
        cpu: Model of the processor.
        cores: Cores that this process may run on (its affinity set).
        cpu_quota: Cores' worth of time that the container may use; ``None`` without a limit that can be read.
        governor: Frequency governor of the first core; ``None`` where the system shows none.
        load_average: Mean number of runnable tasks over the last minute; ``None`` where the system counts none.
        platform: Operating system, its version and the processor's architecture.
        versions: Versions of Python and NumPy; the runtime's is among the session's properties.
        memory_bytes: Main memory; ``None`` where the system does not say.
        smt: Whether two threads of the processor share a core; ``None`` where the system does not say.
        turbo: Whether the processor may go above its base frequency; ``None`` where the system does not say.
        features: Instructions that decide which kernels a runtime takes, as Linux names them.
        gpu: Name, driver, clocks, power cap and temperature of the first NVIDIA GPU; ``None`` without one.
    """

    cpu: str
    cores: int
    cpu_quota: float | None
    governor: str | None
    load_average: float | None
    platform: str
    versions: Mapping[str, str]
    memory_bytes: int | None = None
    smt: bool | None = None
    turbo: bool | None = None
    features: tuple[str, ...] = ()
    gpu: Mapping[str, str] | None = None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "Machine":
        """Read the JSON object of a machine."""
        return cls(**{**content, "features": tuple(content["features"])})


def read_machine() -> Machine:
    """Read the fingerprint of this machine.

    Example:
        >>> from exporters.profiling.runner.machine import read_machine
        >>> read_machine().cores >= 1
        True
    """
    return Machine(
        cpu=_cpu_model(),
        cores=len(read_cores()),
        cpu_quota=_cpu_quota(),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        load_average=os.getloadavg()[0] if sys.platform != "win32" else None,
        platform=platform.platform(),
        versions={"python": platform.python_version(), "numpy": np.__version__},
        memory_bytes=_memory_bytes(),
        smt=_switch(Path("/sys/devices/system/cpu/smt/active")),
        turbo=_turbo(),
        features=_features(),
        gpu=_gpu(),
    )


def _cpu_model() -> str:
    text = _read(Path("/proc/cpuinfo")) or ""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def _features() -> tuple[str, ...]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return tuple(sorted(set(match[1].split()) & DECISIVE_FEATURES)) if match else ()


def _memory_bytes() -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")) or "", re.MULTILINE)
    return int(match[1]) * KIBIBYTE if match else None


def _turbo() -> bool | None:
    boost = _switch(Path("/sys/devices/system/cpu/cpufreq/boost"))
    disabled = _switch(Path("/sys/devices/system/cpu/intel_pstate/no_turbo"))
    return boost if disabled is None else not disabled


def _switch(path: Path) -> bool | None:
    text = _read(path)
    return None if text is None else text == "1"


def _gpu() -> dict[str, str] | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = ["--id=0", f"--query-gpu={','.join(GPU_FACTS)}", "--format=csv,noheader"]
    answer = subprocess.run([program, *asked], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    facts = [fact.strip() for fact in answer.stdout.strip().split(",")]
    return dict(zip(GPU_FACTS, facts, strict=True)) if answer.returncode == 0 and len(facts) == len(GPU_FACTS) else None


def _cpu_quota() -> float | None:
    limit = _read(Path("/sys/fs/cgroup/cpu.max"))
    if limit is None or limit.startswith("max"):
        return None
    quota, period = limit.split()
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
