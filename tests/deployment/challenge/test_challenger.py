import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.deployment.challenge.challenger import (
    Challenger,
    Wish,
    challenger_uri,
    champion_of,
    rolling_back,
    with_challenger,
)
from mlflow_yolo.deployment.challenge.watch import Verdict
from mlflow_yolo.deployment.inference.opening import open_backend
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.registry import champions, history
from tests.deployment.stand_ins import StandIn, loaded
from tests.deployment.tiny_variants import picture, tiny_variant

URI = "models:/cells@champion-cpu"


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Return what a condition says as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (said := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return said


def test_nothing_asked_for_is_nothing_added() -> None:
    backend = StandIn()
    assert with_challenger(backend, "some/folder") is backend


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(shadow="a", canary="b"), "one of them"),
        (Wish(shadow="challenger-cpu", percent=101), "percent=101"),
        (Wish(shadow="two words"), "two words"),
        (Wish(shadow="latest"), "latest"),
        (Wish(rollback_on="speed=3"), "speed"),
        (Wish(rollback_on="errors=0.1", rollback_after=0), "rollback_after=0"),
        (Wish(rollback_on="agreement=0.9"), "shadow"),
        (Wish(canary="challenger-cpu", rollback_on="agreement=0.9"), "shadow"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(wish: Wish, said: str) -> None:
    threads = threading.active_count()
    with pytest.raises(ArgumentError, match=said):
        with_challenger(
            StandIn(),
            URI,
            shadow=wish.shadow,
            canary=wish.canary,
            percent=wish.percent,
            rollback_on=wish.rollback_on,
            rollback_after=wish.rollback_after,
        )
    assert threading.active_count() == threads


@pytest.mark.parametrize("uri", ["some/folder", "models:/cells/7", "models:/cells@best", "models:/cells@champion-"])
def test_only_a_targets_champion_can_be_rolled_back(uri: str) -> None:
    with pytest.raises(ArgumentError, match="champion-<target>"):
        Wish(rollback_on="errors=0.1").check(uri)


def test_a_targets_name_may_have_dashes() -> None:
    assert champion_of("models:/cells@champion-cpu-x86") == ("cells", "cpu-x86")


def test_a_challenger_is_an_alias_of_the_same_model_or_any_uri() -> None:
    assert challenger_uri(URI, "challenger-cpu") == "models:/cells@challenger-cpu"
    assert challenger_uri("models:/cells/7", "challenger-cpu") == "models:/cells@challenger-cpu"
    assert challenger_uri("some/folder", "models:/other/3") == "models:/other/3"
    with pytest.raises(ArgumentError, match="challenger-cpu is an alias"):
        challenger_uri("some/folder", "challenger-cpu")


def test_a_challenger_that_cannot_be_opened_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    def open_one() -> StandIn:
        attempts.append(1)
        if len(attempts) < 3:
            raise CheckpointError("there is none yet")
        return StandIn(loaded("8"))

    challenger = Challenger(open_one, label="models:/cells@challenger-cpu", retry_s=0.01)
    beside = challenger.beside(StandIn(loaded("7")))
    assert until(beside).status().serving.version == "8"
    assert caplog.text.count("there is none yet") == 1
    challenger.close(1.0)


def test_a_challenger_with_the_champions_bytes_is_none() -> None:
    challenger = Challenger(lambda: StandIn(loaded("8")), label="", retry_s=1)
    assert until(challenger.beside(StandIn(loaded("7"))))
    assert challenger.beside(StandIn(loaded("8")))() is None
    challenger.close(1.0)


def test_a_challenger_that_is_never_found_can_be_closed() -> None:
    def open_one() -> StandIn:
        raise ArgumentError("no such alias")

    challenger = Challenger(open_one, label="", retry_s=3600)
    began = time.monotonic()
    challenger.close(30.0)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_two_real_engines_side_by_side_are_recorded(kind: str, tmp_path: Path, store: str, monkeypatch: Any) -> None:
    champion = tiny_variant(tmp_path / "champion")
    other = tiny_variant(tmp_path / "challenger", side=6)  # smaller boxes: IoU 36/64 = .5625, which counts as a match
    monkeypatch.setattr("mlflow_yolo.deployment.challenge.challenger.challenger_uri", lambda uri, name: str(other))
    backend = with_challenger(
        open_backend(str(champion), workers=1),
        str(champion),
        percent=50,
        tracking_uri=store,
        experiment="Default",
        directory=tmp_path / "serving",
        poll_s=0.05,
        **{kind: "models:/cells@challenger-cpu"},
    )
    image = picture((0, 0, "red"), (2, 3, "blue"))

    def recorded() -> bool:
        widths = {float(box[2] - box[0]) for box in backend.submit(image).result(10).detections.boxes}
        return kind == "shadow" or widths == {6.0}

    assert until(lambda: backend._challenger._backend)  # type: ignore[attr-defined]
    assert sum(recorded() for _ in range(4)) >= 2
    assert until(lambda: len(backend._comparison._tally) == (2 if kind == "shadow" else 4))  # type: ignore[attr-defined]
    backend.close(5.0)
    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs(["0"])
    assert run.data.metrics[f"{kind}/challenger/requests"] == 2
    assert run.data.metrics.get("shadow/agreement", 1.0) == 1.0
    assert run.data.tags["mlflow.note.content"]
    client._tracking_client.store.engine.dispose()


def test_a_rollback_moves_the_alias_once_and_the_history_says_why(store: str, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=store)
    history.create_model(client, "cells")
    for version, expected in (("1", ""), ("2", "1")):
        client.create_model_version("cells", source=str(tmp_path))
        champions.crown(client, "cells", version=version, target="cpu", expected=expected, by="anna")
    verdict = Verdict(loaded("1"), loaded("2"), ("p95 20.0 ms (p95_ms=15)",), {})
    take_back = rolling_back(URI, store)
    for _ in range(2):  # the second time another version is champion, which is left alone
        take_back(verdict)
        assert str(client.get_model_version_by_alias("cells", "champion-cpu").version) == "1"
    entries = history.read_history(client, "cells").entries
    assert [(entry.action, entry.by) for entry in entries][2:] == [(history.ROLL_BACK, "mlflow-yolo serve")]
    assert entries[-1].reason == "automatic, after version 2: p95 20.0 ms (p95_ms=15)"
    client._tracking_client.store.engine.dispose()
