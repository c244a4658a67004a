"""The file that names devices."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from exporters.errors import InventoryError
from exporters.profiling.devices.settings import DeviceSettings

KEYS = tuple(field.name for field in fields(DeviceSettings) if field.name != "name")


def read_inventory(path: str | Path) -> dict[str, DeviceSettings]:
    r"""Read the devices of an inventory file, which is TOML with one table for each.

    Args:
        path: The file. ``[devices.pi]`` begins the device ``pi``; its keys are the arguments of `DeviceSettings`.

    Returns:
        Devices by name, in the file's order.

    Raises:
        InventoryError: If the file cannot be read, or an entry is wrong; it says file, table, key, value and cure.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "devices.toml"
        ...     _ = path.write_text("[devices.pi]\nurl = 'ssh://pi@raspberrypi.local'\ncores = [2, 3]\n")
        ...     read_inventory(path)["pi"].cores
        (2, 3)
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InventoryError(f"`inventory` must be a file that can be read, got {path}: {error.strerror}.") from error
    except ValueError as error:
        raise InventoryError(f"{path}: must be TOML in UTF-8, but: {error}.") from error
    devices = content.get("devices")
    if set(content) != {"devices"} or not isinstance(devices, dict) or not devices:
        raise InventoryError(f"{path}: must have tables [devices.NAME] and nothing else, got {sorted(content)}.")
    return {name: _read(path, name, entry) for name, entry in devices.items()}


def _read(path: Path, name: str, entry: object) -> DeviceSettings:
    where = f"{path}: [devices.{name}]"
    if name == "local" or "://" in name or not name.strip() or not name.isprintable():
        raise InventoryError(f"{where} must have a name other than 'local' and without '://', got {name!r}.")
    if not isinstance(entry, dict):
        raise InventoryError(f"{where} must be a table with `url`, got {entry!r}.")
    for key in entry:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            cure = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(KEYS)}."
            raise InventoryError(f"{where} `{key}` must be a known key, got {key} = {entry[key]!r}; {cure}")
    if "url" not in entry:
        raise InventoryError(
            f"{where} `url` must be given, got {', '.join(entry) or 'no keys'}; as in url = 'ssh://pi'."
        )
    try:
        return DeviceSettings(name=name, **_with_tuples(entry))
    except InventoryError as error:
        raise InventoryError(f"{where} {error}") from error


def _with_tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
