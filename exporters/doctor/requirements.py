"""Installed packages against what this project and they themselves ask for; metadata is read, nothing is imported."""

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from exporters.doctor.processor import is_jetpack

DISTRIBUTION = "lightning-kd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package that an extra asks for.

    Args:
        name: Its name on the package index.
        wanted: Versions that are asked for, such as ``">=9.0"``; empty for any.
        installed: Version that is there; ``None`` without one.
    """

    name: str
    wanted: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed in a version that is asked for."""
        return self.installed is not None and _within(self.wanted, self.installed)

    def __str__(self) -> str:
        """Name and version in words."""
        if self.installed is None:
            return f"{self.name} is not installed"
        return f"{self.name} {self.installed}" + ("" if self.fits else f" is not {self.wanted}")


def extras() -> tuple[str, ...]:
    """Extras of this project that are asked for by name."""
    provided = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return tuple(extra for extra in provided if extra != "all")


def packages_of(extra: str) -> tuple[Package, ...]:
    """Packages that an extra asks for on this system and version of Python.

    Example:
        >>> "openvino" in [package.name for package in packages_of("openvino")]
        True
    """
    own = {requirement.name for requirement in _requirements(DISTRIBUTION, "")}
    found = [requirement for requirement in _requirements(DISTRIBUTION, extra) if requirement.name not in own]
    return tuple(Package(name=each.name, wanted=str(each.specifier), installed=installed(each.name)) for each in found)


def installed(name: str) -> str | None:
    """Version of a package; ``None`` if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unmet(names: Iterable[str]) -> tuple[str, ...]:
    """What installed packages ask for and do not find, one sentence each.

    Args:
        names: Packages to look at; those that are not installed are left out.
    """
    return tuple(
        f"{name} {installed(name)} needs {requirement.name}{requirement.specifier}, "
        f"but {installed(requirement.name) or 'none'} is installed"
        for name in names
        if installed(name)
        for requirement in _requirements(name, "")
        if not Package(
            name=requirement.name, wanted=str(requirement.specifier), installed=installed(requirement.name)
        ).fits
    )


def conflicts(extra: str) -> tuple[str, ...]:
    """Versions that are known not to work together, which no metadata says, one sentence each."""
    rules = {"tensorrt": _tensorrt_conflicts, "onnx": _onnx_conflicts, "coreai": _coreai_conflicts}
    return rules[extra]() if extra in rules else ()


def remarks(extra: str) -> tuple[str, ...]:
    """What is worth knowing of versions that do work together, one sentence each."""
    found, torch = installed("coremltools"), installed("torch")
    if extra == "coreml" and found and torch and Version(torch) >= Version("2.8"):
        return (
            f"coremltools {found} was tested by its makers up to torch 2.7, and torch {torch} is installed: "
            f"networks convert through torch.export, and every package is checked number by number",
        )
    if extra == "tensorrt" and (bridge := installed("torch-tensorrt")):
        return (f"torch-tensorrt {bridge} is installed and not used here; it asks for a torch of its own",)
    return ()


def _tensorrt_conflicts() -> tuple[str, ...]:
    names = sorted(
        name
        for distribution in metadata.distributions()
        if re.fullmatch(r"tensorrt(-cu\d+)?((-|_)bindings|(-|_)libs)?", name := distribution.metadata["Name"])
    )
    majors = {Version(version).major for name in names if (version := installed(name))}
    found = []
    if len(majors) > 1:
        found.append(
            f"TensorRT {' and '.join(map(str, sorted(majors)))} are installed together ({', '.join(names)}): "
            f"uninstall all of them and install one"
        )
    if is_jetpack() and majors - {10}:
        found.append("JetPack 6 has TensorRT 10, which must be that of the system: uninstall the one from the index")
    return tuple(found)


def _onnx_conflicts() -> tuple[str, ...]:
    both = installed("onnxruntime"), installed("onnxruntime-gpu")
    if all(both):
        return (
            f"onnxruntime {both[0]} and onnxruntime-gpu {both[1]} overwrite each other's files: "
            f"uninstall both and install one",
        )
    return ()


def _coreai_conflicts() -> tuple[str, ...]:
    if Version(platform.python_version()) >= Version("3.15"):
        return (f"coreai-torch has no packages for Python {platform.python_version()}: use 3.11 to 3.14",)
    return ()


def _requirements(name: str, extra: str) -> list[Requirement]:
    found = [Requirement(text) for text in metadata.requires(name) or []]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def _within(wanted: str, version: str) -> bool:
    return Requirement(f"package{wanted}").specifier.contains(version, prereleases=True)
