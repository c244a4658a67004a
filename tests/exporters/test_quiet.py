import logging
import subprocess
import sys
import warnings

import pytest

from exporters.quiet import errors_only, no_progress_bars, no_telemetry


def test_errors_still_speak_and_levels_are_restored(caplog):
    logger = logging.getLogger("converter")
    logger.setLevel(logging.INFO)
    with errors_only("converter"):
        logger.warning("chatter")
        logger.error("trouble")
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
    logger.warning("heard again")
    assert [record.message for record in caplog.records] == ["trouble", "heard again"]
    with pytest.warns(DeprecationWarning, match="old name"):
        warnings.warn("old name", DeprecationWarning, stacklevel=1)


def test_other_warnings_pass():
    with pytest.warns(UserWarning, match="matters"), errors_only("converter"):
        warnings.warn("matters", UserWarning, stacklevel=1)


def test_progress_bars_are_not_printed(capsys):
    with no_progress_bars():
        sys.stderr.write("50%")
    assert capsys.readouterr().err == ""


def test_telemetry_cannot_be_imported_within_and_can_after():
    before = sys.modules.get("openvino_telemetry")
    with no_telemetry(), pytest.raises(ImportError, match="openvino_telemetry"):
        import openvino_telemetry  # noqa: F401
    assert sys.modules.get("openvino_telemetry") is before


def test_the_exporters_import_openvino_without_its_telemetry():
    code = "import sys, exporters.openvino; print(sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "openvino.tools.ovc.telemetry_stub\n"
