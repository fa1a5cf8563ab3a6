"""The storage of a study's trials: what a kill, a full disk or a second driver does to it. PostgreSQL is real."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import optuna
import pytest
import sqlalchemy
from optuna.storages.journal import _storage as storages

from benchmarks import postgres
from mlflow_yolo.exceptions import ArgumentError, StoreError, WorkError
from mlflow_yolo.studies.tuning.storage import JOURNAL, mend, open_storage, resolve_storage

URL = "postgresql://ann:s3cret@db.example:5433/studies"


@pytest.fixture(scope="module")
def server() -> Iterator[str | None]:
    if postgres.missing_part():
        yield None
        return
    with postgres.cluster() as url:
        yield url


@pytest.fixture
def database(server: str | None, missing: Callable[[str, str], NoReturn]) -> str:
    """Return the URL of a PostgreSQL database that all tests of this file share."""
    if server is None:
        missing("PostgreSQL with psycopg2", postgres.missing_part())
    return server


def study_in(storage: optuna.storages.BaseStorage, name: str = "s") -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def add_trials(study: optuna.Study, n: int) -> None:
    for _ in range(n):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


def test_without_a_url_the_trials_are_in_the_studys_folder_and_found_again(tmp_path: Path) -> None:
    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 2)

    with open_storage("auto", tmp_path, "s") as storage:
        assert [trial.state.name for trial in study_in(storage).trials] == ["COMPLETE", "COMPLETE"]
    assert (tmp_path / JOURNAL).is_file()


def test_the_url_comes_from_the_argument_else_from_the_environment() -> None:
    assert resolve_storage(None, {}) is None
    assert resolve_storage(None, {"MLFLOW_YOLO_STORAGE": URL}) == URL
    assert resolve_storage("postgresql+psycopg2://h/d", {"MLFLOW_YOLO_STORAGE": URL}) == "postgresql+psycopg2://h/d"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///studies.db", "two workers"),
        ("mysql://ann:s3cret@db/x", "no PostgreSQL URL"),
        ("studies.db", "no PostgreSQL URL"),
    ],
)
def test_another_storage_is_refused_in_one_line_without_its_password(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=says) as caught, open_storage(url, tmp_path, "s"):
        pass
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://ann:s3cret@127.0.0.1:1/studies", StoreError),  # nobody listens there
        ("postgresql://ann:s3cret@127.0.0.1:s3cret/studies", ArgumentError),
        ("postgresql+nonsense://ann:s3cret@127.0.0.1/studies", ArgumentError),
    ],
)
def test_an_unusable_database_is_one_line_without_its_password(
    url: str, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error, match="storage=postgresql") as caught, open_storage(url, tmp_path, "s"):
        pass
    assert "s3cret" not in str(caught.value).replace("127.0.0.1:s3cret", "")
    assert "\n" not in str(caught.value)


def test_a_missing_driver_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)

    with pytest.raises(StoreError, match=r"mlflow-yolo\[postgresql\]"), open_storage(URL, tmp_path, "s"):
        pass


@pytest.mark.parametrize("torn", [b'{"op_code":6,"tri', b"\0\0\0\0\0\0", b'{"op_code":6}', b"\0\0\n", b'"x\n"y'])
def test_half_a_last_line_costs_no_trial(torn: bytes, tmp_path: Path) -> None:
    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 2)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)

    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 1)
    with open_storage(None, tmp_path, "s") as storage:
        assert [trial.state.name for trial in study_in(storage).trials] == ["COMPLETE"] * 3


def test_a_journal_cut_at_any_byte_can_be_read_and_continued(tmp_path: Path) -> None:
    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 2)
    whole = (tmp_path / JOURNAL).read_bytes()

    for length in range(0, len(whole), 7):
        (tmp_path / JOURNAL).write_bytes(whole[:length])
        with open_storage(None, tmp_path, "s") as storage:
            n_whole_lines = whole[:length].count(b"\n")
            assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == n_whole_lines
            add_trials(study_in(storage), 1)


def test_damage_before_the_last_line_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    file.write_bytes(b'{"op_code":0}\n{"op_co\n{"op_code":1}\n')

    with pytest.raises(StoreError, match="line 2"):
        mend(file)
    assert file.read_bytes().count(b"\n") == 3


def test_the_lock_of_a_killed_driver_does_not_hold_up_the_next(tmp_path: Path) -> None:
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    start = time.monotonic()

    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 1)
    assert time.monotonic() - start < 15  # Optuna waits 30 s


def test_a_full_disk_is_an_error_and_leaves_a_journal_that_can_be_continued(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
import optuna
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.studies.tuning.storage import JOURNAL, open_storage
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_storage(None, folder, "s") as storage:
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    study.tell(study.ask(), 1.0)
    trial = study.ask()
    size = (folder / JOURNAL).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
    try:
        study.tell(trial, 2.0)
    except WorkError as error:
        print(error)
    assert (folder / JOURNAL).stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    study.tell(trial, 3.0)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "cannot be written: File too large" in done.stdout
    with open_storage(None, tmp_path, "s") as storage:
        assert [trial.value for trial in study_in(storage).trials] == [1.0, 3.0]


def test_a_database_keeps_the_trials(database: str, tmp_path: Path) -> None:
    with open_storage(database, tmp_path, "kept") as storage:
        add_trials(study_in(storage, "kept"), 2)

    with open_storage(database.replace("+psycopg2", ""), tmp_path / "elsewhere", "kept") as storage:
        assert len(study_in(storage, "kept").trials) == 2
    assert not (tmp_path / JOURNAL).exists()


def test_a_database_of_another_program_is_refused_and_left_as_it_is(database: str, tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE mlflow")
    engine.dispose()
    url = f"{database.rpartition('/')[0]}/mlflow"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        with pytest.raises(StoreError, match="CREATE DATABASE studies"), open_storage(url, tmp_path, "s"):
            pass
        assert sqlalchemy.inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_one_driver_at_a_time_runs_a_study_of_a_database(database: str, tmp_path: Path) -> None:
    with open_storage(database, tmp_path, "one"):
        with pytest.raises(ArgumentError, match="study one is being run"), open_storage(database, tmp_path, "one"):
            pass
        with open_storage(database, tmp_path, "another"):
            pass
    with open_storage(database, tmp_path, "one"):
        pass


def test_a_killed_driver_frees_its_study(database: str, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from mlflow_yolo.studies.tuning.storage import open_storage
with open_storage(sys.argv[1], Path(), "killed"):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, database], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        driver.kill()

    with open_storage(database, tmp_path, "killed"):
        pass


def break_connections(database: str) -> None:
    """End every connection to a database but the one that does it, as a restart of the server would."""
    engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'mlflow_yolo'"
        )
    engine.dispose()


def test_after_a_break_the_study_goes_on_and_is_still_held(database: str, tmp_path: Path) -> None:
    with open_storage(database, tmp_path, "broken") as storage:
        study = study_in(storage, "broken")
        add_trials(study, 1)
        break_connections(database)
        add_trials(study, 1)

        assert len(study.trials) == 2
        with pytest.raises(ArgumentError, match="being run"), open_storage(database, tmp_path, "broken"):
            pass


def test_a_driver_that_lost_its_study_to_another_stops(database: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as first, open_storage(database, tmp_path, "lost") as storage:
        study = study_in(storage, "lost")
        break_connections(database)
        second = first.enter_context(open_storage(database, tmp_path, "lost"))

        with pytest.raises(ArgumentError, match="being run"):
            add_trials(study, 1)
        assert study_in(second, "lost").trials == []


@pytest.mark.usefixtures("database")  # skips where there is no PostgreSQL
def test_a_database_that_goes_away_is_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    def lose_the_server() -> None:
        with (
            contextlib.ExitStack() as server,
            open_storage(server.enter_context(postgres.cluster()), tmp_path, "gone") as storage,
        ):
            study = study_in(storage, "gone")
            server.close()
            add_trials(study, 1)

    with pytest.raises(WorkError, match="it continues the study") as caught:
        lose_the_server()
    assert "\n" not in str(caught.value)


def test_the_password_reaches_the_server_and_nobody_else(database: str, tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE ann LOGIN PASSWORD 'pa@{0}/ss'")
        connection.exec_driver_sql("GRANT ALL ON SCHEMA public TO ann")
        connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
    engine.dispose()
    address = sqlalchemy.make_url(database).set(username="ann", password="pa@{0}/ss")
    url = address.render_as_string(hide_password=False)

    with open_storage(url, tmp_path, "ann") as storage:
        assert storage.url == url
        assert storage.engine.url.password == "pa@{0}/ss"
    assert not any("pa@" in str(path) for path in tmp_path.rglob("*"))


def test_optuna_itself_reads_and_continues_the_journal(tmp_path: Path) -> None:
    with open_storage(None, tmp_path, "s") as storage:
        add_trials(study_in(storage), 1)

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    add_trials(study, 1)
    with open_storage(None, tmp_path, "s") as storage:
        assert [trial.state.name for trial in study_in(storage).trials] == ["COMPLETE", "COMPLETE"]


def test_the_disk_is_waited_for_when_a_trial_begins_and_ends_but_not_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        synced.append((tmp_path / JOURNAL).read_text().splitlines()[-1])

    with open_storage(None, tmp_path, "s") as storage:
        study = study_in(storage)
        monkeypatch.setattr(os, "fsync", watched)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.5, 0)
        trial.set_user_attr("a", 1)
        study.tell(trial, 1.0)

    operations = [json.loads(line)["op_code"] for line in synced]
    assert operations == [storages.JournalOperation.CREATE_TRIAL, storages.JournalOperation.SET_TRIAL_STATE_VALUES]
