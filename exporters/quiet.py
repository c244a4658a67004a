"""Converters speak to the terminal whatever the caller wants; these hold their known chatter back."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def errors_only(*names: str) -> Iterator[None]:
    """Hold back deprecation and clean-up warnings, and what the loggers ``names`` say below the level of an error."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, ResourceWarning, SyntaxWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hold back progress bars, which are written to the terminal without a switch to turn them off."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def no_telemetry() -> Iterator[None]:
    """Import OpenVINO without its telemetry.

    `openvino_telemetry` reports every import and conversion to a server, and forks this process from a thread to do so;
    a fork of a process with worker threads may hang. OpenVINO does without where the package cannot be imported.
    """
    name = "openvino_telemetry"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Undo what an import does to the root logger: the application decides where messages go, not a library."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
