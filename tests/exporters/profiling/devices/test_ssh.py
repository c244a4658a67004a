"""What can go wrong between two machines ends in one clear error, and leaves nothing on the device."""

import re
import resource
import threading
import time

import pytest

from exporters.errors import DeviceError, DeviceTimeoutError
from exporters.profiling.devices import DeviceSettings, open_device, supervision

HANGING = "import time; open('started', 'w').close(); time.sleep(600)"


def cut_when(there, pattern, helpers, cut):
    """Call ``cut`` as soon as such a file is there."""

    def wait():
        if helpers.eventually(lambda: next(there.glob(pattern), None)):
            cut()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_unknown_host_key_is_refused_and_shown(over_ssh, at_home, job):
    (at_home.secrets / "known_hosts").write_text("")
    words = (
        rf"\[127\.0\.0\.1\]:{at_home.port}: its host key must be in known_hosts, got the unknown SHA256:\S+; compare"
    )
    with pytest.raises(DeviceError, match=words) as refused:
        over_ssh().run(job, timeout_s=20)
    assert f"accept it with: ssh -p {at_home.port} " in str(refused.value)


def test_a_changed_host_key_is_told_from_an_unknown_one(over_ssh, at_home, job, helpers, tmp_path):
    at_home.trust(helpers.make_key(tmp_path / "other"))
    with pytest.raises(DeviceError, match=r"must be the one in known_hosts, got another \(SHA256:\S+\)") as refused:
        over_ssh().run(job, timeout_s=20)
    assert f"ssh-keygen -R '[127.0.0.1]:{at_home.port}'" in str(refused.value)


def test_ssh_configuration_cannot_turn_verification_off(over_ssh, at_home, job):
    (at_home.secrets / "known_hosts").write_text("")
    (at_home.secrets / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(DeviceError, match="its host key must be in known_hosts"):
        over_ssh().run(job, timeout_s=20)


def test_ssh_configuration_names_hosts(over_ssh, at_home, job):
    (at_home.secrets / "config").write_text(f"Host board\n  HostName 127.0.0.1\n  Port {at_home.port}\n")
    over_ssh(url="ssh://board").run(job, timeout_s=60)
    assert (job / "result.json").exists()


def test_a_key_that_is_not_let_in_is_an_error(over_ssh, at_home, job, helpers):
    own = at_home.secrets / "id_ed25519"
    own.unlink()
    own.with_suffix(".pub").unlink()
    helpers.make_key(own)
    with pytest.raises(DeviceError, match=r"must accept a key of ours for .*ssh-copy-id"):
        over_ssh().run(job, timeout_s=20)


def test_a_port_on_which_nobody_listens_is_an_error(over_ssh, at_home, job, unused_port):
    with pytest.raises(
        DeviceError, match=rf"\[127\.0\.0\.1\]:{unused_port}: must be reachable by SSH, but: .*Connect call failed"
    ):
        over_ssh(url=f"ssh://127.0.0.1:{unused_port}").run(job, timeout_s=20)


def test_a_host_that_accepts_and_says_nothing_ends_within_the_timeout(over_ssh, silent_port, job):
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match="got 1 s, which ended while connecting"):
        over_ssh(url=f"ssh://127.0.0.1:{silent_port}").run(job, timeout_s=1)
    assert time.monotonic() - start < 4


def kill_connections(server):
    for session in server.sessions():
        for process in session.children(recursive=True):  # sshd's own; the runner and its supervisor live on
            if process.name().startswith("sshd"):
                process.kill()
        session.kill()


def test_a_connection_that_is_killed_leaves_nothing_there(over_ssh, at_home, make_job, there, helpers):
    job = make_job(HANGING)
    cutting = cut_when(there, "*/started", helpers, lambda: kill_connections(at_home))
    with pytest.raises(
        DeviceError, match="must last until the result is here, but it ended while running the job"
    ) as broken:
        over_ssh().run(job, timeout_s=60)
    cutting.join()
    assert re.search(r"The device removes \S+ by itself within 30 s", str(broken.value))


def test_a_connection_that_is_killed_while_copying_leaves_nothing_there(over_ssh, at_home, job, there, helpers):
    (job / "many").mkdir()
    for number in range(3000):
        (job / "many" / f"{number}.bin").write_bytes(bytes(1000))
    cutting = cut_when(there, "*/many/1*", helpers, lambda: kill_connections(at_home))
    with pytest.raises(DeviceError, match="but it ended while copying the job there"):
        over_ssh().run(job, timeout_s=60)
    cutting.join()


def test_a_device_that_hears_nothing_cleans_up_by_itself(over_ssh, at_home, make_job, there, helpers, monkeypatch):
    monkeypatch.setattr(supervision, "BEAT_S", 0.2)
    monkeypatch.setattr(supervision, "SILENCE_S", 1.0)
    monkeypatch.setattr(supervision, "CLEAN_UP_S", 1.0)
    held = []

    def hold():  # as when a cable is pulled: neither side hears that the other is gone
        for session in at_home.sessions():
            held.extend([session, *(child for child in session.children() if child.name().startswith("sshd"))])
        for process in held:
            process.suspend()

    holding = cut_when(there, "*/started", helpers, hold)
    with pytest.raises(DeviceTimeoutError, match=r"ended while running the job.*by itself within 1 s"):
        over_ssh().run(make_job(HANGING), timeout_s=4)
    holding.join()
    gone = helpers.eventually(lambda: not list(there.iterdir()))
    for process in held:
        process.kill()
    assert gone


def test_a_disk_that_fills_while_copying_is_an_error(over_ssh, at_home, job, there):
    (job / "weights.bin").write_bytes(b"w" * (3 << 20))
    limits = resource.prlimit(at_home.process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    try:
        with pytest.raises(
            DeviceError, match=r"`folder` must take the job, but copying to .* failed \(is the disk full"
        ):
            over_ssh().run(job, timeout_s=60)
    finally:
        resource.prlimit(at_home.process.pid, resource.RLIMIT_FSIZE, limits)


def test_text_of_the_user_is_never_read_by_the_shell(over_ssh, at_home, job, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(DeviceError, match="`python` must be a Python that runs there"):
        over_ssh(python=f"/bin/python; touch {marker}; $(touch {marker})").run(job, timeout_s=20)
    assert not marker.exists()


def test_several_devices_run_at_once_and_one_that_fails_harms_no_other(over_ssh, at_home, job, make_job, there):
    good, bad = over_ssh(), open_device(DeviceSettings(url="local", python="/no/python", folder=str(there)))
    failures = []

    def run(device, folder):
        try:
            device.run(folder, timeout_s=60)
        except DeviceError as error:
            failures.append(str(error))

    other = make_job("open('result.json', 'w').write('other')", name="other")
    jobs = [(good, job), (bad, make_job("pass", name="bad")), (good, other)]
    threads = [threading.Thread(target=run, args=each) for each in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (job / "result.json").exists()
    assert (other / "result.json").read_text() == "other"
    assert len(failures) == 1
    assert "/no/python" in failures[0]


def test_a_job_runs_where_an_event_loop_runs_already(over_ssh, job):
    import asyncio

    async def notebook():
        over_ssh().run(job, timeout_s=60)

    asyncio.run(notebook())
    assert (job / "result.json").exists()
