import threading
import time

import pytest

from mlflow_yolo.deployment.inference.backend import Options
from mlflow_yolo.deployment.inference.waiting import Line, Request


def request() -> Request:
    return Request(b"", Options(), deadline=time.perf_counter() + 60)


def filled(n: int, *, max_queue: int = 64, batch_wait_s: float = 0.0) -> tuple[Line, list[Request]]:
    line, requests = Line(max_queue, batch_wait_s=batch_wait_s), [request() for _ in range(n)]
    assert all(line.put(one) for one in requests)
    return line, requests


def test_requests_are_taken_in_the_order_in_which_they_came() -> None:
    line, requests = filled(3)
    assert [line.take()[0] for _ in range(3)] == requests


def test_the_largest_batch_that_the_line_fills_is_taken() -> None:
    line, requests = filled(11)
    assert [line.take((1, 4, 8)) for _ in range(4)] == [requests[:8], *([one] for one in requests[8:])]
    line, requests = filled(5)
    assert [line.take((1, 4, 8)) for _ in range(2)] == [requests[:4], requests[4:]]


def test_a_full_line_has_no_room_until_one_is_taken() -> None:
    line, _ = filled(2, max_queue=2)
    assert not line.put(request())
    line.take()
    assert line.put(request())
    assert len(line) == 2


def test_who_went_away_gives_up_the_place() -> None:
    line, (_, second) = filled(2, max_queue=2)
    second.future.cancel()
    assert line.put(request())
    assert len(line) == 2


def test_a_closed_line_takes_nobody_and_lets_those_who_wait_go() -> None:
    line, requests = filled(2)
    line.close()
    assert not line.put(request())
    assert [line.take() for _ in range(3)] == [requests[:1], requests[1:], []]


def test_drained_requests_are_no_longer_there_to_be_taken() -> None:
    line, requests = filled(2)
    line.close()
    assert line.drain() == requests
    assert line.take() == []


def test_closing_wakes_all_who_wait_for_requests() -> None:
    line, taken = Line(4), []
    threads = [threading.Thread(target=lambda: taken.append(line.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    line.close()
    for thread in threads:
        thread.join(10)
    assert taken == [[], [], []]


def test_a_batch_waits_for_others_until_it_is_full() -> None:
    line, taken = Line(8, batch_wait_s=60), []
    first = request()
    line.put(first)
    thread = threading.Thread(target=lambda: taken.extend(line.take((1, 2))))
    thread.start()
    second = request()
    line.put(second)
    thread.join(10)
    assert taken == [first, second]


def test_a_batch_waits_no_longer_than_its_budget() -> None:
    line, (one,) = filled(1, batch_wait_s=0.001)
    assert line.take((1, 8)) == [one]


def test_a_closing_line_does_not_wait_for_a_full_batch() -> None:
    line, (one,) = filled(1, batch_wait_s=60)
    line.close()
    taken: list[Request] = []
    thread = threading.Thread(target=lambda: taken.extend(line.take((1, 8))), daemon=True)
    thread.start()
    thread.join(10)
    assert taken == [one]


def test_what_is_left_beside_a_batch_is_offered_to_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    line, _ = filled(3)
    offered = []
    monkeypatch.setattr(line._change, "notify", lambda: offered.append(len(line)))
    line.take((1, 2))
    line.take((1, 2))
    assert offered == [1]
