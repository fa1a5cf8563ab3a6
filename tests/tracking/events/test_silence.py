"""Who asks for silence gets it, for as long as asked."""

import logging
import threading

import pytest

from mlflow_yolo.tracking.events.silence import silence

LOG = logging.getLogger("mlflow_yolo.tracking.anything")


def test_nothing_is_said_inside_and_everything_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    with silence(), silence():
        LOG.warning("inside")
    with silence(is_wanted=False):
        LOG.warning("outside")

    assert [record.getMessage() for record in caplog.records] == ["outside"]


def test_overlapping_blocks_of_two_threads_end_with_the_last_and_restore_the_level() -> None:
    package = logging.getLogger("mlflow_yolo")
    before, entered, leave = package.level, threading.Event(), threading.Event()

    def stay() -> None:
        with silence():
            entered.set()
            leave.wait(10)

    with silence():
        thread = threading.Thread(target=stay)
        thread.start()
        assert entered.wait(10)
    assert not LOG.isEnabledFor(logging.WARNING)
    leave.set()
    thread.join()
    assert package.level == before
