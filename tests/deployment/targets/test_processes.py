import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_yolo.deployment.targets import deployments, processes
from mlflow_yolo.deployment.targets.deployments import Deployment, folder_of, known, names, write
from mlflow_yolo.deployment.targets.ports import free_port, is_free
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError, WorkError
from mlflow_yolo.variant import read_variant
from tests.deployment.tiny_variants import tiny_variant

FAKE = (sys.executable, "-S", str(Path(__file__).with_name("fake_server.py")))
ME = psutil.Process()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deployments"


@pytest.fixture
def create(root: Path, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Creates deployments of a variant on the fake server, and ends what is left of them."""
    folder = tiny_variant(tmp_path / "variant")

    def create_one(name: str = "cells", model: Path = folder, **config: str) -> Deployment:
        return processes.create(name, str(model), config, tracking_uri="sqlite:///a.db", root=root, program=FAKE)

    yield create_one
    for name in names(root=root):
        processes.delete(name, root=root, grace_s=1.0)


def running(deployment: Deployment) -> Deployment:
    return replace(deployment, pid=os.getpid(), born=ME.create_time())


def test_a_process_is_recognised_by_number_and_birth() -> None:
    mine = running(Deployment("cells", "", ""))
    assert processes.process_of(mine) == ME
    assert processes.process_of(replace(mine, born=mine.born - 60)) is None
    assert processes.process_of(replace(mine, pid=0)) is None


def test_a_process_that_has_ended_and_waits_to_be_collected_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    deployment = Deployment("cells", "", "", pid=child.pid, born=psutil.Process(child.pid).create_time())
    assert processes.process_of(deployment) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.process_of(deployment) is None
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def test_a_foreign_process_with_the_number_is_not_ended(root: Path) -> None:
    folder = folder_of("cells", root=root)
    write(folder, replace(running(Deployment("cells", "", "")), born=1.0))
    processes.delete("cells", root=root)  # would end this test run
    assert not folder.exists()


def test_deleting_what_is_not_there_is_no_error(root: Path) -> None:
    processes.delete("cells", root=root)
    assert names(root=root) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"port": "x"}, "port=x"),
        ({"port": "-1"}, "port=-1"),
        ({"port": "65536"}, "port=65536"),
        ({"port": "²"}, "port="),
        ({"wait_s": "0"}, "wait_s=0"),
        ({"wait_s": "nan"}, "wait_s=nan"),
        ({"wait_s": "soon"}, "wait_s=soon"),
        ({"host": "nowhere.invalid"}, "nowhere.invalid"),
    ],
)
def test_a_wrong_setting_is_said_and_nothing_is_left(config: dict[str, str], said: str, root: Path) -> None:
    with pytest.raises(ArgumentError, match=said):
        processes.create("cells", "folder", config, tracking_uri="", root=root, program=FAKE)
    assert names(root=root) == []


@pytest.mark.parametrize("uri", ["models:/cells", "models:/cells@latest", "models:/m-" + "0" * 32])
def test_an_address_that_names_no_version_is_refused(uri: str, root: Path) -> None:
    with pytest.raises(ArgumentError, match="models:/"):
        processes.create("cells", uri, {}, tracking_uri="", root=root, program=FAKE)


def test_a_password_is_not_written_down() -> None:
    made = processes._new("cells", "models:/cells/7", {}, "http://me:secret@mlflow:5000")
    assert "secret" not in made.tracking_uri


def test_a_port_that_is_taken_is_said_at_once(create: Callable[..., Deployment], root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(ArgumentError, match=f"port {port}"):
            create(port=str(port))
    assert is_free("127.0.0.1", port)
    assert not (root / "cells").exists()


@pytest.mark.slow
def test_a_deployment_lives_from_create_to_delete(create: Callable[..., Deployment], root: Path) -> None:
    deployment = create(threads="1")
    state = processes.describe(deployment, root=root)
    assert (state["status"], state["name"], state["flavor"]) == ("running", "cells", "yolo")
    assert state["sha256"] == read_variant(Path(deployment.model_uri)).sha256
    assert known("cells", root=root) == deployment
    assert processes.ask(deployment, "/invocations", {"inputs": [1]}) == {"predictions": [{"asked": {"inputs": [1]}}]}
    process = processes.process_of(deployment)
    assert process is not None
    assert os.getsid(process.pid) == process.pid != os.getsid(0)  # it outlives the terminal
    assert "--threads" in process.cmdline()
    with pytest.raises(ArgumentError, match="exists already"):
        create()
    processes.delete("cells", root=root)
    assert processes.process_of(deployment) is None
    assert not (root / "cells").exists()


@pytest.mark.slow
def test_a_server_that_ends_is_told_by_its_own_error_and_nothing_is_left(
    create: Callable[..., Deployment], root: Path
) -> None:
    with pytest.raises(ArgumentError, match=r"^there is no such alias\. Name another\.$"):
        create(fails="there is no such alias. Name another.")
    assert not (root / "cells").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_in_time_is_ended_and_nothing_is_left(
    create: Callable[..., Deployment], root: Path
) -> None:
    with pytest.raises(WorkError, match="in time"):
        create(sleeps="60", wait_s="0.5")
    assert not (root / "cells").exists()
    assert not [one for one in ME.children(recursive=True) if str(root) in " ".join(one.cmdline())]


@pytest.mark.slow
def test_of_two_that_create_one_name_one_wins(create: Callable[..., Deployment], root: Path) -> None:
    outcomes: list[Any] = []

    def attempt() -> None:
        try:
            outcomes.append(create())
        except MlflowYoloError as error:
            outcomes.append(str(error))

    both = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    (winner,) = [one for one in outcomes if isinstance(one, Deployment)]
    (loser,) = [one for one in outcomes if isinstance(one, str)]
    assert "'cells'" in loser
    assert known("cells", root=root) == winner
    assert processes.describe(winner, root=root)["status"] == "running"


@pytest.mark.slow
def test_a_killed_server_is_stopped_and_can_be_started_again_by_update(
    create: Callable[..., Deployment], root: Path
) -> None:
    deployment = create()
    process = processes.process_of(deployment)
    assert process is not None
    process.kill()
    process.wait(10)
    state = processes.describe(deployment, root=root)
    assert (state["status"], state["pid"], state["version"]) == ("stopped", None, None)
    with pytest.raises(ArgumentError, match="has ended"):
        create()
    again = processes.update("cells", None, {}, root=root, program=FAKE)
    assert processes.describe(again, root=root)["status"] == "running"
    assert again.port == deployment.port


@pytest.mark.slow
def test_another_model_is_served_by_the_same_process(
    create: Callable[..., Deployment], root: Path, tmp_path: Path
) -> None:
    deployment, other = create(), tiny_variant(tmp_path / "other", side=6)
    changed = processes.update("cells", str(other), {}, root=root, program=FAKE)
    assert (changed.pid, changed.port) == (deployment.pid, deployment.port)
    assert processes.describe(changed, root=root)["sha256"] == read_variant(other).sha256
    assert known("cells", root=root).model_uri == str(other)


@pytest.mark.slow
def test_a_model_that_cannot_be_served_changes_nothing(
    create: Callable[..., Deployment], root: Path, tmp_path: Path
) -> None:
    deployment, broken = create(), tiny_variant(tmp_path / "broken", side=6)
    with pytest.raises(MlflowYoloError, match="does not exist"):
        processes.update("cells", str(tmp_path / "missing"), {}, root=root, program=FAKE)
    with pytest.raises(WorkError, match="broken is broken"):
        processes.update("cells", str(broken), {"wait_s": "1"}, root=root, program=FAKE)
    assert known("cells", root=root) == deployment
    assert (root / "cells" / deployments.URI).read_text().strip() == deployment.model_uri
    assert processes.describe(deployment, root=root)["error"] is None


@pytest.mark.slow
def test_other_settings_are_another_process_at_the_same_address(create: Callable[..., Deployment], root: Path) -> None:
    deployment = create()
    changed = processes.update("cells", None, {"threads": "2"}, root=root, program=FAKE)
    assert changed.pid != deployment.pid
    assert (changed.port, changed.config) == (deployment.port, {"threads": "2"})
    assert processes.process_of(deployment) is None


@pytest.mark.slow
def test_settings_that_do_not_work_bring_the_old_ones_back(create: Callable[..., Deployment], root: Path) -> None:
    deployment = create(threads="1")
    with pytest.raises(ArgumentError, match="no such setting"):
        processes.update("cells", None, {"fails": "no such setting"}, root=root, program=FAKE)
    now = known("cells", root=root)
    assert (now.config, now.port) == (deployment.config, deployment.port)
    assert processes.describe(now, root=root)["status"] == "running"


@pytest.mark.slow
def test_the_address_stays(create: Callable[..., Deployment], root: Path) -> None:
    create()
    with pytest.raises(ArgumentError, match="address"):
        processes.update("cells", None, {"port": str(free_port("127.0.0.1"))}, root=root, program=FAKE)


@pytest.mark.slow
def test_a_server_that_does_not_end_is_killed(create: Callable[..., Deployment], root: Path) -> None:
    deployment = create(stubborn="yes")
    processes.delete("cells", root=root, grace_s=0.2)
    assert processes.process_of(deployment) is None
