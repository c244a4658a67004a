"""The way over adb, with a stand-in for adb and the phone: neither a phone nor an emulator can be had in tests.

The stand-in takes the arguments that adb 29 takes, runs the shell command in this machine's shell and copies files. It
shows that the arguments are put together rightly; it shows nothing about Android.
"""

import json
import os
import sys

import pytest

from exporters.errors import DeviceError, DeviceTimeoutError
from exporters.profiling.devices import DeviceSettings, open_device

STAND_IN = """#!/bin/sh
test "$1" = -s || exit 64
serial=$2 verb=$3
shift 3
if [ "$serial" != phone-1 ]; then echo "error: device '$serial' not found" >&2; exit 1; fi
case $verb in
get-state) echo device ;;
shell) test "$1" = -T && test $# = 2 && exec sh -c "$2" ;;
push) cp -R "$@" || exit 1 ;;
pull) test $# = 2 && cp "$1" "$2" 2>/dev/null || { echo "adb: error: failed to stat remote object '$1'"; exit 1; } ;;
*) exit 64 ;;
esac
"""


@pytest.fixture
def phone(tmp_path, there, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adb").write_text(STAND_IN)
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def make(**settings):
        given = {"url": "adb://phone-1", "python": sys.executable, "folder": str(there)} | settings
        return open_device(DeviceSettings(**given))

    return make


def test_a_job_runs_there_and_its_result_comes_back(phone, job, there):
    phone().run(job, timeout_s=60)
    result = json.loads((job / "result.json").read_text())
    assert result["double"] == 42
    assert result["cwd"].startswith(f"{there}/lightning-kd-")


def test_a_runner_that_hangs_ends_within_its_timeout(phone, make_job):
    with pytest.raises(DeviceTimeoutError, match=r"adb://phone-1: the job must end within `timeout_s`, got 2 s"):
        phone().run(make_job("import time; time.sleep(600)"), timeout_s=2)


def test_a_result_that_is_not_there_is_an_error(phone, make_job):
    with pytest.raises(DeviceError, match=r"`adb -s phone-1 pull` must succeed, got: .*failed to stat .*result\.json"):
        phone().run(make_job("pass"), timeout_s=60)


def test_a_phone_that_is_not_there_is_an_error(phone, job):
    words = "`adb -s phone-2 get-state` must succeed, got: error: device 'phone-2' not found"
    with pytest.raises(DeviceError, match=words):
        phone(url="adb://phone-2").run(job, timeout_s=60)


def test_a_phone_without_python_is_an_error(phone, job):
    with pytest.raises(DeviceError, match=r"got /no/python, which ended with exit code 127: .*Android brings none"):
        phone(python="/no/python").run(job, timeout_s=60)


def test_without_adb_the_error_says_what_to_install(phone, job, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="adb must be on the PATH, got none; install Android's platform tools"):
        phone().run(job, timeout_s=60)
