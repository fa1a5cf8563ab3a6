"""A registered model on Ray Serve, on a cluster of two nodes with room for one replica each."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests
import yaml

from benchmarks import ray_cluster
from mlflow_yolo.deployment.targets import ray_serve
from mlflow_yolo.deployment.targets.ray_options import RayOptions, read_ray_options
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.variant import read_variant
from tests.deployment.tiny_variants import picture, tiny_variant

PICTURE = picture((1, 1, "red"))


@pytest.fixture
def cells(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the client of a registry with boxes of 8 pixels (version 1, champion), of 4 (2), and changed bytes (3)."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_YOLO_CACHE", str(tmp_path / "cache"))  # a replica is a process of its own
    client = MlflowClient(store)
    client.create_registered_model("cells")
    for side in (8, 4, 2):
        model = tmp_path / f"logged{side}"
        sha256 = read_variant(tiny_variant(model / "variant", side=side)).sha256
        (model / "MLmodel").write_text(yaml.safe_dump({"flavors": {"yolo": {"sha256": sha256}}}))
        client.create_model_version("cells", source=str(model))
    with (model / "variant" / "model.onnx").open("ab") as file:
        file.write(b"!")
    client.set_registered_model_alias("cells", "champion-cpu", "1")
    return client


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def side_of_the_box(rows: list[dict[str, float]]) -> float:
    (row,) = rows
    return row["x2"] - row["x1"]


class Clients:
    """Asks on and on, a connection a request as curl does, and keeps what it was answered."""

    def __init__(self, url: str) -> None:
        self.url, self.statuses, self.n_broken = url, [], 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def end(self) -> list[int]:
        """Return the status of every answer so far."""
        self._end.set()
        self._thread.join()
        return self.statuses

    def _ask(self) -> None:
        while not self._end.wait(0.02):
            try:
                self.statuses.append(requests.post(f"{self.url}/predict", data=PICTURE, timeout=30).status_code)
            except requests.ConnectionError:
                self.n_broken += 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray 2.60's own, of pydantic 2.14
def test_replicas_follow_the_alias_take_another_model_and_outlive_a_node(
    cells: Any, missing: Callable[[str, str], NoReturn]
) -> None:
    import ray

    if what := ray_cluster.missing_part():
        missing("Ray", what)
    threads = set(threading.enumerate())
    with ray_cluster.cluster(n_nodes=2) as cluster:
        config = {"address": cluster.address, "port": str(free_port()), "poll_s": "0.2"}
        details = ray_serve.create(
            "cells", "models:/cells@champion-cpu", {**config, "min_replicas": "2", "max_replicas": "2"}
        )
        state = ray_serve.get("cells", details)
        assert (state["status"], state["replicas"], state["version"]) == ("running", 2, "1")
        assert side_of_the_box(ray_serve.predict("cells", [PICTURE], details)) == 8
        with pytest.raises(ArgumentError, match="'cells' runs on the cluster already"):
            ray_serve.create("cells", "models:/cells/1", config)

        clients = Clients(details["url"])
        details = ray_serve.update("cells", "models:/cells/2", details)
        assert ray_serve.get("cells", details)["version"] == "2"
        with pytest.raises(
            WorkError, match=r"models:/cells/3 is not served: .*sha256.*models:/cells/2 goes on"
        ) as caught:
            ray_serve.update("cells", "models:/cells/3", details)
        assert "\n" not in str(caught.value)
        details = ray_serve.update("cells", "models:/cells@champion-cpu", details)
        answered = clients.end()
        assert set(answered) == {200}
        assert clients.n_broken == 0

        cells.set_registered_model_alias("cells", "champion-cpu", "2")
        until(lambda: side_of_the_box(ray_serve.predict("cells", [PICTURE], details)) == 4)

        clients = Clients(details["url"])
        until(lambda: len(clients.statuses) > 0)
        cluster.kill_node()
        before = len(clients.statuses)
        until(lambda: len(clients.statuses) > before + 50)
        answered = clients.end()
        lost = [status for status in answered if status != 200]
        assert len(lost) + clients.n_broken <= 5  # what the lost node's proxy and replica had taken
        assert set(answered[-40:]) == {200}

        ray_serve.delete("cells", details)
        ray_serve.delete("cells", details)
        assert ray_serve.get("cells", details)["status"] == "gone"
        assert not ray.is_initialized()
    assert set(threading.enumerate()) - threads == set()


def until(holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
    pause = threading.Event()
    for _ in range(int(within_s / 0.1)):
        if holds():
            return
        pause.wait(0.1)
    raise AssertionError("it does not come true")


def test_settings_are_read_from_texts() -> None:
    read = read_ray_options({"address": "ray://head:10001", "max_replicas": "4", "num_cpus": "2.5", "route": "/a/b"})

    assert read == RayOptions(address="ray://head:10001", max_replicas=4, num_cpus=2.5, route="/a/b")
    assert read.workers == 2
    assert read_ray_options({}).workers == read_ray_options({"num_cpus": "0.5"}).workers == 1


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_replicas": "0"}, "max_replicas=0"),
        ({"min_replicas": "3", "max_replicas": "2"}, "min_replicas=3"),
        ({"num_cpus": "nan"}, "num_cpus=nan"),
        ({"num_cpus": "many"}, "num_cpus=many"),
        ({"max_replicas": "1.5"}, r"max_replicas=1\.5"),
        ({"port": "70000"}, "port=70000"),
        ({"route": "cells"}, "route=cells"),
        ({"route": "/cells/"}, "route=/cells/"),
        ({"address": "local"}, "address=local"),
        ({"conf": "0.5"}, r"conf=0\.5 is no option .*num_cpus"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(config: dict[str, str], named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as caught:
        read_ray_options(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["/a/folder", "models:/cells/7", "models:/cells@nobody"])
def test_what_the_registry_does_not_hold_is_refused_before_the_cluster_is_asked(cells: Any, uri: str) -> None:
    with pytest.raises(ArgumentError, match=uri.rpartition("/")[2]):
        ray_serve.create("cells", uri, {"address": "127.0.0.1:1"})


def test_a_cluster_where_nobody_answers_is_one_line(cells: Any) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ArgumentError, match=r"address=127\.0\.0\.1:1: nobody answers") as caught:
        ray_serve.create("cells", "models:/cells/1", {"address": "127.0.0.1:1"})
    assert "\n" not in str(caught.value)


def test_a_deployment_whose_cluster_is_gone_can_still_be_looked_at_and_deleted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    details = {"address": "127.0.0.1:1", "url": "http://127.0.0.1:8000/cells"}

    state = ray_serve.get("cells", details)
    ray_serve.delete("cells", details)

    assert (state["status"], state["replicas"]) == ("not answering", 0)
    assert "127.0.0.1:1: nobody answers" in state["error"]
    assert "note: cells is left to its cluster: address=127.0.0.1:1" in capsys.readouterr().err


def test_passwords_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://me:secret@mlflow.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(ray_serve, "_root_url", lambda: "http://127.0.0.1:8000")

    details = ray_serve._details("cells", "models:/cells/1", RayOptions(), uri)

    assert "secret" not in str(details)
    assert details["url"] == "http://127.0.0.1:8000/cells"
    assert ray_serve._read(details) == (RayOptions(), uri)
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
