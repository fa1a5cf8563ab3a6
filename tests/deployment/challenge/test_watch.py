import logging
import threading
from typing import Any

import pytest

from mlflow_yolo.deployment.challenge.outcomes import Call, Outcome
from mlflow_yolo.deployment.challenge.watch import RollbackLimits, Verdict, Watch, Watched, read_limits
from mlflow_yolo.deployment.inference.backend import Loaded
from mlflow_yolo.detection.agreement import Agreement
from mlflow_yolo.exceptions import ArgumentError, WorkError
from tests.deployment.stand_ins import IMAGE, StandIn, failing, loaded

OLD, NEW = loaded("7"), loaded("8")


class Trial:
    """A watch, and what it has done."""

    def __init__(self, text: str, *, n: int = 40, rollback: Any = None) -> None:
        self.rolled_back: list[Verdict] = []
        self.ended: list[Verdict] = []
        self._done = threading.Semaphore(0)
        self.watch = Watch(read_limits(text, n_requests=n), rollback or self.rolled_back.append, ended=self._end)

    def _end(self, verdict: Verdict) -> None:
        self.ended.append(verdict)
        self._done.release()

    def serve(self, model: Loaded, n: int = 1, *, ms: float | None = 10.0) -> None:
        for _ in range(n):
            self.watch.served(Call(model, ms))

    def wait(self) -> Verdict:
        assert self._done.acquire(timeout=10)
        return self.ended[-1]

    def n_ended(self) -> int:
        """Return how many trials have ended, once no thread is about to say so."""
        for thread in threading.enumerate():
            if thread.name == "rollback":
                thread.join(10)
        return len(self.ended)


def test_limits_are_read_from_words() -> None:
    assert read_limits(" errors=0.02, p95=1.5 ,p95_ms=40,agreement=0.9", n_requests=50) == RollbackLimits(
        errors=0.02, p95=1.5, p95_ms=40.0, agreement=0.9, n_requests=50
    )


_UNUSABLE = (
    "|speed=3|errors|errors=x|errors=1|errors=-0.1|errors=nan|p95=0|p95=inf|p95=nan|agreement=0|agreement=1.1|"
    "errors=0.1,errors=0.2"
)


@pytest.mark.parametrize("text", _UNUSABLE.split("|"))
def test_limits_that_say_nothing_or_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        read_limits(text)


def test_a_trial_without_requests_is_refused() -> None:
    with pytest.raises(ArgumentError, match="rollback_after=0"):
        read_limits("errors=0.1", n_requests=0)


def test_the_first_version_is_never_on_trial() -> None:
    trial = Trial("errors=0.02")
    trial.serve(OLD, 200, ms=None)
    assert (trial.n_ended(), trial.rolled_back) == (0, [])


def test_a_version_that_keeps_the_limits_passes_and_is_recorded() -> None:
    trial = Trial("errors=0.05,p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 39, ms=14.9)
    assert trial.n_ended() == 0
    trial.serve(NEW, 1, ms=14.9)
    verdict = trial.wait()
    assert (verdict.violations, trial.rolled_back) == ((), [])
    assert verdict.figures["old/latency_ms_p95"] == pytest.approx(10.0)
    assert verdict.figures["new/latency_ms_p95"] == pytest.approx(14.9)


def test_a_slower_version_is_rolled_back_once() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 60, ms=16.0)
    verdict = trial.wait()
    assert verdict.new.version == "8"
    assert "1.60 times" in verdict.reason
    assert "after version 8" in verdict.reason
    assert (trial.n_ended(), trial.rolled_back) == (1, [verdict])


def test_an_absolute_limit_needs_no_old_version_to_compare_with() -> None:
    trial = Trial("p95_ms=15")
    trial.serve(OLD, 1)
    trial.serve(NEW, 40, ms=16.0)
    assert trial.wait().violations == ("p95 16.0 ms (p95_ms=15)",)


def test_a_relative_limit_is_not_judged_by_a_handful_of_old_requests() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 19)
    trial.serve(NEW, 40, ms=1000.0)
    assert trial.wait().violations == ()


def test_failures_roll_back_as_soon_as_the_limit_is_lost_for_certain() -> None:
    # 5 % of 40 requests are 2: the third failure settles it
    trial = Trial("errors=0.05")
    trial.serve(OLD, 40)
    trial.serve(NEW, 5)
    trial.serve(NEW, 2, ms=None)
    assert trial.n_ended() == 0
    trial.serve(NEW, 1, ms=None)
    assert trial.wait().violations[0].startswith("3 of 8 requests failed")


def test_failures_that_the_old_version_had_as_often_are_not_held_against_the_new_one() -> None:
    trial = Trial("errors=0.05")
    for n in range(40):
        trial.serve(OLD, ms=None if n % 4 == 0 else 10.0)
    for n in range(40):
        trial.serve(NEW, ms=None if n % 4 == 0 else 10.0)
    assert trial.wait().violations == ()


def test_answers_of_the_old_version_that_come_late_change_nothing() -> None:
    trial = Trial("errors=0.05")
    trial.serve(OLD, 40)
    trial.serve(NEW, 5)
    trial.serve(OLD, 40, ms=None)
    trial.serve(NEW, 35)
    verdict = trial.wait()
    assert (verdict.new.version, verdict.violations, verdict.figures["new/requests"]) == ("8", (), 40)


def test_the_rollback_itself_is_not_on_trial() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 40, ms=100.0)
    trial.wait()
    again = loaded("7", loaded_at="2026-01-01T01:00")
    trial.serve(again, 200, ms=1000.0)
    trial.serve(NEW, 5, ms=None)  # late
    assert trial.n_ended() == 1


def test_a_rollback_to_a_version_that_never_passed_is_not_undone_either() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 10)
    trial.serve(loaded("9"), 40, ms=100.0)
    trial.wait()
    trial.serve(loaded("8", loaded_at="2026-01-01T01:00"), 100, ms=100.0)
    assert trial.n_ended() == 1


def test_after_a_rollback_the_next_version_is_on_trial_again() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 40, ms=100.0)
    trial.wait()
    trial.serve(loaded("7", loaded_at="2026-01-01T01:00"), 40)
    trial.serve(loaded("9"), 40, ms=100.0)
    assert trial.wait().new.version == "9"
    assert [one.new.version for one in trial.rolled_back] == ["8", "9"]


def test_the_same_version_promoted_once_more_is_tried_once_more() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 40, ms=100.0)
    trial.wait()
    trial.serve(loaded("7", loaded_at="2026-01-01T01:00"), 40)
    trial.serve(loaded("8", loaded_at="2026-01-01T02:00"), 40, ms=100.0)
    trial.wait()
    assert len(trial.rolled_back) == 2


def test_a_person_who_goes_back_to_a_version_that_served_well_is_not_overruled() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40, ms=100.0)
    trial.serve(NEW, 40, ms=10.0)
    assert trial.wait().violations == ()
    trial.serve(loaded("7", loaded_at="2026-01-01T01:00"), 100, ms=100.0)
    assert trial.n_ended() == 1


def test_a_version_that_comes_during_a_trial_is_measured_by_the_last_that_served_well() -> None:
    trial = Trial("p95=1.5")
    trial.serve(OLD, 40)
    trial.serve(NEW, 10, ms=100.0)
    trial.serve(loaded("9"), 40, ms=11.0)
    verdict = trial.wait()
    assert (verdict.old.version, verdict.new.version, verdict.violations) == ("7", "9", ())


def test_a_rollback_that_fails_is_said_and_the_next_version_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Verdict) -> None:
        raise WorkError("the registry does not answer")

    trial = Trial("p95=1.5", rollback=fail)
    trial.serve(OLD, 40)
    trial.serve(NEW, 40, ms=100.0)
    trial.wait()
    assert "the registry does not answer" in caplog.text
    trial.serve(loaded("9"), 40, ms=100.0)
    assert trial.wait().new.version == "9"


def test_a_rollback_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial("p95_ms=15")
    trial.serve(OLD)
    with caplog.at_level(logging.WARNING):
        trial.serve(NEW, 40, ms=20.0)
        trial.wait()
    assert "after version 8: p95 20.0 ms" in caplog.text


@pytest.mark.parametrize(("n_matched", "violated"), [(8, True), (9, False)])
def test_agreement_with_the_shadow_is_judged(n_matched: int, violated: bool) -> None:
    trial = Trial("agreement=0.9")
    trial.serve(OLD, 40)
    trial.serve(NEW, 20)
    for _ in range(20):
        trial.watch.compared(Outcome(Call(NEW, 1.0), Call(OLD, 1.0), Agreement(n_matched / 10, 10, 10, n_matched)))
    trial.serve(NEW, 20)
    assert bool(trial.wait().violations) is violated


def test_what_the_shadow_found_of_another_version_is_not_counted() -> None:
    trial = Trial("agreement=0.9")
    trial.serve(OLD, 40)
    trial.serve(NEW, 20)
    for _ in range(20):
        trial.watch.compared(Outcome(Call(OLD, 1.0), Call(NEW, 1.0), Agreement(0.0, 10, 10, 0)))
    trial.serve(NEW, 20)
    verdict = trial.wait()
    assert (verdict.violations, "agreement" in verdict.figures) == ((), False)


def test_a_backend_is_watched_with_its_failures_and_without_bad_images() -> None:
    seen: list[Call] = []

    class Listening:
        def served(self, call: Call) -> None:
            seen.append(call)

    backend = StandIn(OLD)
    watched = Watched(backend, Listening())  # type: ignore[arg-type]
    watched.submit(IMAGE).result()
    backend.answers = failing(WorkError("broken"))
    watched.submit(IMAGE)
    backend.answers = failing(ArgumentError("no image"))
    watched.submit(IMAGE)
    assert [(call.model.version, call.failed) for call in seen] == [("7", False), ("7", True)]
    watched.close(2.0)
    assert (backend.closed_with, watched.status().serving.version) == (2.0, "7")
