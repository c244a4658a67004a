"""Addresses and inventories: what is read, and what is refused in which words."""

import pytest

from exporters.errors import ExportError, InventoryError
from exporters.profiling.devices import DeviceSettings, open_device, read_inventory
from exporters.profiling.devices.settings import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("local", Address("local")),
        ("ssh://pi", Address("ssh", "pi")),
        ("ssh://pi@board.local:2222", Address("ssh", "board.local", "pi", 2222)),
        ("ssh://pi@board/", Address("ssh", "board", "pi")),
        ("ssh://me@[fe80::1]:22", Address("ssh", "fe80::1", "me", 22)),
        ("adb://0a38afe2", Address("adb", "0a38afe2")),
        ("adb://192.168.1.5:5555", Address("adb", "192.168.1.5:5555")),
    ],
)
def test_an_address_is_read_into_its_parts(url, address):
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://pi", "must begin with ssh:// or adb://, or be 'local', got 'ftp://pi'"),
        ("pi", "must be 'local', 'ssh://user@host:port', 'adb://serial', got 'pi'"),
        (7, "got 7"),
        ("ssh://", "must have a host name or IP address, got 'ssh://'"),
        ("ssh://pi@", "must have a host name or IP address"),
        ("ssh://-oProxyCommand=x", "must have a host name or IP address"),
        ("ssh://-l@host", "must have a plain user name before the @"),
        ("ssh://a b", "must have a host name or IP address"),
        ("ssh://a;reboot", "must have a host name or IP address"),
        ("ssh://a\nb", "got 'ssh://a\\\\nb'"),
        ("ssh://pi:secret@host", "must have no password, got one; install a key with ssh-copy-id"),
        ("ssh://host/tmp", "must end after the host or port, got 'ssh://host/tmp'; `folder` says where"),
        ("ssh://host:70000", "must have a port from 1 to 65535, got 'ssh://host:70000'"),
        ("ssh://host:0", "must have a port from 1 to 65535"),
        ("ssh://host:x", "must have a port from 1 to 65535"),
        ("adb://", "must have a serial number as `adb devices` lists it"),
        ("adb://a b", "must have a serial number"),
    ],
)
def test_an_address_of_no_device_is_refused(url, words):
    with pytest.raises(InventoryError, match=words):
        DeviceSettings(url=url)


def test_a_password_is_not_repeated():
    with pytest.raises(InventoryError) as refused:
        parse_address("ssh://pi:secret@host")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"python": "~/venv/bin/python"},
            r"`python` must be a path on the device, got '~/venv/bin/python'; `~` is not",
        ),
        ({"python": "-c"}, "`python` must be a path"),
        ({"python": ""}, "`python` must be a path"),
        ({"python": 3}, "`python` must be a path on the device, got 3"),
        ({"folder": "jobs"}, "`folder` must be an absolute path on the device, got 'jobs'"),
        ({"cores": ()}, r"`cores` must be different core numbers from 0, at least one, got \(\)"),
        ({"cores": (1, 1)}, "`cores` must be different"),
        ({"cores": (-1,)}, "`cores` must be different"),
        ({"cores": (True,)}, "`cores` must be different"),
        ({"cores": 2}, "`cores` must be different core numbers from 0, at least one, got 2"),
        ({"threads": 0}, "`threads` must be a whole number above 0, got 0"),
        ({"threads": 1.5}, "`threads` must be a whole number above 0, got 1.5"),
        ({"timeout_s": 0}, "`timeout_s` must be a finite number of seconds above 0, got 0"),
        ({"timeout_s": float("inf")}, "`timeout_s` must be a finite number of seconds above 0, got inf"),
        ({"timeout_s": "10 min"}, "`timeout_s` must be a finite number of seconds above 0, got '10 min'"),
    ],
)
def test_settings_that_no_device_can_have_are_refused(entry, words):
    with pytest.raises(InventoryError, match=words):
        DeviceSettings(url="local", **entry)


def test_an_inventory_names_devices(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text("""
[devices.pi]
url = "ssh://pi@raspberrypi.local:2222"
python = "/home/pi/venv/bin/python"
folder = "/home/pi"
cores = [2, 3]
threads = 2
timeout_s = 600

[devices.here]
url = "local"
""")
    pi = DeviceSettings(
        url="ssh://pi@raspberrypi.local:2222",
        name="pi",
        python="/home/pi/venv/bin/python",
        folder="/home/pi",
        cores=(2, 3),
        threads=2,
        timeout_s=600,
    )
    assert read_inventory(path) == {"pi": pi, "here": DeviceSettings(url="local", name="here")}
    assert open_device("pi", inventory=path).settings == pi
    with pytest.raises(InventoryError, match=r"`device` must be one of pi, here of .*devices.toml, got 'jetson'"):
        open_device("jetson", inventory=path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[devices.pi", r"devices.toml: must be TOML in UTF-8, but: Expected ']'"),
        ("", r"must have tables \[devices.NAME\] and nothing else, got \[\]"),
        ("[device.pi]\nurl = 'local'", r"must have tables \[devices.NAME\] and nothing else, got \['device'\]"),
        ("devices = 3", r"must have tables \[devices.NAME\]"),
        ("[devices]\npi = 'ssh://pi'", r"\[devices.pi\] must be a table with `url`, got 'ssh://pi'"),
        ("[devices.pi]\nthreads = 2", r"\[devices.pi\] `url` must be given, got threads; as in url = 'ssh://pi'"),
        (
            "[devices.pi]\nurl = 'ssh://pi'\nthread = 2",
            r"`thread` must be a known key, got thread = 2; did you mean `thr",
        ),
        (
            "[devices.pi]\nurl = 'ssh://pi'\nzzz = 2",
            "got zzz = 2; known keys: url, python, folder, cores, threads, timeo",
        ),
        (
            "[devices.pi]\nurl = 'ftp://pi'",
            r"devices.toml: \[devices.pi\] `url` must begin with ssh:// .* got 'ftp://pi'",
        ),
        ("[devices.pi]\nurl = 'ssh://pi'\ncores = [-1]", r"\[devices.pi\] `cores` must be .*, got \(-1,\)"),
        ("[devices.local]\nurl = 'local'", r"\[devices.local\] must have a name other than 'local'"),
    ],
)
def test_a_wrong_inventory_says_file_key_value_and_cure(tmp_path, text, words):
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(InventoryError, match=words):
        read_inventory(path)


def test_an_inventory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InventoryError, match=r"`inventory` must be a file that can be read, got .*: No such file"):
        read_inventory(tmp_path / "none.toml")


def test_a_name_without_an_inventory_is_an_error():
    with pytest.raises(InventoryError, match="a name in the inventory, got 'pi' without an inventory"):
        open_device("pi")


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "asyncssh", None)
    monkeypatch.delitem(sys.modules, "exporters.profiling.devices.ssh", raising=False)
    with pytest.raises(ExportError, match=r"pip install 'lightning-kd\[devices\]'"):
        open_device("ssh://pi").run(tmp_path, timeout_s=1)
