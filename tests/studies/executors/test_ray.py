"""Jobs on a Ray cluster of two nodes: what they say arrives, and what is lost is said. The workers are stand-ins."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from benchmarks import ray_cluster
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.executors import Event, Job
from mlflow_yolo.studies.executors.ray import RayExecutor
from mlflow_yolo.studies.executors.ray_node import unpack

# Says who and where it is, waits to be told to stop and ends with its driver as the real worker does.
WAITING = """
    import json, os, sys
    print(json.dumps({"pid": os.getpid(), "parent": os.getppid()}), flush=True)
    for line in sys.stdin:
        print(line, end="", flush=True)
        if "stop" in line:
            sys.exit(3)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[ray_cluster.Cluster | None]:
    if ray_cluster.missing_part():
        yield None
        return
    with ray_cluster.cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(
    running_cluster: ray_cluster.Cluster | None, missing: Callable[[str, str], NoReturn]
) -> ray_cluster.Cluster:
    """Return a cluster of two nodes with room for one job each, shared by the tests of this file."""
    if running_cluster is None:
        missing("Ray", ray_cluster.missing_part())
    return running_cluster


def command(folder: Path, program: str) -> list[str]:
    file = folder / "worker.py"
    file.write_text(textwrap.dedent(program))
    return [sys.executable, str(file)]


def jobs_in(folder: Path, names: Sequence[str]) -> list[Job]:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "job.json").write_text(json.dumps({"name": name, "shared": "/the/drivers"}))
    return [Job(name, folder / name / "job.json") for name in names]


def one_by_one(jobs: Sequence[Job]) -> Callable[[], Job | None]:
    return partial(next, iter(jobs), None)


def has_ended(pid: int, *, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_two_jobs_run_at_once_on_two_nodes_and_hear_what_they_are_told(
    cluster: ray_cluster.Cluster, tmp_path: Path
) -> None:
    executor = RayExecutor(address=cluster.address, command=command(tmp_path, WAITING))
    pids: dict[str, int] = {}
    events: list[Event] = []

    for event in executor.run(one_by_one(jobs_in(tmp_path, ["a", "b"]))):
        events.append(event)
        if "pid" in event.values:
            pids[event.key] = event.values["pid"]
        if "pid" in event.values and len(pids) == 2:  # neither ends before both have begun
            executor.tell("a", {"limit": 1.5})
            executor.tell("a", {"stop": "pruned"})
            executor.tell("b", {"stop": "enough"})
            executor.tell("nobody", {"stop": "enough"})

    def said(key: str) -> list[Event]:
        return [event for event in events if event.key == key and "pid" not in event.values]

    ended = {"exit_code": 3}
    assert said("a") == [
        Event("a", "progress", {"limit": 1.5}),
        Event("a", "progress", {"stop": "pruned"}),
        Event("a", "ended", ended),
    ]
    assert said("b") == [Event("b", "progress", {"stop": "enough"}), Event("b", "ended", ended)]


@pytest.mark.slow
def test_a_job_has_its_threads_and_its_variables_but_not_the_drivers_run(
    cluster: ray_cluster.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "the driver's")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "passed on")
    executor = RayExecutor(
        address=cluster.client_address,
        threads=3,
        environment={"MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example"},
        command=command(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))"),
    )

    said, ended = executor.run(one_by_one(jobs_in(tmp_path, ["a"])))
    assert ended.values == {"exit_code": 0}
    assert said.values["MLFLOW_TRACKING_URI"] == "https://me:secret@mlflow.example"
    assert said.values["MLFLOW_TRACKING_TOKEN"] == "passed on"
    assert said.values["OMP_NUM_THREADS"] == "3"
    assert "MLFLOW_RUN_ID" not in said.values


@pytest.mark.slow
def test_a_worker_that_is_killed_and_one_whose_ray_process_is_killed_end_as_killed(
    cluster: ray_cluster.Cluster, tmp_path: Path
) -> None:
    executor = RayExecutor(address=cluster.address, command=command(tmp_path, WAITING))
    events: list[Event] = []
    waiting: dict[str, dict[str, int]] = {}

    for event in executor.run(one_by_one(jobs_in(tmp_path, ["own", "rays"]))):
        events.append(event)
        if "pid" in event.values:
            waiting[event.key] = event.values
            os.kill(event.values["pid" if event.key == "own" else "parent"], signal.SIGKILL)

    ends = {event.key: event.values["exit_code"] for event in events if event.kind == "ended"}
    reasons = {event.key: event.values["error"] for event in events if "error" in event.values}
    assert ends == {"own": -9, "rays": -9}
    assert list(reasons) == ["rays"]
    assert "its process was killed" in reasons["rays"]
    assert has_ended(waiting["rays"]["pid"])


@pytest.mark.slow
def test_a_job_on_a_node_that_dies_ends_at_once_and_the_others_go_on(
    cluster: ray_cluster.Cluster, tmp_path: Path
) -> None:
    executor = RayExecutor(address=cluster.address, command=command(tmp_path, WAITING))
    ends: dict[str, int] = {}
    pids: dict[str, int] = {}
    lost: list[str] = []
    killed_at = 0.0

    for event in executor.run(one_by_one(jobs_in(tmp_path, ["a", "b", "c"]))):
        if "pid" in event.values:
            pids[event.key] = event.values["pid"]
            if len(pids) == 2:
                cluster.kill_node()
                killed_at = time.monotonic()
            elif len(pids) == 3:
                executor.tell("c", {"stop": ""})
        elif "error" in event.values:
            lost.append(event.key)
        elif event.kind == "ended":
            ends[event.key] = event.values["exit_code"]
            if event.values["exit_code"] == -9:
                assert time.monotonic() - killed_at < 20
                (left,) = {"a", "b"} - {event.key}
                executor.tell(left, {"stop": ""})  # its room is the third job's
    cluster.add_node()

    assert len(lost) == 1
    assert ends == {"a": 3, "b": 3, "c": 3} | {lost[0]: -9}
    assert has_ended(pids[lost[0]])


@pytest.mark.slow
def test_workers_are_gone_soon_after_the_driver_was_killed(cluster: ray_cluster.Cluster, tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from mlflow_yolo.studies.executors import Job
from mlflow_yolo.studies.executors.ray import RayExecutor
executor = RayExecutor(address=sys.argv[1], command=json.loads(sys.argv[2]))
jobs = iter([Job(name, Path(sys.argv[3], name, "job.json")) for name in "ab"])
for event in executor.run(lambda: next(jobs, None)):
    print(event.values["pid"], flush=True)
"""
    jobs_in(tmp_path, ["a", "b"])
    arguments = [cluster.address, json.dumps(command(tmp_path, WAITING)), str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        numbers = (int(line) for line in driver.stdout if line.strip().isdigit())  # Ray prints there too
        pids = [next(numbers), next(numbers)]
        assert all(psutil.pid_exists(pid) for pid in pids)
        driver.kill()

    assert [has_ended(pid, within_s=30) for pid in pids] == [True, True]


@pytest.mark.slow
def test_stopping_early_asks_the_workers_to_end_and_drops_those_that_wait_for_room(
    cluster: ray_cluster.Cluster, tmp_path: Path
) -> None:
    program = """
        import os, pathlib, signal, sys, time
        def leave(*_):
            pathlib.Path(sys.argv[1]).with_name("asked").touch()
            sys.exit(130)
        signal.signal(signal.SIGTERM, leave)
        print('{"pid": %d}' % os.getpid(), flush=True)
        time.sleep(60)
    """
    executor = RayExecutor(address=cluster.address, command=command(tmp_path, program), workers=3)

    events = executor.run(one_by_one(jobs_in(tmp_path, ["a", "b", "c"])))
    begun = [next(events), next(events)]
    events.close()

    assert [(tmp_path / event.key / "asked").exists() for event in begun] == [True, True]
    assert all(has_ended(event.values["pid"], within_s=1) for event in begun)
    assert len(list(tmp_path.glob("*/asked"))) == 2


@pytest.mark.slow
def test_the_files_of_a_node_that_does_not_see_the_drivers_folder_come_back(
    cluster: ray_cluster.Cluster, tmp_path: Path
) -> None:
    program = """
        import json, pathlib, sys
        file = pathlib.Path(sys.argv[1])
        job = json.loads(file.read_text())
        pathlib.Path(job["shared"]).mkdir()
        pathlib.Path(job["shared"], "list.txt").touch()
        file.with_name("weights").mkdir()
        file.with_name("weights").joinpath("best.pt").write_bytes(bytes(300_000))
        file.with_name("result.json").write_text(json.dumps({"status": "finished"}))
        print(json.dumps({"folder": str(file.parent), "shared": job["shared"]}), flush=True)
    """
    jobs_in(tmp_path, ["a"])
    # The driver's own working directory, which is another one in a worker of the cluster: only the driver finds it.
    job = Job("a", Path("/proc/self/cwd/a/job.json"))

    said, ended = RayExecutor(address=cluster.address, command=command(tmp_path, program)).run(one_by_one([job]))

    assert ended.values == {"exit_code": 0}
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == [
        "best.pt",
        "job.json",
        "result.json",
        "weights",
    ]
    assert (tmp_path / "a" / "weights" / "best.pt").read_bytes() == bytes(300_000)
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == {"status": "finished"}
    assert json.loads((tmp_path / "a" / "job.json").read_text())["shared"] == "/the/drivers"
    assert not Path(said.values["folder"]).exists()
    assert not Path(said.values["shared"]).exists()


@pytest.mark.slow
def test_a_worker_that_cannot_be_started_says_why(cluster: ray_cluster.Cluster, tmp_path: Path) -> None:
    said, ended = RayExecutor(address=cluster.address, command=["no-such-program"]).run(
        one_by_one(jobs_in(tmp_path, ["a"]))
    )

    assert "no-such-program" in said.values["error"]
    assert ended.values == {"exit_code": 1}


@pytest.mark.slow
def test_more_than_any_node_has_is_refused_before_anything_is_begun(cluster: ray_cluster.Cluster) -> None:
    RayExecutor(address=cluster.address, cpus=1).check()
    with pytest.raises(ArgumentError, match=r"cpus=8 .* more than a node"):
        RayExecutor(address=cluster.address, cpus=8).check()
    with pytest.raises(ArgumentError, match=r"gpus=1 .* more than a node"):
        list(RayExecutor(address=cluster.address, gpus=1).run(lambda: None))


@pytest.mark.slow
def test_a_process_that_was_connected_before_stays_connected(cluster: ray_cluster.Cluster) -> None:
    import ray

    list(RayExecutor(address=cluster.address).run(lambda: None))
    assert not ray.is_initialized()

    handler = signal.getsignal(signal.SIGTERM)
    with ray.init(address=cluster.address, log_to_driver=False):
        signal.signal(signal.SIGTERM, handler)
        list(RayExecutor(address=cluster.address).run(lambda: None))
        assert ray.is_initialized()


@pytest.mark.slow
def test_a_cluster_of_its_own_is_ended_and_the_process_left_as_it_was(
    tmp_path: Path, missing: Callable[[str, str], NoReturn]
) -> None:
    if what := ray_cluster.missing_part():
        missing("Ray", what)
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    children = set(psutil.Process().children(recursive=True))

    executor = RayExecutor(address="local", command=command(tmp_path, "print('{}')"))
    assert [event.values for event in executor.run(one_by_one(jobs_in(tmp_path, ["a"])))] == [{}, {"exit_code": 0}]

    environment, handler = before
    assert dict(set(os.environ.items()) ^ set(environment.items())) == {}
    assert signal.getsignal(signal.SIGTERM) == handler
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - children, timeout=10)
    assert alive == []


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:1"])
def test_an_address_where_nobody_answers_is_one_line(address: str) -> None:
    with pytest.raises(ArgumentError, match=f"address={address}: nobody answers") as caught:
        RayExecutor(address=address).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cpus", "gpus"), [(0.0, 0.0), (-1.0, 1.0), (1.0, -0.5)])
def test_resources_that_no_job_can_have_are_refused(cpus: float, gpus: float) -> None:
    with pytest.raises(ArgumentError, match="of a trial"):
        RayExecutor(cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "room"),
    [
        (1.0, 0.0, {"CPU": 4.0}, 4),
        (2.0, 1.0, {"CPU": 16.0, "GPU": 4.0}, 4),
        (0.1, 0.0, {"CPU": 0.3}, 3),  # 0.3 / 0.1 is below 3 in binary
        (0.0, 0.4, {"CPU": 4.0, "GPU": 2.0}, 4),  # two of 0.4 a GPU, none over two GPUs
        (1.0, 2.0, {"CPU": 8.0, "GPU": 3.0}, 1),
        (1.0, 1.0, {"CPU": 8.0}, 0),
        (1.0, 0.0, {}, 0),
    ],
)
def test_the_room_of_a_node_is_what_its_scarcest_resource_allows(
    cpus: float, gpus: float, node: dict[str, float], room: int
) -> None:
    assert RayExecutor(cpus=cpus, gpus=gpus)._room_on(node) == room


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ArgumentError, match=r"mlflow-yolo\[ray\]"):
        list(RayExecutor().run(lambda: None))


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_attempt_whose_files_came_back_in_part_has_no_result(tmp_path: Path) -> None:
    whole = archive({"./result.json": b'{"status": "finished"}', "./weights.bin": bytes(20_000)})

    with pytest.raises(tarfile.ReadError):
        unpack(whole[:10_000], tmp_path)
    assert not (tmp_path / "result.json").exists()

    unpack(whole, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == {"status": "finished"}
    assert (tmp_path / "weights.bin").read_bytes() == bytes(20_000)


def test_files_that_would_leave_the_attempts_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "attempt").mkdir()

    with pytest.raises(tarfile.FilterError):
        unpack(archive({"../escaped": b""}), tmp_path / "attempt")
    assert not (tmp_path / "escaped").exists()
