"""An order to stop is heard however it arrives, and nothing else is taken for one."""

import subprocess
import sys

import pytest

from mlflow_yolo.training.inbox import Inbox

# The real reader of standard input, whose lines arrive in pieces.
LISTENER = """
import sys, time
from mlflow_yolo.training.inbox import Inbox
from mlflow_yolo.training.worker import _die_with_driver
import threading
inbox = Inbox()
threading.Thread(target=_die_with_driver, args=(inbox.hear,), daemon=True).start()
print("ready", flush=True)
inbox.wait(30)
print(inbox.stop, flush=True)
time.sleep(60)
"""


def test_without_an_order_work_goes_on() -> None:
    inbox = Inbox()
    inbox.wait(0.0)

    assert inbox.stop is None


def test_an_order_is_kept_and_waited_for() -> None:
    inbox = Inbox()
    inbox.hear(b'{"stop": "pruned"}')
    inbox.wait(60.0)  # returns at once

    assert inbox.stop == "pruned"


@pytest.mark.parametrize("line", [b"", b"stop", b"[1]", b'"stop"', b'{"stop": null}', b'{"go": 1}', b"\xff\xfe{"])
def test_what_is_no_order_is_passed_over(line: bytes) -> None:
    inbox = Inbox()
    inbox.hear(line)

    assert inbox.stop is None


def test_a_line_that_arrives_in_pieces_is_one_order_and_the_end_of_input_is_the_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for piece in (b'{"note": 1}\n{"st', b'op": "pru', b'ned"}\n'):
        process.stdin.write(piece)
        process.stdin.flush()

    assert process.stdout.readline() == b"pruned\n"
    process.stdin.close()
    assert process.wait(timeout=30) == -9
    process.stdout.close()
