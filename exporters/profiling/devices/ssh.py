"""A device over SSH: files by SFTP, host keys held against known_hosts, keys from SSH's own configuration or agent."""

import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from exporters.errors import DeviceError
from exporters.profiling.devices.link import Process, explained, reason
from exporters.profiling.devices.settings import Address

KEEP_ALIVE_S, MISSED_KEEP_ALIVES = 5, 3
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")


class SshLink:
    """An open connection.

    Args:
        connection: The connection, authenticated on both sides.
    """

    errors = (OSError, asyncssh.Error)

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    async def start(self, arguments: Sequence[str]) -> Process:
        """Start a process; the login shell that SSH hands the command to sees quoted words only."""
        process = await self._connection.create_process(shlex.join(arguments), encoding=None, request_pty=False)

        async def wait() -> int | None:
            await process.wait()
            return process.returncode

        return Process(process.stdin, process.stdout, process.stderr, wait)

    async def send(self, source: Path, folder: str) -> None:
        """Copy what is in ``source`` by SFTP."""
        contents = [str(path) for path in sorted(source.iterdir())]
        problem = f"`folder` must take the job, but copying to {folder} failed (is the disk full?)"
        async with _sftp_explained(problem), self._connection.start_sftp_client() as sftp:
            await sftp.put(contents, folder, recurse=True, follow_symlinks=True)

    async def fetch(self, path: str, target: Path) -> None:
        """Copy one file back by SFTP."""
        problem = f"the runner must write {path}"
        async with _sftp_explained(problem), self._connection.start_sftp_client() as sftp:
            await sftp.get(path, str(target))


@asynccontextmanager
async def open_ssh(address: Address) -> AsyncIterator[SshLink]:
    """Connect, verify the host, log in, and disconnect at the end.

    Args:
        address: Host or alias; user and port where SSH's configuration is not to say.

    Yields:
        The open connection.

    Raises:
        DeviceError: If the host cannot be reached, its key is not trusted, or it does not accept a key of ours.
        ConnectionError: If the connection breaks later.
    """
    witness = _Witness()
    options: dict[str, Any] = {"port": address.port, "username": address.user}
    try:
        connection = await asyncssh.connect(
            address.host,
            **{name: value for name, value in options.items() if value is not None},
            client_factory=lambda: witness,
            known_hosts=_known_hosts(),
            agent_forwarding=False,
            keepalive_interval=KEEP_ALIVE_S,
            keepalive_count_max=MISSED_KEEP_ALIVES,
        )
    except (OSError, asyncssh.Error, ValueError) as error:
        raise DeviceError(_why(address, witness, error)) from error
    try:
        yield SshLink(connection)
    except asyncssh.Error as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


class _Witness(asyncssh.SSHClient):
    """Remembers what a host showed that known_hosts does not have, and trusts none of it."""

    def __init__(self) -> None:
        self.fingerprint = ""
        self.entries: Sequence[object] = ()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.fingerprint = key.get_fingerprint()
        asked = None if port == asyncssh.DEFAULT_PORT else port
        self.entries = asyncssh.match_known_hosts(_known_hosts(), host, addr, asked)[0]
        return False


def _known_hosts() -> asyncssh.SSHKnownHosts:
    # Given explicitly: asyncssh verifies nothing where SSH's configuration has "UserKnownHostsFile none".
    files = [path for path in (Path.home() / ".ssh" / "known_hosts", SYSTEM_KNOWN_HOSTS) if path.is_file()]
    return asyncssh.read_known_hosts([str(path) for path in files])


def _why(address: Address, witness: _Witness, error: Exception) -> str:
    host = address.host if address.port is None else f"[{address.host}]:{address.port}"
    login = shlex.join(["ssh", *(["-p", str(address.port)] if address.port else []), address.login])
    if witness.entries or (isinstance(error, asyncssh.KeyExchangeFailed) and "host key" in str(error)):
        return (
            f"{host}: its host key must be the one in known_hosts, got another ({witness.fingerprint or error}): the "
            f"device was set up anew, or someone is in between. If you know that it was, remove the old key with "
            f"{shlex.join(['ssh-keygen', '-R', host])} and accept the new one with: {login}"
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return (
            f"{host}: its host key must be in known_hosts, got the unknown {witness.fingerprint or error}; compare it "
            f"with what `ssh-keygen -lf` says of /etc/ssh/ssh_host_*_key.pub on the device, and accept it with: {login}"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return (
            f"{host}: must accept a key of ours for {address.user or 'this user'}, but: {error}. Install one with "
            f"ssh-copy-id; add a key with a passphrase to ssh-agent."
        )
    return f"{host}: must be reachable by SSH, but: {reason(error)}; try: {login}"


@asynccontextmanager
async def _sftp_explained(what: str) -> AsyncIterator[None]:
    try:
        async with explained(what, asyncssh.SFTPError):
            yield
    except DeviceError as error:
        if isinstance(error.__cause__, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection):
            raise ConnectionError(str(error.__cause__)) from error
        raise
