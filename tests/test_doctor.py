import os
import signal
import sqlite3
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mlflow_yolo import doctor as checks
from mlflow_yolo import keys
from mlflow_yolo.doctor import Finding, doctor
from mlflow_yolo.tracking.run import open_run

DIES_WHILE_TRACKING = """
import os, signal, sys
from pathlib import Path
from mlflow_yolo.tracking.run import open_run
run = open_run(Path("runs/child"), tracking_uri=sys.argv[1], run_id=sys.argv[2] or None, recover=False)
run.log_metrics({"loss": 1.0}, step=1)
run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def die_while_tracking(store: str, repository: Path, *, adopted: str = "") -> None:
    """Leave a run behind as `kill -9` does: RUNNING in the store, its journal below runs/ without an end."""
    command = [sys.executable, "-c", DIES_WHILE_TRACKING, store, adopted]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_a_finding_prints_status_subject_detail_and_remedy() -> None:
    assert str(Finding("ok", "Python", "3.11.7")) == "ok    Python       3.11.7"
    assert str(Finding("fail", "torch", "gone", "Run: make install")) == "fail  torch        gone. Run: make install"


@pytest.mark.parametrize(("version", "status"), [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
def test_python_3_11_is_the_oldest_that_passes(version: tuple[int, ...], status: str) -> None:
    finding = checks.check_python(version)
    assert finding.status == status
    assert finding.detail.startswith(".".join(map(str, version)))


def test_installed_packages_pass_with_their_versions() -> None:
    findings = list(checks.check_packages(["mlflow", "torch"], loaded=["json"]))
    assert [(f.status, f.subject) for f in findings] == [("ok", "mlflow"), ("ok", "torch")]
    assert findings[0].detail.startswith("3.")


def test_a_package_that_is_not_installed_fails_and_says_how_to_install_it() -> None:
    (finding,) = checks.check_packages(["no-such-package"], loaded=[])
    assert finding == Finding("fail", "no-such-package", "not installed", "Run: make install")


def test_a_package_outside_our_bounds_is_a_warning_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda _: ["mlflow<4,>=3.17", "x; extra == 'test'"])
    monkeypatch.setattr(checks.importlib.metadata, "version", lambda _: "2.9.0")
    (finding,) = checks.check_packages(["mlflow"], loaded=[])
    assert finding.status == "warn"
    assert "2.9.0 is outside <4,>=3.17" in finding.detail


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("bad magic number", "make clean install"),
    ],
)
def test_a_library_that_does_not_load_fails_with_the_remedy_for_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, remedy: str
) -> None:
    (tmp_path / "unloadable.py").write_text(f"raise ImportError({error!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = checks.check_packages([], loaded=["unloadable"])
    assert finding.status == "fail"
    assert error in finding.detail
    assert remedy in finding.remedy


def test_the_device_is_the_gpu_where_torch_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    gpu = types.SimpleNamespace(name="Some GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    assert checks.check_device() == Finding("ok", "device", "Some GPU (8 GiB), Some GPU (8 GiB)")


@pytest.mark.parametrize(("driver", "status"), [(None, "ok"), ("/usr/bin/nvidia-smi", "warn")])
def test_a_cpu_passes_unless_there_is_a_driver_that_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, status: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(checks.shutil, "which", lambda _: driver)
    finding = checks.check_device()
    assert finding.status == status
    assert finding.detail.startswith("CPU, ")


def test_a_store_that_does_not_exist_passes_and_is_only_made_with_init(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert checks.check_tracking_store(uri).status == "ok"
    assert not (tmp_path / "mlflow.db").exists()
    assert checks.check_tracking_store(uri, init=True).status == "ok"
    assert (tmp_path / "mlflow.db").exists()


def test_a_half_migrated_store_fails_and_fix_puts_a_whole_one_in_its_place(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    connection.close()
    os.utime(database, (1, 1))  # nobody is working on it any more
    uri = f"sqlite:///{database}"
    broken = checks.check_tracking_store(uri)
    assert broken.status == "fail"
    assert "--fix" in broken.detail
    assert checks.check_tracking_store(uri, fix=True).status == "ok"
    assert checks.check_tracking_store(uri).status == "ok"
    assert len(list(tmp_path.glob("mlflow.db.half-migrated-*"))) == 1


def test_a_silent_server_is_a_warning_and_its_runs_are_not_asked_for(tmp_path: Path) -> None:
    findings = by_subject(doctor(tmp_path / "runs", tracking_uri="http://127.0.0.1:9"))
    assert findings["store"].status == "warn"
    assert "does not answer" in findings["store"].detail
    assert "runs" not in findings


def test_nothing_is_pending_or_stale_on_a_fresh_machine(tmp_path: Path, store: str) -> None:
    findings = by_subject(doctor(tmp_path / "runs", tracking_uri=store))
    assert {findings[subject].status for subject in ("Python", "mlflow", "store", "journals", "runs")} == {"ok"}


def test_the_run_of_a_killed_process_is_named_and_fix_closes_it_as_interrupted(store: str, repository: Path) -> None:
    from mlflow import MlflowClient

    die_while_tracking(store, repository)
    client = MlflowClient(store)
    (left,) = client.search_runs(["0"])
    assert left.info.status == "RUNNING"

    found = by_subject(doctor(Path("runs"), tracking_uri=store))
    assert found["journals"].status == "warn"
    assert "replay runs" in found["journals"].remedy
    assert found["runs"].status == "warn"
    assert left.info.run_id in found["runs"].detail

    fixed = by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))
    assert (fixed["journals"].status, fixed["runs"].status) == ("ok", "ok")
    (closed,) = client.search_runs(["0"])
    assert closed.info.status == "KILLED"
    assert closed.data.tags[keys.TAG_STATE] == "interrupted"
    assert closed.data.metrics == {"loss": 1.0}
    assert by_subject(doctor(Path("runs"), tracking_uri=store))["runs"].detail == "none is stale, 0 running"


def test_fix_closes_both_runs_that_were_killed_one_after_the_other_in_one_directory(
    store: str, repository: Path
) -> None:
    from mlflow import MlflowClient

    for _ in range(2):
        die_while_tracking(store, repository)
    assert len(list(Path("runs/child").rglob("journal.jsonl"))) == 2
    found = by_subject(doctor(Path("runs"), tracking_uri=store))
    assert found["journals"].detail.startswith("2 runs below runs")
    assert found["runs"].detail.startswith("2 runs shown as RUNNING")

    fixed = by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))
    assert fixed["journals"].detail == "2 runs sent, 2 of them closed as interrupted"
    assert fixed["runs"].status == "ok"
    runs = MlflowClient(store).search_runs(["0"])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("KILLED", {"loss": 1.0})] * 2


def test_fix_leaves_the_living_run_alone_in_whose_directory_an_earlier_one_was_killed(
    store: str, repository: Path
) -> None:
    from mlflow import MlflowClient

    die_while_tracking(store, repository)
    alive = open_run(Path("runs/child"), tracking_uri=store, recover=False)
    alive.flush()
    fixed = by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))
    assert fixed["journals"].detail == "1 run sent, 1 of them closed as interrupted"
    assert fixed["runs"].detail == "none is stale, 1 running"
    runs = {run.info.run_id: run.info.status for run in MlflowClient(store).search_runs(["0"])}
    assert sorted(runs.values()) == ["KILLED", "RUNNING"]
    assert runs[str(alive.run_id)] == "RUNNING"
    alive.close()


def test_fix_also_closes_a_run_that_a_killed_process_had_adopted(store: str, repository: Path) -> None:
    """`mlflow run` killed together with its child never closes the run it opened."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    die_while_tracking(store, repository, adopted=run_id)
    fixed = by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))
    assert "1 run of dead processes closed" in fixed["runs"].detail
    assert client.get_run(run_id).info.status == "KILLED"


def test_fix_closes_an_adopted_run_that_an_earlier_training_had_left_to_its_owner(store: str, repository: Path) -> None:
    """Two journals, one run: it carries the uid of the first, whose process ended well; the second was killed."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    assert open_run(Path("runs/first"), tracking_uri=store, run_id=run_id).close().n_pending == 0
    die_while_tracking(store, repository, adopted=run_id)
    doctor(Path("runs"), tracking_uri=store, fix=True)
    assert client.get_run(run_id).info.status == "KILLED"


def test_a_living_run_is_not_stale_and_an_adopted_one_that_we_ended_is_left_to_its_owner(store: str) -> None:
    from mlflow import MlflowClient

    from mlflow_yolo.tracking.run import open_run

    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    run = open_run(Path("runs/alive"), tracking_uri=store, run_id=run_id)
    run.flush()
    assert by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))["runs"].detail == "none is stale, 1 running"
    run.close()
    assert by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))["runs"].detail == "none is stale, 1 running"
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_run_that_may_be_running_on_another_machine_is_named_but_never_closed(store: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = client.create_run("0", tags={keys.TAG_UID: "elsewhere"}).info.run_id
    client.create_run("0")  # not one of ours
    finding = by_subject(doctor(Path("runs"), tracking_uri=store, fix=True))["runs"]
    assert finding.status == "warn"
    assert finding.detail == f"1 run RUNNING without a journal below runs: {run_id}"
    assert client.get_run(run_id).info.status == "RUNNING"
