"""A real SSH server on this machine, and jobs with a runner of a few lines."""

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from exporters.profiling.devices import DeviceSettings, open_device

START_S = 10.0
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
KEYGEN = shutil.which("ssh-keygen")


def eventually(claim, *, within_s=START_S):
    """Whether ``claim()`` becomes true in time."""
    end = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def make_key(path):
    subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


class Server:
    """An sshd with its own host key, and a home with the key that it lets in."""

    def __init__(self, folder):
        if SSHD is None or KEYGEN is None:
            pytest.skip("needs an SSH server: apt-get install openssh-server, or your system's equivalent")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(make_key(folder / "id_ed25519"))
        self.url = f"ssh://{psutil.Process().username()}@127.0.0.1:{self.port}"
        self.start()

    def start(self):
        configuration = self.folder / "sshd_config"
        configuration.write_text(
            textwrap.dedent(f"""\
                ListenAddress 127.0.0.1:{self.port}
                HostKey {self.folder}/host_key
                AuthorizedKeysFile {self.folder}/authorized_keys
                PasswordAuthentication no
                PermitRootLogin prohibit-password
                PidFile none
                StrictModes no
                Subsystem sftp internal-sftp
                UsePAM no
                """)
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives its privileges up; Debian's service makes it
        log = self.folder / "sshd.log"
        # Signals that Python ignores stay ignored, so that a file over a limit is an error, as on a full disk.
        self.process = subprocess.Popen([SSHD, "-D", "-f", configuration, "-E", log], restore_signals=False)
        assert eventually(lambda: log.exists() and "Server listening" in log.read_text()), log.read_text()

    def sessions(self):
        """The processes that serve one connection each."""
        return psutil.Process(self.process.pid).children()

    def stop(self):
        for process in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
            process.kill()
        self.process.wait()


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def at_home(server, tmp_path, monkeypatch):
    """The server, and a user whose SSH knows it and has a key for it."""
    secrets = tmp_path / "home" / ".ssh"
    secrets.mkdir(parents=True)
    for name in ("id_ed25519", "id_ed25519.pub"):
        shutil.copy2(server.folder / name, secrets)
    monkeypatch.setenv("HOME", str(secrets.parent))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def trust(key):
        (secrets / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {key}")

    trust(server.host_key)
    return SimpleNamespace(
        url=server.url, port=server.port, process=server.process, sessions=server.sessions, secrets=secrets, trust=trust
    )


@pytest.fixture
def there(tmp_path):
    """The folder on the device in which jobs make theirs; checked to be empty and unused at the end of every test."""
    folder = tmp_path / "there"
    folder.mkdir()
    yield folder
    assert eventually(lambda: not list(folder.iterdir()) and not users_of(folder)), (
        list(folder.rglob("*")),
        users_of(folder),
    )


def users_of(folder):
    """Processes that work in ``folder`` or were told of it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "pid", "status"]):
        told = any(f'"folder": "{folder}"' in argument for argument in process.info["cmdline"] or ())
        inside = (process.info["cwd"] or "").startswith(str(folder))
        if (told or inside) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info)
    return found


@pytest.fixture
def make_job(tmp_path):
    """A folder with a runner of these lines."""

    def make(lines, name="job"):
        runner = tmp_path / name / "runner"
        runner.mkdir(parents=True)
        (runner / "__init__.py").write_text("")
        (runner / "__main__.py").write_text(textwrap.dedent(lines))
        (runner.parent / "job.json").write_text('{"format": "onnx", "number": 21}')
        return runner.parent

    return make


@pytest.fixture
def job(make_job):
    """A job that doubles a number and says where it ran."""
    folder = make_job("""
        import json, os, sys
        from pathlib import Path
        number = json.loads(Path("job.json").read_text())["number"]
        words = [path.read_text() for path in sorted(Path("deep").rglob("*.txt"))]
        result = {"double": 2 * number, "words": words, "cwd": os.getcwd(), "python": sys.executable}
        Path("result.json").write_text(json.dumps(result))
        """)
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "a.txt").write_text("in a folder")
    (folder / "b.txt").write_text("linked")
    (folder / "deep" / "b.txt").symlink_to(folder / "b.txt")
    return folder


@pytest.fixture(params=["local", "ssh"])
def device(request, there):
    """This machine, directly and over SSH."""
    url = "local" if request.param == "local" else request.getfixturevalue("at_home").url
    return open_device(
        DeviceSettings(url=url, name=f"the {request.param} one", python=sys.executable, folder=str(there))
    )


@pytest.fixture
def over_ssh(at_home, there):
    """Settings of this machine over SSH."""

    def make(**settings):
        given = {"url": at_home.url, "name": "board", "python": sys.executable, "folder": str(there)} | settings
        return open_device(DeviceSettings(**given))

    return make


@pytest.fixture
def helpers():
    return SimpleNamespace(eventually=eventually, make_key=make_key)


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """A Python with nothing but the standard library."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def mount_disk(tmp_path):
    """Mount an empty disk of so many MiB, which takes an administrator's rights."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size_mebibytes):
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={size_mebibytes}m", "tmpfs", folder], check=True)
        return folder

    yield mount
    subprocess.run(["/bin/umount", folder], check=True)


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def silent_port():
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(scope="session")
def python_without_ours(tmp_path_factory):
    """A Python with the runtimes of this one, and without this project."""
    folder = tmp_path_factory.mktemp("runtimes")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for package in Path(psutil.__file__).parents[1].iterdir():
        if package.suffix != ".pth" and "lightning_kd" not in package.name and package.name != "exporters":
            (packages / package.name).symlink_to(package)
    return folder / "bin" / "python"


@pytest.fixture
def make_python(tmp_path):
    """A Python that does something else first."""

    def make(code):
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)
        return str(path)

    return make
