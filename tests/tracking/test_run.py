"""A tracked run against a real store: values arrive once, as they were, whatever happens on the way."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from mlflow_yolo import keys
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.metric_values import METRIC_NONFINITE, as_float
from mlflow_yolo.tracking.delivery.ownership import is_owned
from mlflow_yolo.tracking.delivery.replay import find_journals, replay
from mlflow_yolo.tracking.run import TrackedRun, read_run_file

Open = Callable[..., TrackedRun]
# MLflow's UI finds grid images by this name: key, step, time and an id, apart by "+".
GRID_NAME = re.compile(r"^images/([\w.\- ~]+)\+step\+(\d+)\+timestamp\+(\d+)\+[0-9a-f-]{36}(\+compressed\.webp|\.png)$")


def stored(client: MlflowClient, run: TrackedRun) -> Run:
    assert run.run_id is not None
    return client.get_run(run.run_id)


def history(client: MlflowClient, run: TrackedRun, key: str) -> list[tuple[int, int, float]]:
    assert run.run_id is not None
    return [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.run_id, key)]


def artifacts(client: MlflowClient, run: TrackedRun, folder: str | None = None) -> list[str]:
    assert run.run_id is not None
    return [file.path for file in client.list_artifacts(run.run_id, folder)]


def test_values_arrive_once_with_their_own_times(open_tracked: Open, client: MlflowClient) -> None:
    run = open_tracked()
    for step in range(3):
        run.log_metrics({"train/box_loss": step / 2}, step=step, timestamp_ms=1000 + step)
    run.flush()
    run.log_metrics({"train/box_loss": 9}, step=3, timestamp_ms=1003)
    assert run.close().n_pending == 0
    assert history(client, run, "train/box_loss") == [(0, 1000, 0.0), (1, 1001, 0.5), (2, 1002, 1.0), (3, 1003, 9.0)]


def test_a_new_run_says_what_it_is(open_tracked: Open, client: MlflowClient, tmp_path: Path) -> None:
    run = open_tracked(experiment="bccd", name="freeze=0", study="depth", tags={"a": "b"})
    assert run.run_id is None
    run.close()
    found = stored(client, run)
    assert found.info.run_name == "freeze=0"
    assert client.get_experiment(found.info.experiment_id).name == "bccd"
    assert found.data.tags[keys.TAG_UID] == run.uid
    assert found.data.tags[keys.TAG_STUDY] == "depth"
    assert found.data.tags["a"] == "b"
    assert found.data.tags["mlflow.source.type"] == "LOCAL"
    assert found.info.artifact_uri.startswith(str(tmp_path / "mlruns" / "bccd"))
    file = read_run_file(tmp_path / "run")
    assert file is not None
    assert (file.uid, file.run_id, file.study, file.experiment) == (run.uid, run.run_id, "depth", "bccd")


def test_opening_and_logging_ask_no_server(tmp_path: Path) -> None:
    from mlflow_yolo.tracking.run import open_run

    asked: list[str] = []

    def refuse(uri: str) -> MlflowClient:
        asked.append(uri)
        raise AssertionError("no client is needed yet")

    run = open_run(tmp_path / "run", tracking_uri="http://h:1", client_factory=refuse, probe=lambda uri: False)
    run.log_metrics({"a": 1})
    delivery = run.close(timeout_s=5.0)
    assert asked == []
    assert delivery.n_pending == 3
    assert "http://h:1 does not answer" in delivery.reason


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_status_is_what_close_says(open_tracked: Open, client: MlflowClient, status: str) -> None:
    run = open_tracked()
    before = int(time.time() * 1000)
    run.close(status, state="pruned" if status == "KILLED" else None)
    found = stored(client, run)
    assert found.info.status == status
    assert before <= found.info.end_time <= time.time() * 1000
    assert found.data.tags.get(keys.TAG_STATE) == ("pruned" if status == "KILLED" else None)


def test_closing_twice_and_logging_afterwards_change_nothing(open_tracked: Open, client: MlflowClient) -> None:
    run = open_tracked()
    first = run.close("FAILED")
    assert run.close("FINISHED") is first
    run.log_metrics({"late": 1})
    run.log_params({"late": 1})
    assert stored(client, run).info.status == "FAILED"


def test_an_adopted_run_keeps_its_tags_and_stays_open(open_tracked: Open, client: MlflowClient) -> None:
    theirs = client.create_run("0", tags={"mlflow.user": "them"}, run_name="theirs")
    run = open_tracked(run_id=theirs.info.run_id, tags={"mine": "1"})
    run.log_metrics({"a": 1})
    assert run.close().n_pending == 0
    found = client.get_run(theirs.info.run_id)
    assert found.info.status == "RUNNING"
    assert found.data.metrics == {"a": 1.0}
    assert found.data.tags["mlflow.user"] == "them"
    assert found.data.tags["mine"] == "1"
    assert found.data.tags[keys.TAG_UID] == run.uid
    assert len(client.search_runs(["0"])) == 1


def test_an_adopted_run_is_closed_where_that_is_asked(open_tracked: Open, client: MlflowClient) -> None:
    theirs = client.create_run("0")
    open_tracked(run_id=theirs.info.run_id).close("FAILED", close_adopted=True)
    assert client.get_run(theirs.info.run_id).info.status == "FAILED"


def test_a_child_waits_for_its_parent(open_tracked: Open, client: MlflowClient) -> None:
    parent_uid = "0123456789abcdef0123456789abcdef"
    child = open_tracked("child", parent_uid=parent_uid)
    child.log_metrics({"a": 1})
    waiting = child.flush()
    assert waiting.n_pending == 2
    assert parent_uid in waiting.reason
    parent = open_tracked("parent", uid=parent_uid)
    parent.close()
    assert child.close().n_pending == 0
    assert stored(client, child).data.tags["mlflow.parentRunId"] == parent.run_id
    assert stored(client, child).data.metrics == {"a": 1.0}


def test_a_resumed_run_is_the_same_run_and_runs_again(open_tracked: Open, client: MlflowClient) -> None:
    first = open_tracked()
    first.log_metrics({"a": 1}, step=1)
    first.close("KILLED", state="interrupted")
    second = open_tracked(uid=first.uid)
    second.log_metrics({"a": 2}, step=2)
    second.flush()
    assert stored(client, second).info.status == "RUNNING"
    assert keys.TAG_STATE not in stored(client, second).data.tags
    second.close()
    assert second.run_id == first.run_id
    assert [value for _, _, value in history(client, second, "a")] == [1.0, 2.0]
    assert stored(client, second).info.status == "FINISHED"
    assert len(client.search_runs(["0"])) == 1


def test_a_new_run_in_a_used_directory_leaves_the_earlier_journal_to_replay(
    open_tracked: Open, client: MlflowClient, dead_uri: str, store: str, tmp_path: Path
) -> None:
    first = open_tracked(tracking_uri=dead_uri)
    first.log_metrics({"a": 1})
    first.close(timeout_s=5.0)
    second = open_tracked()
    second.log_metrics({"b": 2})
    second.close()
    assert stored(client, second).data.metrics == {"b": 2.0}
    assert len(find_journals(tmp_path)) == 2
    assert replay(tmp_path, tracking_uri=store).n_pending == 0
    assert {tuple(run.data.metrics.items()) for run in client.search_runs(["0"])} == {(("a", 1.0),), (("b", 2.0),)}


def test_two_runs_cannot_write_in_one_directory(open_tracked: Open, tmp_path: Path) -> None:
    from mlflow_yolo.tracking.delivery.ownership import claim

    open_tracked()
    assert is_owned(tmp_path / "run")
    with pytest.raises(WorkError, match=re.escape(str(tmp_path / "run"))):
        claim(journal_path(tmp_path / "run"), timeout_s=0)


def test_a_directory_is_free_after_close(open_tracked: Open, tmp_path: Path) -> None:
    assert not is_owned(tmp_path / "run")
    open_tracked().close()
    deadline = time.monotonic() + 2.0
    while is_owned(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_owned(tmp_path / "run")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.array([2.0]), 2.0),
        ("3", 3.0),
        (None, None),
        ("x", None),
        ([1, 2], None),
    ],
)
def test_a_number_is_made_of_what_is_one(value: Any, number: float | None) -> None:
    assert as_float(value) == number


def test_values_that_are_no_finite_numbers_are_counted_and_break_nothing(
    open_tracked: Open, client: MlflowClient
) -> None:
    run = open_tracked()
    run.log_metrics({"a": math.nan, "b": math.inf, "c": "no", "d": np.float64(1), "e(B)": 2}, step=4)
    assert run.close().n_rejected == 0
    found = stored(client, run).data.metrics
    assert math.isnan(found["a"])
    assert found["b"] > 1e308
    assert "c" not in found
    assert (found["d"], found["eB"], found[METRIC_NONFINITE]) == (1.0, 2.0, 2.0)


def test_a_conflicting_param_costs_only_itself(open_tracked: Open, client: MlflowClient) -> None:
    theirs = client.create_run("0")
    client.log_param(theirs.info.run_id, "lr0", "0.01")
    run = open_tracked(run_id=theirs.info.run_id)
    run.log_params({"lr0": 0.5, "freeze": 10})
    run.log_params({"seed": 1, "freeze": 11})
    delivery = run.close()
    found = client.get_run(theirs.info.run_id)
    assert found.data.params == {"lr0": "0.01", "freeze": "10", "seed": "1"}
    assert (delivery.n_pending, delivery.n_rejected) == (0, 2)
    assert "lr0" in delivery.reason
    assert "lr0" in found.data.tags["mlflow_yolo.rejected"]


def test_an_entry_the_store_refuses_costs_only_itself(open_tracked: Open, client: MlflowClient, broken: Any) -> None:
    def refuse_one(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
        if name == "log_batch" and any(m.key == "bad" for m in kwargs.get("metrics", ())):
            return MlflowException.invalid_parameter_value("bad is bad")
        return None

    run = open_tracked(client_factory=lambda uri: broken(client, refuse_one))
    run.log_metrics({"a": 1, "bad": 2, "b": 3})
    run.log_params({"p": 1})
    delivery = run.close()
    assert stored(client, run).data.metrics == {"a": 1.0, "b": 3.0}
    assert stored(client, run).data.params == {"p": "1"}
    assert (delivery.n_pending, delivery.n_rejected) == (0, 1)
    assert "bad is bad" in delivery.reason


def test_an_outage_delays_and_loses_nothing(open_tracked: Open, client: MlflowClient, broken: Any) -> None:
    down = True

    def outage(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
        return ConnectionError("cable pulled at http://ann:s3@h") if down and name == "log_batch" else None

    run = open_tracked(client_factory=lambda uri: broken(client, outage))
    run.log_metrics({"a": 1}, timestamp_ms=5)
    during = run.flush()
    assert during.n_pending == 1
    assert "cable pulled" in during.reason
    assert "s3" not in during.reason
    down = False
    assert run.close().n_pending == 0
    assert history(client, run, "a") == [(0, 5, 1.0)]


def test_a_server_that_dies_within_a_request_does_not_hold_up_the_end(
    open_tracked: Open, client: MlflowClient, broken: Any, tmp_path: Path
) -> None:
    hanging, back = threading.Event(), threading.Event()

    def hang(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "log_batch" and not back.is_set():
            hanging.set()
            back.wait(60)

    run = open_tracked(client_factory=lambda uri: broken(client, hang), probe=lambda uri: not hanging.is_set())
    run.log_metrics({"a": 1})
    delivery = run.close(timeout_s=60)
    assert "does not answer" in delivery.reason  # and not: not in time
    assert delivery.n_pending == 2
    back.set()
    deadline = time.monotonic() + 10
    while is_owned(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored(client, run).info.status == "FINISHED"
    assert stored(client, run).data.metrics == {"a": 1.0}


def test_a_failing_artifact_store_holds_back_files_only(open_tracked: Open, client: MlflowClient, broken: Any) -> None:
    def no_credentials(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
        return PermissionError("no credentials") if name == "log_artifact" else None

    run = open_tracked(client_factory=lambda uri: broken(client, no_credentials))
    run.log_text("x", "a.txt")
    run.log_metrics({"a": 1})
    delivery = run.close()
    assert delivery.n_pending == 1
    assert "no credentials" in delivery.reason
    assert stored(client, run).data.metrics == {"a": 1.0}
    assert stored(client, run).info.status == "FINISHED"


def test_a_killed_request_is_sent_again_without_doubling(open_tracked: Open, client: MlflowClient, broken: Any) -> None:
    answers_lost = 2

    def lose_answer(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
        nonlocal answers_lost
        if name in ("create_run", "log_batch") and answers_lost:
            answers_lost -= 1
            getattr(client, name)(*args, **kwargs)
            return ConnectionError("answer lost")
        return None

    run = open_tracked(client_factory=lambda uri: broken(client, lose_answer))
    run.log_metrics({"a": 1}, timestamp_ms=5)
    run.flush()
    assert run.close().n_pending == 0
    assert len(client.search_runs(["0"])) == 1
    assert history(client, run, "a") == [(0, 5, 1.0)]


def test_a_run_deleted_at_the_server_is_named(open_tracked: Open, client: MlflowClient) -> None:
    run = open_tracked()
    run.flush()
    assert run.run_id is not None
    client.delete_run(run.run_id)
    run.log_metrics({"a": 1})
    delivery = run.close()
    assert delivery.n_pending == 2
    assert f"run {run.run_id} was deleted" in delivery.reason


def test_a_full_disk_loses_nothing_where_the_server_answers(
    open_tracked: Open, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "run" / "mlflow_yolo").mkdir(parents=True)
    journal_path(tmp_path / "run").symlink_to("/dev/full")
    run = open_tracked(name="full")
    run.log_metrics({"a": 1}, step=2)
    run.log_params({"p": 1})
    assert run.close().n_pending == 0
    found = stored(client, run)
    assert (found.data.metrics, found.data.params, found.info.status) == ({"a": 1.0}, {"p": "1"}, "FINISHED")


def test_a_full_disk_and_a_dead_server_are_said_once_at_the_end(
    open_tracked: Open, tmp_path: Path, dead_uri: str
) -> None:
    (tmp_path / "run" / "mlflow_yolo").mkdir(parents=True)
    journal_path(tmp_path / "run").symlink_to("/dev/full")
    run = open_tracked(tracking_uri=dead_uri)
    run.log_metrics({"a": 1})
    delivery = run.close(timeout_s=5.0)
    assert delivery.n_pending == 3
    assert "does not answer" in delivery.reason
    assert "No space left" in delivery.reason


def test_images_lie_where_the_grid_looks_for_them(open_tracked: Open, client: MlflowClient) -> None:
    run = open_tracked()
    pixels = np.zeros((30, 600, 3), np.uint8)
    pixels[..., 0] = 255
    run.log_image("gradcam/000123", pixels, step=2)
    pixels[:] = 0  # the caller may reuse its array
    run.log_image("läng(e)" + "x" * 300, pixels[..., 0], step=3)
    assert run.close().reason == ""
    names = artifacts(client, run, "images")
    matches = [GRID_NAME.match(name) for name in names]
    assert len(names) == 4
    assert all(matches)
    assert {m[1] for m in matches if m} >= {"gradcam~000123"}
    assert stored(client, run).data.tags["mlflow.loggedImages"] == "true"
    png, webp = (next(n for n in names if n.startswith("images/gradcam") and n.endswith(e)) for e in ("png", "webp"))
    assert run.run_id is not None
    with Image.open(client.download_artifacts(run.run_id, png)) as full:
        assert full.size == (600, 30)
        assert full.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    with Image.open(client.download_artifacts(run.run_id, webp)) as preview:
        assert preview.size == (256, 13)


def test_an_image_file_may_be_given_and_a_broken_one_is_named(
    open_tracked: Open, client: MlflowClient, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"no image")
    run = open_tracked()
    run.log_image("good", tmp_path / "a.jpg", step=0)
    run.log_image("bad", tmp_path / "b.png", step=0)
    delivery = run.close()
    assert len(artifacts(client, run, "images")) == 2
    assert delivery.n_rejected == 1
    assert "b.png" in delivery.reason


def test_files_arrive_from_inside_and_outside_and_as_folders(
    open_tracked: Open, client: MlflowClient, tmp_path: Path
) -> None:
    run = open_tracked()
    (tmp_path / "run" / "weights").mkdir()
    (tmp_path / "run" / "weights" / "best.pt").write_text("w")
    (tmp_path / "outside.txt").write_text("o")
    run.log_file(tmp_path / "run" / "weights", "")
    run.log_file(tmp_path / "outside.txt", "data")
    (tmp_path / "outside.txt").unlink()
    run.log_text("<p>", "report/index.html")
    run.log_file(tmp_path / "missing.txt")
    delivery = run.close()
    assert artifacts(client, run, "weights") == ["weights/best.pt"]
    assert artifacts(client, run, "data") == ["data/outside.txt"]
    assert artifacts(client, run, "report") == ["report/index.html"]
    assert (delivery.n_pending, delivery.n_rejected) == (0, 1)
    assert "missing.txt" in delivery.reason


def test_an_artifact_name_does_not_lead_out_of_the_run(open_tracked: Open, tmp_path: Path) -> None:
    run = open_tracked()
    run.log_text("x", "../../escaped.txt")
    run.log_text("x", "/escaped.txt")
    run.close()
    assert list(tmp_path.rglob("escaped.txt")) == [tmp_path / "run" / "mlflow_yolo" / "files" / "escaped.txt"]


def test_a_dataset_is_an_input_once(open_tracked: Open, client: MlflowClient) -> None:
    run = open_tracked()
    for _ in range(2):
        run.log_dataset("bccd", "d" * 64, "data.yaml", {"train": 7}, "training")
    run.close()
    (entry,) = stored(client, run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("bccd", "d" * 36)
    assert json.loads(entry.dataset.profile) == {"train": 7}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_many_metrics_go_in_few_requests(open_tracked: Open, client: MlflowClient, broken: Any) -> None:
    sizes: list[int] = []

    def count(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "log_batch":
            sizes.append(len(kwargs.get("metrics", ())))

    run = open_tracked(client_factory=lambda uri: broken(client, count))
    for step in range(300):
        run.log_metrics({f"m{i}": step for i in range(5)}, step=step)
    run.close()
    assert sum(sizes) == 1500
    assert len(sizes) == 2


def test_the_password_is_used_but_nowhere_written(open_tracked: Open, tmp_path: Path) -> None:
    used: list[str] = []

    def refuse(uri: str) -> MlflowClient:
        used.append(uri)
        raise ConnectionError(f"no connection to {uri}")

    run = open_tracked(tracking_uri="http://ann:s3cret@h:1", client_factory=refuse, probe=lambda uri: True)
    delivery = run.close(timeout_s=5.0)
    assert used[0] == "http://ann:s3cret@h:1"
    assert "http://ann:***@h:1" in delivery.reason
    written = "".join(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert "s3cret" not in written
    assert "http://ann@h:1" in written


def test_the_environment_and_stdout_stay_as_they_were(open_tracked: Open, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    run = open_tracked(experiment="new")
    run.log_metrics({"a": 1})
    run.close()
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"
    }
    assert capfd.readouterr() == ("", "")


def test_the_random_numbers_of_the_training_stay_its_own(open_tracked: Open, client: MlflowClient) -> None:
    """MLflow draws names from the global generator, at a moment that depends on its thread; so does augmentation."""
    state = random.getstate()
    run = open_tracked(experiment="new")
    run.log_metrics({"a": 1})
    run.close()
    assert random.getstate() == state
    assert stored(client, run).info.run_name == f"run-{run.uid[:8]}"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts Python code in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_a_process_with_a_dead_server_ends_at_once_and_keeps_its_last_value(
    script: Any, tmp_path: Path, dead_uri: str
) -> None:
    process = script(f"""
        from pathlib import Path
        from mlflow_yolo.tracking.run import open_run
        run = open_run(Path({str(tmp_path / "run")!r}), tracking_uri={dead_uri!r})
        for i in range(50):
            run.log_metrics({{"a": i}}, step=i)
    """)
    assert process.wait(timeout=60) == 0  # MLflow alone would try for 244 s
    assert journal_path(tmp_path / "run").read_text().count('"metrics"') == 50


def test_what_a_killed_process_had_measured_is_replayed_and_its_run_closed(
    script: Any, tmp_path: Path, store: str, client: MlflowClient
) -> None:
    process = script(f"""
        import time
        from pathlib import Path
        from mlflow_yolo.tracking.run import open_run
        run = open_run(Path({str(tmp_path / "run")!r}), tracking_uri={store!r})
        for i in range(100_000):
            run.log_metrics({{"a": i}}, step=i)
            print(i, time.time(), flush=True)
            time.sleep(0.005)
    """)
    lines = [process.stdout.readline() for _ in range(300)]
    assert is_owned(tmp_path / "run")
    assert replay(tmp_path).n_owned == 1
    process.kill()
    killed_at = time.time()
    process.wait()
    assert not is_owned(tmp_path / "run")

    done = replay(tmp_path)
    assert (done.n_sent_runs, done.n_pending, done.n_interrupted, done.errors) == (1, 0, 1, ())
    (found,) = client.search_runs(["0"])
    assert found.info.status == "KILLED"
    assert found.data.tags[keys.TAG_STATE] == "interrupted"
    steps = [metric.step for metric in client.get_metric_history(found.info.run_id, "a")]
    measured = [(int(step), float(at)) for step, at in (line.split() for line in lines)]
    old_enough = [step for step, at in measured if at < killed_at - 1]
    assert steps == list(range(len(steps)))
    assert len(steps) > max(old_enough)

    assert replay(tmp_path).n_sent_runs == 0
    assert len(client.get_metric_history(found.info.run_id, "a")) == len(steps)


def test_mlflow_is_whole_before_any_thread_of_ours_runs(tmp_path: Path) -> None:
    """A background import would let the trainer's own `import mlflow` see a half-made module."""
    code = """
        import sys, threading
        from mlflow_yolo.tracking import run

        started = []
        start = threading.Thread.start

        def watched(thread):
            if thread.name.startswith("mlflow-yolo"):
                started.append("mlflow.tracking" in sys.modules)
            start(thread)

        threading.Thread.start = watched
        run.open_run(sys.argv[1], tracking_uri="http://127.0.0.1:9", probe=lambda uri: False).close()
        print(started)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "[True, True]\n"


def test_a_directory_deleted_under_an_open_run_costs_nothing(
    open_tracked: Open, client: MlflowClient, broken: Any, tmp_path: Path
) -> None:
    down = True

    def outage(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
        return ConnectionError("cable pulled") if down and name == "log_batch" else None

    run = open_tracked(client_factory=lambda uri: broken(client, outage))
    run.log_metrics({"a": 1}, step=1, timestamp_ms=1001)
    assert run.flush().n_pending > 0
    shutil.rmtree(tmp_path / "run")
    run.log_metrics({"a": 2}, step=2, timestamp_ms=1002)
    assert run.flush().n_pending > 0
    assert is_owned(tmp_path / "run")  # nobody may take it for dead
    down = False
    assert run.close().n_pending == 0
    assert history(client, run, "a") == [(1, 1001, 1.0), (2, 1002, 2.0)]
    assert stored(client, run).info.status == "FINISHED"
    assert len(client.search_runs(["0"])) == 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_began_where_another_one_was_deleted_gets_none_of_its_values(
    open_tracked: Open, client: MlflowClient, tmp_path: Path, *, ended: bool
) -> None:
    first = open_tracked()
    first.log_metrics({"a": 1}, step=1, timestamp_ms=1001)
    first.flush()
    shutil.rmtree(tmp_path / "run")
    second = open_tracked(recover=False)
    second.log_metrics({"b": 1}, step=1, timestamp_ms=1001)
    second.flush()
    if ended:
        second.close()
    first.log_metrics({"a": 2}, step=2, timestamp_ms=1002)
    assert "only in memory" in first.flush().reason
    assert first.close().n_pending == 0
    second.log_metrics({"b": 2}, step=2, timestamp_ms=1002)
    assert second.close().n_pending == 0
    assert history(client, first, "a") == [(1, 1001, 1.0), (2, 1002, 2.0)]
    assert history(client, second, "b") == [(1, 1001, 1.0), (2, 1002, 2.0)][: 1 if ended else 2]
    for run, key in ((first, "a"), (second, "b")):
        assert set(stored(client, run).data.metrics) == {key}
        assert stored(client, run).info.status == "FINISHED"
