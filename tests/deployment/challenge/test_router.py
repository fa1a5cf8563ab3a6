import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_yolo.deployment.challenge.outcomes import Outcome
from mlflow_yolo.deployment.challenge.router import Router, Share
from mlflow_yolo.deployment.inference.backend import Busy, Options, TooLate
from mlflow_yolo.exceptions import ArgumentError, WorkError
from tests.deployment.stand_ins import IMAGE, Held, StandIn, answer, failing, loaded


@pytest.mark.parametrize("percent", [0, 0.5, 10, 33.3, 50, 66.7, 99, 100])
def test_a_share_is_kept_at_every_moment(percent: float) -> None:
    share, taken = Share(percent), 0
    for n in range(1, 1001):
        taken += share.takes()
        assert taken == math.floor(n * round(percent * 10) / 1000)


def test_a_share_is_kept_among_many_threads() -> None:
    share = Share(30)
    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(lambda _: share.takes(), range(1000)))
    assert taken == 300


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan"), float("inf")])
def test_a_share_outside_of_0_to_100_is_refused(percent: float) -> None:
    with pytest.raises(ArgumentError, match="percent="):
        Share(percent)


def test_the_challenger_answers_its_share_and_the_answer_names_it() -> None:
    champion, challenger = StandIn(loaded("7")), StandIn(loaded("8"))
    router = Router(champion, lambda: challenger, 25)
    versions = [router.submit(IMAGE).result().model.version for _ in range(8)]
    assert versions == ["7", "7", "7", "8", "7", "7", "7", "8"]


def test_options_reach_the_challenger() -> None:
    challenger = StandIn()
    Router(StandIn(), lambda: challenger, 100).submit(IMAGE, Options(conf=0.3))
    assert challenger.asked == [(IMAGE, Options(conf=0.3))]


def test_without_a_challenger_the_champion_answers_everything() -> None:
    champion = StandIn()
    router = Router(champion, lambda: None, 100)
    assert router.submit(IMAGE).result().model.version == "7"
    assert len(champion.asked) == 1


def test_where_the_challenger_fails_the_champion_answers_and_the_failure_is_told() -> None:
    challenger = StandIn(loaded("8"), failing(WorkError("broken")))
    told: list[Outcome] = []
    router = Router(StandIn(loaded("7")), lambda: challenger, 100, listeners=[told.append])
    assert router.submit(IMAGE).result().model.version == "7"
    sides = [(one.challenger and one.challenger.failed, one.champion and one.champion.failed) for one in told]
    assert sides == [(True, None), (None, False)]


def test_where_the_challenger_is_busy_the_champion_answers() -> None:
    router = Router(StandIn(loaded("7")), lambda: StandIn(loaded("8"), busy=True), 100)
    assert router.submit(IMAGE).result().model.version == "7"


def test_where_both_are_busy_the_caller_is_told_at_once() -> None:
    with pytest.raises(Busy):
        Router(StandIn(busy=True), lambda: StandIn(busy=True), 100).submit(IMAGE)


def test_where_the_challenger_fails_and_the_champion_is_busy_the_future_says_so() -> None:
    router = Router(StandIn(busy=True), lambda: StandIn(answers=failing(WorkError("broken"))), 100)
    with pytest.raises(Busy):
        router.submit(IMAGE).result()


def test_a_bad_image_is_the_callers_fault_and_asked_of_nobody_else() -> None:
    champion, told = StandIn(), []
    challenger = StandIn(answers=failing(ArgumentError("no image")))
    with pytest.raises(ArgumentError, match="no image"):
        Router(champion, lambda: challenger, 100, listeners=[told.append]).submit(IMAGE).result()
    assert (champion.asked, told) == ([], [])


def test_a_request_that_came_too_late_is_not_computed_again() -> None:
    champion = StandIn()
    router = Router(champion, lambda: StandIn(answers=failing(TooLate("late"))), 100)
    with pytest.raises(TooLate):
        router.submit(IMAGE).result()
    assert champion.asked == []


def test_a_request_that_nobody_waits_for_any_more_is_passed_over() -> None:
    challenger, told = Held(), []
    future = Router(StandIn(), lambda: challenger, 100, listeners=[told.append]).submit(IMAGE)
    assert future.cancel()
    challenger.answer_next()
    assert future.cancelled()


def test_every_outcome_is_told_with_its_latency_for_one_image() -> None:
    told: list[Outcome] = []
    champion = StandIn(answers=lambda _: answer(loaded("7"), ms=12.0, batch=3))
    challenger = StandIn(answers=lambda _: answer(loaded("8"), ms=5.0))
    router = Router(champion, lambda: challenger, 50, listeners=[told.append])
    for _ in range(4):
        router.submit(IMAGE).result()
    calls = [call for one in told for call in (one.champion, one.challenger) if call]
    assert Counter((call.model.version, call.latency_ms) for call in calls) == {("7", 4.0): 2, ("8", 5.0): 2}


def test_it_is_as_the_champion_is_and_closes_it() -> None:
    champion, challenger = StandIn(loaded("7")), StandIn(loaded("8"))
    router = Router(champion, lambda: challenger, 50)
    assert router.status().serving.version == "7"
    router.close(3.0)
    assert (champion.closed_with, challenger.closed_with) == (3.0, None)
