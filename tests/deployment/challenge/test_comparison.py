import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.deployment.challenge.comparison import Comparison, run_opener, summary
from mlflow_yolo.deployment.challenge.outcomes import Call, Outcome, Tally
from mlflow_yolo.deployment.challenge.trials import record_trial
from mlflow_yolo.deployment.challenge.watch import RollbackLimits, Verdict
from mlflow_yolo.detection.agreement import Agreement
from tests.deployment.stand_ins import loaded

CHAMPION, CHALLENGER = loaded("7"), loaded("8")
PAIR = Outcome(Call(CHAMPION, 4.0), Call(CHALLENGER, 8.0), Agreement(0.5, 2, 2, 1))


class Run:
    """Keeps what is logged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.params: dict[str, Any] = {}
        self.tags: dict[str, Any] = {}
        self.status = "RUNNING"

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0) -> None:
        self.metrics.append((step, dict(values)))

    def log_params(self, values: Mapping[str, Any]) -> None:
        self.params |= values

    def set_tags(self, values: Mapping[str, Any]) -> None:
        self.tags |= values

    def close(self, status: str = "FINISHED", *, timeout_s: float = 30.0) -> None:
        self.status = status


class Runs(list[Run]):
    """Opens runs, and may fail to."""

    fails = False

    def open(self, name: str) -> Run:
        if self.fails:
            raise OSError("no space left")
        self.append(Run(name))
        return self[-1]


def test_a_pair_of_versions_gets_one_run_with_its_summary() -> None:
    runs = Runs()
    comparison = Comparison("shadow", runs.open, params={"percent": 10})
    for _ in range(3):
        comparison.add(PAIR)
    comparison.dropped()
    comparison.close()
    (run,) = runs
    assert (run.name, run.status, run.params) == ("shadow cells 7 and cells 8", "FINISHED", {"percent": 10})
    assert run.tags["champion.version"] == "cells 7"
    assert run.tags["challenger.sha256"] == CHALLENGER.sha256
    step, values = run.metrics[-1]
    assert (step, values["shadow/agreement"], values["shadow/pairs"], values["shadow/dropped"]) == (3, 0.5, 3, 1)
    assert (values["shadow/champion/latency_ms_p95"], values["shadow/challenger/latency_ms_p95"]) == (4.0, 8.0)
    assert "0.500 (F1, 3 images)" in run.tags[keys.TAG_NOTE]


def test_another_version_on_either_side_begins_another_run() -> None:
    runs = Runs()
    comparison = Comparison("shadow", runs.open, params={})
    comparison.add(PAIR)
    comparison.add(Outcome(Call(CHAMPION, 4.0), Call(loaded("9"), 8.0), Agreement(1.0, 0, 0, 0)))
    comparison.add(Outcome(Call(loaded("9"), 4.0), Call(loaded("7"), None)))
    comparison.close()
    assert [run.name for run in runs] == [
        "shadow cells 7 and cells 8",
        "shadow cells 7 and cells 9",
        "shadow cells 9 and cells 7",
    ]
    assert [run.status for run in runs] == ["FINISHED"] * 3
    assert [run.metrics[-1][1]["shadow/champion/requests"] for run in runs] == [1, 1, 1]
    assert "shadow/agreement" not in runs[2].metrics[-1][1]


def test_a_canary_whose_sides_come_one_at_a_time_is_one_run_and_counts_what_came_before_it() -> None:
    runs = Runs()
    comparison = Comparison("canary", runs.open, params={})
    for call in (CHAMPION, CHAMPION, CHAMPION):
        comparison.add(Outcome(champion=Call(call, 4.0)))
    comparison.add(Outcome(challenger=Call(CHALLENGER, None)))
    comparison.add(Outcome(champion=Call(CHAMPION, 4.0)))
    comparison.close()
    (run,) = runs
    values = run.metrics[-1][1]
    assert (values["canary/champion/requests"], values["canary/challenger/failed"]) == (4, 1)


def test_without_a_challenger_there_is_no_run() -> None:
    runs = Runs()
    comparison = Comparison("shadow", runs.open, params={})
    comparison.add(Outcome(champion=Call(CHAMPION, None)))
    comparison.close()
    assert runs == []


def test_values_are_written_while_it_goes_on() -> None:
    runs = Runs()
    comparison = Comparison("shadow", runs.open, params={}, every_s=0.02)
    comparison.add(PAIR)
    deadline = time.monotonic() + 10
    while not (runs and runs[0].metrics) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (runs[0].metrics[0][0], runs[0].status) == (1, "RUNNING")
    comparison.close()


def test_a_run_that_cannot_be_opened_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs()
    runs.fails = True
    comparison = Comparison("shadow", runs.open, params={})
    comparison.add(PAIR)
    comparison.close()
    assert runs == []
    assert "no space left" in caplog.text


def test_the_summary_says_who_how_often_how_fast() -> None:
    tally = Tally()
    tally.add(PAIR)
    tally.add(Outcome(Call(CHAMPION, 4.0), Call(CHALLENGER, None)))
    tally.n_dropped = 5
    text = summary("shadow", CHAMPION, CHALLENGER, tally)
    assert "| champion | cells 7 | 2 | 0 | 4 | 4 |" in text
    assert "| challenger | cells 8 | 2 | 1 | 8 | 8 |" in text
    assert "5 more were not compared" in text


def test_a_local_variant_is_named_with_its_digest() -> None:
    text = summary("canary", loaded(None, name="int8-onnx", sha256="0123456789abcdef"), None, Tally())
    assert "| champion | int8-onnx 01234567 | 0 | 0 | — | — |" in text
    assert "| challenger | — |" in text


def test_runs_arrive_in_the_store_and_what_a_dead_server_misses_stays_on_disk(
    tmp_path: Path, store: str, dead_server: str
) -> None:
    for uri in (store, dead_server):
        opener = run_opener(tmp_path / "serving", tracking_uri=uri, experiment="Default")
        comparison = Comparison("shadow", opener, params={"percent": 10})
        comparison.add(PAIR)
        comparison.close()
    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.metrics["shadow/agreement"]) == ("FINISHED", 0.5)
    assert run.data.tags["mlflow_yolo.deployment"] == "shadow"
    folders = sorted((tmp_path / "serving").iterdir())
    assert len(folders) == 2
    assert any("shadow/agreement" in file.read_text() for file in (tmp_path / "serving").rglob("journal.jsonl"))
    client._tracking_client.store.engine.dispose()


@pytest.mark.parametrize(("violations", "verdict"), [((), "passed"), (("p95 20.0 ms (p95_ms=15)",), "rolled back")])
def test_a_trial_is_a_run_of_its_own(violations: tuple[str, ...], verdict: str) -> None:
    runs = Runs()
    figures = {"old/requests": 40, "new/requests": 40}
    record_trial(Verdict(CHAMPION, CHALLENGER, violations, figures), RollbackLimits(p95_ms=15.0), runs.open)
    (run,) = runs
    assert (run.name, run.status, run.tags["verdict"]) == ("trial cells 8", "FINISHED", verdict)
    assert run.params == {"limit.p95_ms": 15.0, "limit.n_requests": 200}
    assert run.metrics[0][1] == {
        "trial/old/requests": 40,
        "trial/new/requests": 40,
        "trial/violations": len(violations),
    }
    assert all(violation in run.tags[keys.TAG_NOTE] for violation in violations)


@pytest.fixture
def dead_server() -> str:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
