"""Keeping this package's own messages back while somebody asked for silence."""

import contextlib
import logging
import threading
from collections.abc import Iterator

_LOGGER = logging.getLogger("mlflow_yolo")
_lock = threading.Lock()
_n_silent = 0
_level = logging.NOTSET


@contextlib.contextmanager
def silence(is_wanted: bool = True) -> Iterator[None]:
    """Let nothing of `mlflow_yolo` reach the log inside the block; blocks of several threads may overlap."""
    if not is_wanted:
        yield
        return
    global _n_silent, _level
    with _lock:
        if _n_silent == 0:
            _level = _LOGGER.level
            _LOGGER.setLevel(logging.CRITICAL + 1)
        _n_silent += 1
    try:
        yield
    finally:
        with _lock:
            _n_silent -= 1
            if _n_silent == 0:
                _LOGGER.setLevel(_level)
