"""Runtimes are asked in processes of their own: what they do there does not reach this one."""

import json
import sys

import pytest

from exporters.doctor import diagnose


def test_an_installed_runtime_says_what_it_computes_on():
    (finding,) = diagnose(["onnx"]).findings
    assert finding.usable, finding.problems
    assert "CPUExecutionProvider" in finding.devices
    assert finding.use == "converts, and runs here"
    assert finding.install is None


def test_a_missing_runtime_comes_with_the_command_that_installs_it(install):
    # No process is started: the metadata says that it is not there.
    (finding,) = diagnose(["tensorrt"]).findings
    assert not finding.usable
    assert finding.problems == ("tensorrt is not installed",)
    assert finding.install == "pip install 'lightning-kd[tensorrt]'"


def test_a_runtime_that_crashes_is_reported_and_not_shared(broken_module):
    broken_module("jinja2", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (finding,) = diagnose(["report"]).findings
    assert finding.problems == ("importing it ended its process with SIGSEGV",)
    assert finding.install == "pip install 'lightning-kd[report]'"


def test_a_runtime_that_cannot_be_imported_is_reported_with_its_last_words(broken_module):
    broken_module("jinja2", "raise OSError('libsomething.so.3: cannot open shared object file')")
    (finding,) = diagnose(["report"]).findings
    assert finding.problems == ("importing it failed: OSError: libsomething.so.3: cannot open shared object file",)


def test_a_runtime_that_does_not_answer_is_given_up(broken_module):
    broken_module("jinja2", "import time; time.sleep(60)")
    (finding,) = diagnose(["report"], timeout_s=2).findings
    assert finding.problems == ("importing it took more than 2 s",)


def test_the_diagnosis_is_json():
    content = json.loads(json.dumps(diagnose(["report"]).to_content()))
    assert content["schema_version"] == 1
    assert content["python"] == ".".join(map(str, sys.version_info[:3]))
    assert content["findings"][0]["packages"][0].keys() == {"name", "wanted", "installed"}


def test_an_unknown_extra_is_refused():
    with pytest.raises(ValueError, match=r"`extras` must be among 'onnx', .*, got \['tflite'\]"):
        diagnose(["tflite"])
