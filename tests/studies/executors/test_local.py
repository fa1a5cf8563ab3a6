"""Jobs in processes of their own: what they say arrives, and none outlives the driver. The workers are stand-ins."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from mlflow_yolo.studies.executors import Event, Job
from mlflow_yolo.studies.executors.local import SubprocessExecutor

Command = Callable[[str], list[str]]
# Ends with its driver, as the real worker does: `_die_with_driver` is the real one.
DYING = """
import sys, threading, time
from mlflow_yolo.training.worker import _die_with_driver
threading.Thread(target=_die_with_driver, daemon=True).start()
print('{"ready": 1}', flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Command:
    """Return the command of a worker that runs this program with the job file as its argument."""

    def command(program: str) -> list[str]:
        file = tmp_path / f"worker{len(list(tmp_path.glob('worker*')))}.py"
        file.write_text(textwrap.dedent(program))
        return [sys.executable, str(file)]

    return command


def jobs_in(folder: Path, names: Sequence[str]) -> list[Job]:
    return [Job(name, folder / f"{name}.json") for name in names]


def run(command: list[str], jobs: Sequence[Job], *, workers: int = 1, threads: int = 1) -> list[Event]:
    return list(
        SubprocessExecutor(workers=workers, threads=threads, command=command).run(partial(next, iter(jobs), None))
    )


def test_progress_and_exit_codes_belong_to_their_job(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import json, pathlib, sys
        name = pathlib.Path(sys.argv[1]).stem
        print(json.dumps({"epoch": 1, "name": name}), flush=True)
        print(json.dumps({"epoch": 2, "name": name}), flush=True)
        sys.exit({"good": 0, "bad": 3}[name])
    """)

    events = run(command, jobs_in(tmp_path, ["good", "bad"]), workers=2)

    for name, code in (("good", 0), ("bad", 3)):
        assert [event for event in events if event.key == name] == [
            Event(name, "progress", {"epoch": 1, "name": name}),
            Event(name, "progress", {"epoch": 2, "name": name}),
            Event(name, "ended", {"exit_code": code}),
        ]


def test_a_line_longer_than_a_pipe_arrives_whole(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import json
        print(json.dumps({"text": "x" * 300000}), flush=True)
    """)

    (first, _) = run(command, jobs_in(tmp_path, ["a"]))
    assert len(first.values["text"]) == 300000


def test_a_worker_killed_in_the_middle_of_a_line_ends_with_its_signal(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import os, signal
        os.write(1, b'{"epoch": 1}\\n{"epo')
        os.kill(os.getpid(), signal.SIGKILL)
    """)

    assert run(command, jobs_in(tmp_path, ["a"])) == [
        Event("a", "progress", {"epoch": 1}),
        Event("a", "ended", {"exit_code": -9}),
    ]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 2)])
def test_no_more_workers_run_at_once_than_allowed(worker: Command, tmp_path: Path, workers: int, most: int) -> None:
    command = worker("""
        import json, time
        start = time.time()
        time.sleep(0.15)
        print(json.dumps([start, time.time()]).join(['{"times": ', '}']), flush=True)
    """)

    events = run(command, jobs_in(tmp_path, ["a", "b", "c"]), workers=workers)
    times = [event.values["times"] for event in events if event.kind == "progress"]
    at_once = [sum(start <= t < end for start, end in times) for t, _ in times]
    assert len(times) == 3
    assert max(at_once) <= most


def test_jobs_start_in_their_order(worker: Command, tmp_path: Path) -> None:
    events = run(worker("pass"), jobs_in(tmp_path, ["c", "a", "b"]))

    assert [event.key for event in events] == ["c", "a", "b"]


def test_no_jobs_are_no_events(worker: Command) -> None:
    assert run(worker("pass"), []) == []


def test_workers_see_neither_the_drivers_run_nor_more_threads_than_theirs(
    worker: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrubbed = ["MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_RUN", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"]
    for name in scrubbed:
        monkeypatch.setenv(name, "the driver's")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "kept")
    command = worker("""
        import json, os
        print(json.dumps(dict(os.environ)), flush=True)
    """)

    seen = run(command, jobs_in(tmp_path, ["a"]), threads=3)[0].values
    assert [name for name in scrubbed if name in seen] == []
    assert (seen["MLFLOW_TRACKING_TOKEN"], seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"]) == ("kept", "3", "3")
    assert os.environ["MLFLOW_RUN_ID"] == "the driver's"


def test_stopping_early_asks_the_workers_to_end_and_waits_for_them(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import os, pathlib, signal, sys, time
        def leave(*_):
            pathlib.Path(sys.argv[1]).write_text("asked")
            sys.exit(130)
        signal.signal(signal.SIGTERM, leave)
        print('{"pid": %d}' % os.getpid(), flush=True)
        time.sleep(60)
    """)
    jobs = jobs_in(tmp_path, ["a", "b"])

    events = SubprocessExecutor(workers=2, threads=1, command=command).run(partial(next, iter(jobs), None))
    pids = [next(events).values["pid"], next(events).values["pid"]]
    events.close()

    assert [job.file.read_text() for job in jobs] == ["asked", "asked"]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_command_that_does_not_exist_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        run(["no-such-program"], jobs_in(tmp_path, ["a"]))


@pytest.mark.slow
def test_workers_are_gone_soon_after_the_driver_was_killed(worker: Command, tmp_path: Path) -> None:
    program = """
import json, os, sys
from pathlib import Path
from mlflow_yolo.studies.executors import Job
from mlflow_yolo.studies.executors.local import SubprocessExecutor
executor = SubprocessExecutor(workers=2, threads=1, command=json.loads(sys.argv[1]))
jobs = iter([Job("a", Path("a.json")), Job("b", Path("b.json"))])
for event in executor.run(lambda: next(jobs, None)):
    print("ready", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(worker(DYING))], cwd=tmp_path, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert [driver.stdout.readline() for _ in range(2)] == [b"ready\n", b"ready\n"]
        workers = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)

    assert len(workers) == 2
    assert alive == []


@pytest.mark.slow
def test_a_workers_own_children_are_gone_with_it(tmp_path: Path) -> None:
    program = """
import subprocess, sys, threading, time
from mlflow_yolo.training.worker import _die_with_driver
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
threading.Thread(target=_die_with_driver, daemon=True).start()
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(timeout=5) == -9
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_job_is_asked_for_only_when_a_worker_is_free(tmp_path: Path) -> None:
    asked: list[str] = []

    def jobs() -> Iterator[Job]:
        for key in ("a", "b"):
            asked.append(key)
            yield Job(key, tmp_path / key)

    command = [sys.executable, "-c", "print('{}')"]
    events = SubprocessExecutor(workers=1, threads=1, command=command).run(partial(next, jobs(), None))

    assert next(events).key == "a"
    assert asked == ["a"]
    assert [event.key for event in events if event.kind == "ended"] == ["a", "b"]


def test_what_must_not_stand_in_a_job_file_reaches_the_worker(tmp_path: Path) -> None:
    program = "import json, os; print(json.dumps({'uri': os.environ['MLFLOW_TRACKING_URI']}))"
    executor = SubprocessExecutor(
        workers=1,
        threads=1,
        environment={"MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example"},
        command=[sys.executable, "-c", program],
    )

    progress, _ = executor.run(partial(next, iter([Job("a", tmp_path / "a")]), None))

    assert progress.values == {"uri": "https://me:secret@mlflow.example"}


ECHO = """
    import json, os, sys
    print(json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}), flush=True)
    for line in sys.stdin:
        print(line, end="", flush=True)
        if "stop" in line:
            sys.exit(0)
"""


def test_a_message_reaches_the_job_it_is_for_and_no_other(worker: Command, tmp_path: Path) -> None:
    executor = SubprocessExecutor(workers=2, threads=1, command=worker(ECHO))
    heard: dict[str, list[object]] = {"a": [], "b": []}

    for event in executor.run(partial(next, iter(jobs_in(tmp_path, ["a", "b"])), None)):
        if "gpu" in event.values and event.key == "a":
            executor.tell("a", {"limit": 1.5, "name": "ä"})
            executor.tell("a", {"stop": "pruned"})
        elif event.kind == "ended" and event.key == "a":
            executor.tell("b", {"stop": "now"})
        if event.kind == "progress" and "gpu" not in event.values:
            heard[event.key].append(event.values)

    assert heard == {"a": [{"limit": 1.5, "name": "ä"}, {"stop": "pruned"}], "b": [{"stop": "now"}]}


def test_a_message_to_a_job_that_is_gone_or_never_was_is_no_error(worker: Command, tmp_path: Path) -> None:
    executor = SubprocessExecutor(workers=1, threads=1, command=worker("print('{}', flush=True)"))

    for event in executor.run(partial(next, iter(jobs_in(tmp_path, ["a", "b"])), None)):
        executor.tell(event.key, {"stop": "pruned"})
        executor.tell("nobody", {"stop": "pruned"})


def test_a_worker_that_does_not_read_its_messages_does_not_hold_up_the_driver(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import sys, time
        print("{}", flush=True)
        time.sleep(0.3)
    """)
    executor = SubprocessExecutor(workers=1, threads=1, command=command)

    for event in executor.run(partial(next, iter(jobs_in(tmp_path, ["a"])), None)):
        for _ in range(200 if event.kind == "progress" else 0):
            executor.tell("a", {"text": "x" * 4000})  # a pipe holds 64 KiB


def test_workers_are_spread_over_the_gpus(worker: Command, tmp_path: Path) -> None:
    executor = SubprocessExecutor(workers=3, threads=1, command=worker(ECHO), gpus=["2", "5"])
    seen: dict[str, str] = {}

    for event in executor.run(partial(next, iter(jobs_in(tmp_path, ["a", "b", "c", "d"])), None)):
        if "gpu" in event.values:
            seen[event.key] = event.values["gpu"]
            if len(seen) == 3:
                executor.tell("b", {"stop": ""})  # then the fourth starts, on the GPU that b leaves
            elif len(seen) == 4:
                for key in "acd":
                    executor.tell(key, {"stop": ""})

    assert seen == {"a": "2", "b": "5", "c": "2", "d": "5"}


def test_without_gpus_of_its_own_a_worker_sees_what_the_driver_sees(
    worker: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    command = worker("import json, os; print(json.dumps(dict(os.environ)))")

    assert run(command, jobs_in(tmp_path, ["a"]))[0].values["CUDA_VISIBLE_DEVICES"] == "3"


def test_what_a_library_prints_before_the_worker_speaks_is_no_message(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        print("Loading ...", flush=True)
        print("3", flush=True)
        print('{"epoch": 1}', flush=True)
    """)

    assert [event.values for event in run(command, jobs_in(tmp_path, ["a"]))] == [{"epoch": 1}, {"exit_code": 0}]


def test_a_killed_worker_ends_at_once_although_its_child_holds_its_output(worker: Command, tmp_path: Path) -> None:
    command = worker("""
        import os, signal, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print('{"child": %d}' % child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    start = time.monotonic()

    said, ended = run(command, jobs_in(tmp_path, ["a"]))
    assert ended.values == {"exit_code": -9}
    assert time.monotonic() - start < 30
    assert is_gone(said.values["child"])


def is_gone(pid: int) -> bool:
    """Return whether a process is gone, or will be as soon as somebody asks for its exit code."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
