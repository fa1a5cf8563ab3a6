from functools import partial

import pytest

from benchmarks.turns import take_turns


def test_order_turns_around_from_round_to_round_after_a_warm_up_that_does_not_count() -> None:
    done: list[str] = []

    times = take_turns({name: partial(done.append, name) for name in "ab"}, 2)

    assert "".join(done) == "ba" + "ab" + "ba"
    assert [len(times[name].wall_s) for name in "ab"] == [2, 2]
    assert [len(times[name].cpu_s) for name in "ab"] == [2, 2]


def test_without_warm_up_every_call_counts() -> None:
    done: list[str] = []

    times = take_turns({"a": partial(done.append, "a")}, 3, warm_up=False)

    assert (len(done), len(times["a"].wall_s)) == (3, 3)


@pytest.mark.parametrize("warm_up", [True, False])
def test_nothing_to_do_and_no_round_take_no_time(warm_up: bool) -> None:
    assert take_turns({}, 3, warm_up=warm_up) == {}
    assert take_turns({"a": list}, 0, warm_up=warm_up)["a"].wall_s == ()


def test_a_device_is_waited_for_before_and_after_each_piece_of_work() -> None:
    done: list[str] = []

    take_turns({"a": partial(done.append, "a")}, 1, warm_up=False, wait=partial(done.append, "wait"))

    assert done == ["wait", "a", "wait"]


def test_time_is_that_of_the_work_and_of_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def spend(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("benchmarks.turns.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("benchmarks.turns.time.process_time", lambda: clock[0] / 2)

    times = take_turns({"a": partial(spend, 3.0), "b": partial(spend, 5.0)}, 2)

    assert (times["a"].wall_s, times["a"].cpu_s) == ((3.0, 3.0), (1.5, 1.5))
    assert times["b"].wall_s == (5.0, 5.0)
