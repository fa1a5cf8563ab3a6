"""ONNX Runtime's quantizers without what they print and without what they do to the process's log."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what is printed, warned of, and logged below an error off the terminal.

    The quantizers log with `logging.warning`, which gives the root logger a handler of its own where it has none; a
    handler of ours, taken away again, prevents that.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_error)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_error)
        root.removeHandler(handler)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
