"""Optuna without its notices about itself, and nothing else silenced."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

_FASTER_WITH = "greenlet"
"""A package that its Gaussian process would use; without, a proposal takes a fraction of a second all the same."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep off the terminal that a feature of Optuna is experimental or will go; every other warning gets through."""
    from optuna.exceptions import ExperimentalWarning

    logger = logging.getLogger("optuna._gp.batched_lbfgsb")
    logger.addFilter(_is_no_advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", r".*deprecated in v\d", FutureWarning)
            yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return _FASTER_WITH not in record.getMessage()
