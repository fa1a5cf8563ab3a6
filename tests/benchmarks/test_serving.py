from typing import Any

import numpy as np
import pytest

from benchmarks import serving
from benchmarks.http_clients import Driven


def driven(n: int, each_s: float, wall_s: float) -> Driven:
    return Driven((each_s,) * n, wall_s, 0.5)


@pytest.mark.parametrize("per_step", [0.0, 0.25, -1.0])
def test_growth_is_that_of_a_straight_line_over_the_last_three_quarters(per_step: float) -> None:
    memory = [500.0 - 300 * np.exp(-i) + per_step * i for i in range(41)]  # a start that is not counted

    assert serving.growth_mb(memory) == pytest.approx(30 * per_step, abs=0.01)


def test_growth_is_not_moved_by_a_single_jump_up_and_down() -> None:
    memory = [100.0] * 41
    memory[30] = 150.0

    assert serving.growth_mb(memory) == 0.0


def test_latencies_are_of_all_rounds_together_and_the_rate_is_their_median() -> None:
    found = serving.summary([driven(3, 0.010, 0.03), driven(1, 0.020, 0.02), driven(1, 0.020, 0.04)])

    assert found["p50_ms"] == pytest.approx(10.0)
    assert found["p99_ms"] == pytest.approx(20.0)
    assert found["per_s"] == pytest.approx(50.0)  # of 100, 50 and 25


def test_promises_are_ratios_of_rounds() -> None:
    taken = {
        (serving.SERVER, 1): [driven(4, 0.011, 1.0), driven(4, 0.024, 1.0)],
        (serving.IN_PROCESS, 1): [driven(4, 0.010, 1.0), driven(4, 0.020, 1.0)],
        (serving.SERVER, 16): [driven(80, 0.1, 1.0), driven(90, 0.1, 2.0)],
        (serving.IN_PROCESS, 16): [driven(100, 0.1, 1.0), driven(100, 0.1, 2.0)],
        (serving.MLFLOW, 16): [driven(20, 0.1, 1.0), driven(10, 0.1, 1.0)],
    }

    p50, rate, against, growth = serving.targets(taken, [10.0] * 8 + [11.0] * 8)

    assert (p50.value, p50.limit, p50.ok) == (pytest.approx((1.1 + 1.2) / 2), 1.2, True)
    assert (rate.value, rate.limit, rate.ok) == (pytest.approx((0.8 + 0.9) / 2), 0.85, True)
    assert (against.value, against.ok) == (pytest.approx((4.0 + 4.5) / 2), True)
    assert (growth.limit, growth.ok) == (5.0, True)


def test_a_detector_is_asked_by_as_many_threads_as_there_are_clients_but_not_more_than_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    seen: list[tuple[int, bytes]] = []

    def detector(picture: bytes) -> None:
        seen.append((threading.get_ident(), picture))

    pictures: Any = [b"a", b"b", b"c"]
    alone = serving.in_process(detector, pictures, n_clients=1, n_requests=6)  # type: ignore[arg-type]
    assert len({thread for thread, _ in seen}) == 1
    assert [picture for _, picture in seen[-6:]] == [b"a", b"b", b"c", b"a", b"b", b"c"]
    assert len(alone.latency_s) == 6

    monkeypatch.setattr(serving, "_cores", lambda: 3)
    started = threading.Barrier(3)
    serving.in_process(lambda _: started.wait(5), pictures, n_clients=16, n_requests=3)  # type: ignore[arg-type]


def test_arms_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def ask(name: str) -> serving.Ask:
        return lambda n: order.append((name, n)) or driven(n, 0.1, float(len(order)))  # type: ignore[func-returns-value]

    taken = serving.ask_in_turns({name: ask(name) for name in ("a", "b")}, 2)

    assert order[:6] == [("b", 1), ("a", 1), ("b", 4), ("a", 4), ("b", 16), ("a", 16)]
    assert order[6:8] == [("a", 1), ("b", 1)]
    assert {key: len(rounds) for key, rounds in taken.items()} == {(name, n): 2 for name in "ab" for n in (1, 4, 16)}
    assert taken["a", 1][0].wall_s == 7.0
