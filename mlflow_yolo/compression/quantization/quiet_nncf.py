"""NNCF as a guest: it prints nothing, reports to nobody, and leaves the process as it was."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import TextIO

from mlflow_yolo.exceptions import ArgumentError

_TELEMETRY = "openvino_telemetry"

_CHATTY = ("nncf", "torch.utils.cpp_extension")
"""Loggers that write to the terminal: NNCF's own, and that of a module of PyTorch that NNCF looks for CUDA with."""


class _Nobody:
    """Takes every telemetry call and does nothing."""

    def start_session(self, *args: object, **kwargs: object) -> None: ...

    def send_event(self, *args: object, **kwargs: object) -> None: ...

    def end_session(self, *args: object, **kwargs: object) -> None: ...


@dataclass(frozen=True)
class Guest:
    """NNCF, and the standard output that is closed to it.

    Attributes:
        nncf: The module.
        stdout: Standard output as it was.
    """

    nncf: ModuleType
    stdout: TextIO

    def speaking(self) -> AbstractContextManager[TextIO]:
        """Return a context in which standard output is open again, for a callback of ours."""
        return redirect_stdout(self.stdout)


@contextmanager
def quiet_nncf() -> Iterator[Guest]:
    """Yield NNCF, whose progress bars, log and telemetry are off in the meantime.

    Raises:
        ArgumentError: It is not installed; names the extra.
    """
    levels, stdout = {name: logging.getLogger(name).level for name in _CHATTY}, sys.stdout
    try:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        nncf = _import()
        logging.getLogger("nncf").setLevel(logging.CRITICAL)  # its import sets INFO
        with _no_reports(), redirect_stdout(io.StringIO()):
            yield Guest(nncf, stdout)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _import() -> ModuleType:
    """Import NNCF where `openvino_telemetry` cannot be found.

    It then does without; otherwise it would, at import and with no consent asked, write an id of the user into
    `~/intel` and start a sender. Its import also makes a class of its own that of all loggers to come.
    """
    logger_class, telemetry = logging.getLoggerClass(), sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import nncf
    except ImportError as error:
        raise ArgumentError("NNCF is not installed. Run: pip install 'mlflow-yolo[openvino]'.") from error
    finally:
        logging.setLoggerClass(logger_class)
        if telemetry is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = telemetry
    return nncf  # type: ignore[no-any-return]


@contextmanager
def _no_reports() -> Iterator[None]:
    """Take NNCF's telemetry away, which whoever imported it before us may have left on."""
    from nncf.telemetry import decorator

    sender = decorator.telemetry
    decorator.telemetry = _Nobody()
    try:
        yield
    finally:
        decorator.telemetry = sender
