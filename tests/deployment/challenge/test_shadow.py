import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlflow_yolo.deployment.challenge.outcomes import Outcome
from mlflow_yolo.deployment.challenge.shadow import Shadow
from mlflow_yolo.deployment.inference.backend import Options
from mlflow_yolo.exceptions import ArgumentError, WorkError
from tests.deployment.stand_ins import IMAGE, Held, StandIn, answer, failing, found, loaded


class Heard:
    """Outcomes and drops, for which a test can wait."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.n_dropped = 0
        self._came = threading.Semaphore(0)

    def listen(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._came.release()

    def drop(self) -> None:
        self.n_dropped += 1

    def wait(self, n: int) -> list[Outcome]:
        for _ in range(n):
            assert self._came.acquire(timeout=10)
        return self.outcomes


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def shadowed(heard: Heard) -> Iterator[Callable[..., Shadow]]:
    made: list[Shadow] = []

    def make(champion: Any, challenger: Any, percent: float = 100, **given: Any) -> Shadow:
        shadow = Shadow(champion, lambda: challenger, percent, listeners=[heard.listen], dropped=heard.drop, **given)
        made.append(shadow)
        return shadow

    yield make
    for shadow in made:
        shadow.close(5.0)


def test_the_answer_is_the_champions_and_comes_before_the_challenger_has_one(
    shadowed: Callable[..., Shadow], heard: Heard
) -> None:
    challenger = Held(loaded("8"))
    shadow = shadowed(StandIn(loaded("7")), challenger)
    assert shadow.submit(IMAGE).result(timeout=0).model.version == "7"
    assert challenger.came.acquire(timeout=10)
    assert heard.outcomes == []
    challenger.answer_next()
    assert heard.wait(1)[0].challenger is not None


def test_a_share_is_mirrored_with_image_and_options(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    challenger = StandIn(loaded("8"))
    shadow = shadowed(StandIn(), challenger, 50)
    for n in range(4):
        shadow.submit(f"image {n}".encode(), Options(conf=0.1 * (n + 1)))
    heard.wait(2)
    assert challenger.asked == [(b"image 1", Options(conf=0.2)), (b"image 3", Options(conf=0.4))]


def test_both_latencies_and_the_agreement_are_told(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    # one of two boxes matches: F1 = 2·1 / (2 + 1)
    mine = answer(loaded("7"), found((0, 0, 10, 10, 0), (50, 50, 60, 60, 1)), ms=4.0)
    theirs = answer(loaded("8"), found((0, 0, 10, 10, 0)), ms=9.0)
    shadowed(StandIn(answers=lambda _: mine), StandIn(answers=lambda _: theirs)).submit(IMAGE)
    (outcome,) = heard.wait(1)
    assert (outcome.champion.latency_ms, outcome.challenger.latency_ms) == (4.0, 9.0)
    assert outcome.agreement.f1 == pytest.approx(2 / 3)


def test_what_comes_while_the_challenger_is_busy_is_dropped_and_counted(
    shadowed: Callable[..., Shadow], heard: Heard
) -> None:
    challenger = Held(loaded("8"))
    shadow = shadowed(StandIn(), challenger, max_waiting=2)
    shadow.submit(IMAGE)
    assert challenger.came.acquire(timeout=10)  # one is being mirrored, two may wait
    answered = [shadow.submit(IMAGE).result(timeout=0) for _ in range(5)]
    assert (len(answered), heard.n_dropped) == (5, 3)
    challenger.answer_next()
    for _ in range(2):
        assert challenger.came.acquire(timeout=10)
        challenger.answer_next()
    assert len(heard.wait(3)) == 3


def test_a_challenger_that_refuses_is_a_drop_and_no_failure(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    dropped = threading.Event()
    shadow = Shadow(StandIn(), lambda: StandIn(busy=True), 100, listeners=[heard.listen], dropped=dropped.set)
    shadow.submit(IMAGE)
    assert dropped.wait(10)
    shadow.close(5.0)
    assert heard.outcomes == []


@pytest.mark.parametrize("error", [WorkError("broken"), RuntimeError("odd"), ArgumentError("other channels")])
def test_a_challenger_that_fails_is_counted_and_the_next_one_mirrored(
    shadowed: Callable[..., Shadow], heard: Heard, error: Exception
) -> None:
    shadow = shadowed(StandIn(loaded("7")), StandIn(loaded("8"), failing(error)))
    shadow.submit(IMAGE)
    shadow.submit(IMAGE)
    told = heard.wait(2)
    assert [(one.challenger.model.version, one.challenger.failed, one.agreement) for one in told] == [
        ("8", True, None)
    ] * 2


def test_a_champion_that_fails_is_counted_and_not_mirrored(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    challenger = StandIn(loaded("8"))
    future = shadowed(StandIn(answers=failing(WorkError("broken"))), challenger).submit(IMAGE)
    with pytest.raises(WorkError, match="broken"):
        future.result()
    assert heard.wait(1)[0].champion.failed
    assert challenger.asked == []


def test_a_bad_image_is_not_mirrored(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    challenger = StandIn(loaded("8"))
    shadow = shadowed(StandIn(answers=failing(ArgumentError("no image"))), challenger)
    with pytest.raises(ArgumentError):
        shadow.submit(IMAGE).result()
    shadow.close(5.0)
    assert (challenger.asked, heard.outcomes) == ([], [])


def test_without_a_challenger_nothing_is_mirrored(shadowed: Callable[..., Shadow], heard: Heard) -> None:
    shadow = shadowed(StandIn(), None)
    assert shadow.submit(IMAGE).result(timeout=0)
    shadow.close(5.0)
    assert (heard.outcomes, heard.n_dropped) == ([], 0)


def test_a_listener_that_fails_does_not_end_the_mirroring(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    def listen(outcome: Outcome) -> None:
        heard.listen(outcome)
        raise RuntimeError("no more paper")

    shadow = Shadow(StandIn(), lambda: StandIn(loaded("8")), 100, listeners=[listen])
    shadow.submit(IMAGE)
    shadow.submit(IMAGE)
    assert len(heard.wait(2)) == 2
    shadow.close(5.0)
    assert "no more paper" in caplog.text


def test_closing_ends_the_thread_though_requests_wait(heard: Heard) -> None:
    challenger, champion = Held(loaded("8")), StandIn()
    shadow = Shadow(champion, lambda: challenger, 100, listeners=[heard.listen], max_waiting=1)
    shadow.submit(IMAGE)
    assert challenger.came.acquire(timeout=10)
    shadow.submit(IMAGE)
    ending = threading.Thread(target=shadow.close, args=(10.0,))
    ending.start()
    while champion.closed_with is None:
        ending.join(timeout=0.01)
    challenger.answer_next()
    ending.join(timeout=10)
    assert not ending.is_alive()
    assert champion.closed_with == 10.0
    assert len(challenger.asked) == 1
