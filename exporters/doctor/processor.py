"""Processor features and graphics cards that decide which precisions are fast, as the system reports them."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

# What the runtimes' kernels look for, in the names that Linux and macOS give them.
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI (int8)",
    "avx_vnni": "AVX VNNI (int8)",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_fp16": "AVX-512 fp16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "amx_fp16": "AMX fp16",
    "asimd": "NEON",
    "asimdhp": "NEON fp16",
    "asimddp": "NEON dot product (int8)",
    "i8mm": "NEON int8 matrices",
    "bf16": "NEON bf16",
    "sve": "SVE",
    "feat_dotprod": "NEON dot product (int8)",
    "feat_i8mm": "NEON int8 matrices",
    "feat_bf16": "NEON bf16",
}
_TIMEOUT_S = 20.0


def processor_features() -> tuple[str, ...]:
    """Features of this processor that inference makes use of, in words.

    Example:
        >>> set(processor_features()) <= set(FEATURES.values())
        True
    """
    return features_in(_processor_text())


def features_in(text: str) -> tuple[str, ...]:
    """Known features among the flags in what the system says of its processor.

    Args:
        text: Content of ``/proc/cpuinfo``, or output of ``sysctl``.

    Example:
        >>> features_in("flags : fpu avx2 avx512_bf16")
        ('AVX2', 'AVX-512 bf16')
    """
    words = set(re.findall(r"\w+", text.lower()))
    return tuple(dict.fromkeys(label for flag, label in FEATURES.items() if flag in words))


def graphics_cards() -> tuple[str, ...]:
    """NVIDIA cards with memory and driver, as ``nvidia-smi`` names them; empty without that program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    return tuple(_lines_of([program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]))


def is_jetpack() -> bool:
    """Whether this is one of NVIDIA's Jetson boards, whose TensorRT belongs to the system."""
    return Path("/etc/nv_tegra_release").is_file()


def system() -> str:
    """Operating system and architecture."""
    name = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system()
    return f"{name} {platform.machine()}"


def _processor_text() -> str:
    if sys.platform == "darwin":
        lines = _lines_of(["/usr/sbin/sysctl", "hw.optional.arm"])
        # "hw.optional.arm.FEAT_BF16: 1": the features that are there end in a one.
        return "\n".join(line.partition(":")[0].rpartition(".")[2] for line in lines if line.endswith(": 1"))
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _lines_of(command: list[str]) -> list[str]:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]
