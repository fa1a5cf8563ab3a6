"""A study on disk: what a start finds there after anything has happened to the one before."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.studies.study import Study, Trial, default_name, open_study, wait_until_free

TRIALS = [Trial(f"freeze-{n}_seed-0", f"freeze={n} seed=0", {"freeze": n, "seed": 0}, {"n": n}) for n in (0, 10)]
CONFIG = {"model": "m", "epochs": 2, "freeze": ("0", "10")}


def opened(
    output: Path, config: Mapping[str, object] = CONFIG, *, workers: int = 1
) -> contextlib.AbstractContextManager[Study]:
    return open_study(output, "s", config=config, trials=TRIALS, workers=workers)


def finish(attempt: Path, status: str = "finished") -> None:
    (attempt / "result.json").write_text(json.dumps({"status": status}))


def test_a_new_study_writes_its_question_once(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        state = json.loads((tmp_path / "s" / "study.json").read_text())
        assert (state["name"], state["uid"], state["threads"]) == ("s", study.uid, study.threads)
        assert state["config"] == {"model": "m", "epochs": 2, "freeze": ["0", "10"]}
        assert study.pending() == TRIALS


def test_the_same_question_resumes_under_the_same_uid_with_the_same_threads(tmp_path: Path) -> None:
    with opened(tmp_path, workers=1) as study:
        uid, threads = study.uid, study.threads
    before = (tmp_path / "s" / "study.json").read_bytes()
    with opened(tmp_path, workers=64) as study:
        assert (study.uid, study.threads) == (uid, threads)
    assert (tmp_path / "s" / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "earlier", "now"),
    [
        ({"epochs": 3}, "epochs=2", "not 3"),
        ({"extra": 1}, "extra=None", "not 1"),
        ({"model": None}, "model=m", "not None"),
    ],
)
def test_a_different_question_under_the_same_name_is_refused_with_both_values(
    tmp_path: Path, changed: dict[str, object], earlier: str, now: str
) -> None:
    with opened(tmp_path):
        pass
    with (
        pytest.raises(ArgumentError, match=f"study s was started with {earlier}, {now}"),
        opened(tmp_path, CONFIG | changed),
    ):
        pytest.fail("the study was opened")
    with opened(tmp_path) as study:  # the refusal neither changed it nor holds it
        assert len(study.trials) == 2


@pytest.mark.slow  # a held lock is waited for five seconds
def test_a_study_that_another_process_runs_is_refused(tmp_path: Path) -> None:
    program = """
import sys
from collections.abc import Mapping
from pathlib import Path
from mlflow_yolo.studies.study import open_study
with open_study(Path(sys.argv[1]), "s", config={}, trials=[], workers=1):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ArgumentError, match="study s is being run by another process"), opened(tmp_path, {}):
            pytest.fail("the study was opened")
        other.communicate()
    with opened(tmp_path, {}) as study:
        assert study.name == "s"


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(ArgumentError, match=rf"output={tmp_path / 'file'} cannot be written.*--output"),
        opened(tmp_path / "file"),
    ):
        pytest.fail("the study was opened")


def test_output_may_be_relative_and_does_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(Path("runs")) as study:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert study.directory == tmp_path / "runs" / "s"


def test_a_trial_is_finished_exactly_when_an_attempt_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        first, second = TRIALS
        attempts = [study.new_attempt(first, {}).parent for _ in range(3)]
        assert study.result(first) is None
        finish(attempts[0], "failed")
        assert study.pending() == [first, second]
        finish(attempts[2])
        assert study.result(first) == (attempts[2], {"status": "finished"})
        assert study.pending() == [second]


def test_attempts_count_up_in_the_order_of_numbers(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        for _ in range(11):
            study.new_attempt(TRIALS[0], {})
        assert [path.name for path in study.attempts(TRIALS[0])] == [f"attempt-{n}" for n in range(1, 12)]
        assert study.attempts(TRIALS[1]) == []


def test_a_job_file_holds_plan_params_run_and_a_fresh_uid(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        jobs = [json.loads(study.new_attempt(TRIALS[1], {"name": "x"}).read_text()) for _ in range(2)]

    assert jobs[0]["plan"] == {"n": 10}
    assert jobs[0]["params"] == {"freeze": 10, "seed": 0}
    assert jobs[0]["shared"] == str(tmp_path / "s" / "shared")
    assert jobs[0]["run"]["name"] == "x"
    assert jobs[0]["run"]["uid"] != jobs[1]["run"]["uid"]


def test_threads_share_the_processors_and_are_never_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for workers, threads in ((1, 8), (3, 2), (64, 1)):
        with open_study(tmp_path, f"w{workers}", config={}, trials=[], workers=workers) as study:
            assert study.threads == threads


def test_the_default_name_is_stable_and_follows_the_question() -> None:
    name = default_name("freeze", {"a": 1, "b": [2, 3]})

    assert name == default_name("freeze", {"b": [2, 3], "a": 1}) == default_name("freeze", {"a": 1, "b": (2, 3)})
    assert name.removeprefix("freeze-").isalnum()
    assert int(name.removeprefix("freeze-"), 16) < 16**8
    assert len(name) == len("freeze-") + 8
    assert name != default_name("freeze", {"a": 1, "b": [2, 4]})


def test_waiting_ends_when_the_worker_is_gone_and_gives_up_when_it_stays(tmp_path: Path) -> None:
    answers = iter([True, False])
    wait_until_free(tmp_path, is_owned=lambda _: next(answers))

    with pytest.raises(WorkError, match=str(tmp_path)):
        wait_until_free(tmp_path, is_owned=lambda _: True, timeout_s=0.0)
