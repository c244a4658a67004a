"""How a device is reached and what of it a measurement may use."""

import math
import re
import sys
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from exporters.errors import InventoryError

Scheme = Literal["local", "ssh", "adb"]
FORMS = "'local', 'ssh://user@host:port', 'adb://serial' or a name in the inventory"
_USER, _HOST = re.compile(r"\w[\w.@-]*", re.ASCII), re.compile(r"[\w:][\w.:%-]*", re.ASCII)
LAST_PORT = 65535


class Address(NamedTuple):
    """Where a device is.

    Args:
        scheme: How it is reached.
        host: Its host name, IP address or alias for SSH, its serial number for adb; empty for this machine.
        user: Who logs in; ``None`` for what SSH's own configuration says.
        port: TCP port; ``None`` for what SSH's own configuration says.
    """

    scheme: Scheme
    host: str = ""
    user: str | None = None
    port: int | None = None

    @property
    def login(self) -> str:
        """User and host, as SSH's own tools take them."""
        return self.host if self.user is None else f"{self.user}@{self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """One device.

    Args:
        url: ``"local"``, ``"ssh://user@host:port"`` (user and port may be left to SSH's configuration) or
            ``"adb://serial"``.
        name: What results and errors call it; ``url`` if empty.
        python: Path of the Python there; ``None`` for ``python3``, or this process's own where ``url`` is local.
        folder: Folder there in which the job's own folder is made and removed; ``None`` for that of temporary files.
        cores: Cores to pin the runner to; ``None`` for the last ones there, as many as threads.
        threads: Threads that one run may use; ``None`` for every core at hand.
        timeout_s: Longest time for one job, s; ``None`` for what the caller says.

    Example:
        >>> DeviceSettings(url="ssh://pi@raspberrypi.local").address
        Address(scheme='ssh', host='raspberrypi.local', user='pi', port=None)
    """

    url: str
    name: str = ""
    python: str | None = None
    folder: str | None = None
    cores: tuple[int, ...] | None = None
    threads: int | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no device can have, before anything is connected."""
        parse_address(self.url)
        for key in ("python", "folder"):
            _check_path(key, getattr(self, key))
        _check_cores(self.cores)
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise InventoryError(f"`threads` must be a whole number above 0, got {self.threads!r}.")
        _check_timeout(self.timeout_s)
        if not self.name:
            object.__setattr__(self, "name", self.url)

    @property
    def address(self) -> Address:
        """The parts of ``url``."""
        return parse_address(self.url)

    @property
    def python_there(self) -> str:
        """The Python to start there."""
        return self.python or (sys.executable if self.address.scheme == "local" else "python3")

    @property
    def folder_there(self) -> str | None:
        """Where the job's folder is made; ``None`` for where temporary files are kept."""
        return self.folder or ("/data/local/tmp" if self.address.scheme == "adb" else None)


def parse_address(url: object) -> Address:
    """Read where a device is.

    Args:
        url: As in `DeviceSettings`.

    Returns:
        Its parts.

    Raises:
        InventoryError: If it is none of the known forms, or has parts that they do not have.

    Example:
        >>> parse_address("adb://emulator-5554")
        Address(scheme='adb', host='emulator-5554', user=None, port=None)
    """
    if url == "local":
        return Address("local")
    if not isinstance(url, str) or "://" not in url or not url.isprintable():
        raise InventoryError(f"`url` must be {FORMS.replace(' or a name in the inventory', '')}, got {url!r}.")
    scheme, rest = url.split("://", 1)
    if scheme == "adb":
        return Address("adb", _matching(_HOST, rest, url, "a serial number as `adb devices` lists it"))
    if scheme == "ssh":
        return _parse_ssh(url)
    raise InventoryError(f"`url` must begin with ssh:// or adb://, or be 'local', got {url!r}.")


def _parse_ssh(url: str) -> Address:
    parts = urlsplit(url)
    if parts.password is not None:
        raise InventoryError("`url` must have no password, got one; install a key with ssh-copy-id instead.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise InventoryError(f"`url` must end after the host or port, got {url!r}; `folder` says where on the device.")
    try:
        port = parts.port
    except ValueError as error:
        raise InventoryError(f"`url` must have a port from 1 to {LAST_PORT}, got {url!r}.") from error
    if port == 0:
        raise InventoryError(f"`url` must have a port from 1 to {LAST_PORT}, got {url!r}.")
    user = None if parts.username is None else _matching(_USER, parts.username, url, "a plain user name before the @")
    return Address("ssh", _matching(_HOST, parts.hostname or "", url, "a host name or IP address"), user, port)


def _matching(pattern: re.Pattern[str], text: str, url: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise InventoryError(f"`url` must have {what}, got {url!r}.")
    return text


def _check_path(key: str, path: object) -> None:
    if path is None:
        return
    if not isinstance(path, str) or not path or path.startswith(("-", "~")) or not path.isprintable():
        raise InventoryError(f"`{key}` must be a path on the device, got {path!r}; `~` is not expanded there.")
    if key == "folder" and not PurePosixPath(path).is_absolute():
        raise InventoryError(f"`folder` must be an absolute path on the device, got {path!r}.")


def _check_cores(cores: object) -> None:
    if cores is None:
        return
    numbers = cores if isinstance(cores, tuple) else ()
    whole = all(type(core) is int and core >= 0 for core in numbers)
    if not whole or not numbers or len(set(numbers)) < len(numbers):
        raise InventoryError(f"`cores` must be different core numbers from 0, at least one, got {cores!r}.")


def _check_timeout(timeout_s: object) -> None:
    if timeout_s is None:
        return
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not math.isfinite(timeout_s) or timeout_s <= 0:  # type: ignore[operator, arg-type]
        raise InventoryError(f"`timeout_s` must be a finite number of seconds above 0, got {timeout_s!r}.")
