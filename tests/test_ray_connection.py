"""Ray's client against a server that speaks its protocol and refuses so many clients first, as a busy head can."""

import os
import platform
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest

from benchmarks import ray_cluster
from mlflow_yolo import ray_connection
from mlflow_yolo.exceptions import ArgumentError

pytestmark = pytest.mark.slow

REFUSAL = "Traceback (most recent call last):\nRuntimeError: Starting Ray client server failed. See the logs."


class ClientServer:
    """A head's client server on a free port: answers the first clients with a refusal and lets the others in."""

    def __init__(self, n_refused: int) -> None:
        import grpc
        from ray.core.generated import ray_client_pb2_grpc as services

        self.n_refused, self.n_asked = n_refused, 0
        self._server = grpc.server(ThreadPoolExecutor(8))
        for name in ("RayletDriver", "RayletDataStreamer", "RayletLogStreamer"):
            getattr(services, f"add_{name}Servicer_to_server")(
                type(name, (getattr(services, f"{name}Servicer"),), self._answers(name))(), self._server
            )
        self.address = f"ray://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def _answers(self, name: str) -> dict[str, Any]:
        from ray.core.generated import ray_client_pb2 as messages

        if name == "RayletDriver":
            return {
                "ClusterInfo": lambda *_: messages.ClusterInfoResponse(json="{}"),
                "KVPut": lambda *_: messages.KVPutResponse(),
            }
        if name == "RayletDataStreamer":
            return {"Datapath": lambda _, requests, context: self._talk(requests)}
        return {"Logstream": lambda *_: iter(())}

    def _talk(self, requests: Iterator[Any]) -> Iterator[Any]:
        import ray
        from ray.core.generated import ray_client_pb2 as messages

        for request in requests:
            answer = messages.DataResponse(req_id=request.req_id)
            if request.HasField("init"):
                self.n_asked += 1
                refused = self.n_asked <= self.n_refused
                answer.init.CopyFrom(messages.InitResponse(ok=not refused, msg=REFUSAL if refused else ""))
            elif request.HasField("connection_info"):
                info = {"ray_version": ray.__version__, "ray_commit": ray.__commit__}
                answer.connection_info.CopyFrom(
                    messages.ConnectionInfoResponse(num_clients=1, python_version=platform.python_version(), **info)
                )
            else:
                answer.connection_cleanup.CopyFrom(messages.ConnectionCleanupResponse())
            yield answer


@pytest.fixture
def client_server(
    missing: Callable[[str, str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], ClientServer]]:
    if what := ray_cluster.missing_part():
        missing("Ray", what)
    monkeypatch.setattr(ray_connection, "_BETWEEN_ATTEMPTS_S", 0.0)
    started: list[ClientServer] = []

    def start(n_refused: int) -> ClientServer:
        started.append(ClientServer(n_refused))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def test_a_refused_client_is_tried_again(client_server: Callable[[int], ClientServer]) -> None:
    from ray.util.client import ray

    server = client_server(2)

    with ray_connection.connected(server.address):
        assert ray.is_connected()
    assert not ray.is_connected()
    assert server.n_asked == 3


def test_a_client_that_is_always_refused_is_one_line_and_leaves_the_process_as_it_was(
    client_server: Callable[[int], ClientServer],
) -> None:
    from ray._private.client_mode_hook import client_mode_should_convert
    from ray.util.client import num_connected_contexts

    server = client_server(100)
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)

    with (
        pytest.raises(ArgumentError, match="Starting Ray client server failed") as caught,
        ray_connection.connected(server.address),
    ):
        pass

    assert "\n" not in str(caught.value)
    assert server.n_asked == 3
    # What every function of Ray asks first: whether it is the client's, or this process's own.
    assert not client_mode_should_convert()
    assert num_connected_contexts() == 0
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
