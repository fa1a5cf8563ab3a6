import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from mlflow_yolo.cli import main
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.http.server import label, serve
from mlflow_yolo.exceptions import ArgumentError
from tests.deployment.malformed import picture, request, send
from tests.deployment.serving import MODEL, StandIn, served
from tests.deployment.tiny_variants import tiny_variant

_SLOW_SERVER = """
import threading, sys
sys.path.insert(0, {repository!r})
from mlflow_yolo.deployment.http.server import serve
from mlflow_yolo.deployment.http.limits import Limits
from tests.deployment.serving import StandIn

class Slow(StandIn):
    def submit(self, image, options=None):
        future = super().submit(image, options)
        threading.Timer(1.5, lambda: future.set_result(self.answer())).start()
        return future

serve(lambda: Slow(waits=True), port=0, announce=lambda line: print(line, flush=True))
print("ended", flush=True)
"""


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def never() -> StandIn:
    raise AssertionError("the model is opened although nobody can reach it")


def test_a_taken_port_is_said_before_a_model_is_opened() -> None:
    with served(StandIn()) as port, pytest.raises(ArgumentError, match=f"port={port} is taken"):
        serve(never, port=port)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("no such host", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1)]
)
def test_an_address_that_cannot_be_had_is_one_line(host: str, port: int) -> None:
    with pytest.raises(ArgumentError, match=r"host=|port="):
        serve(never, host=host, port=port)


def test_what_cannot_be_opened_is_said_and_the_port_is_free_again() -> None:
    port = unused_port()

    def fail() -> StandIn:
        raise ArgumentError("there is no such model")

    for _ in range(2):
        with pytest.raises(ArgumentError, match="no such model"):
            serve(fail, port=port)


def test_only_loopback_goes_without_a_warning() -> None:
    class Enough(Exception):
        pass

    def stop() -> StandIn:
        raise Enough

    for host, token, n in (("127.0.0.1", None, 0), ("localhost", None, 0), ("0.0.0.0", None, 1), ("0.0.0.0", "x", 0)):
        lines: list[str] = []
        with pytest.raises(Enough):
            serve(stop, host=host, port=0, token=token, announce=lines.append)
        assert len(lines) == n
        assert all("MLFLOW_YOLO_TOKEN" in line for line in lines)


def test_the_backend_is_closed_and_the_token_checked_even_where_serving_fails() -> None:
    backend = StandIn()
    with pytest.raises(ArgumentError, match="token"):
        serve(lambda: backend, port=0, token="é", limits=Limits(timeout_s=7))
    assert backend.closed_with_s == 7


def test_the_line_for_the_user_names_version_alias_and_bytes() -> None:
    assert label(MODEL) == "cells version 7 (champion-cpu), int8-onnx, sha256 abababababab…,"


def test_many_clients_are_answered_over_kept_connections() -> None:
    statuses: list[int] = []
    image = picture(random.Random(1))

    def ask(port: int) -> None:
        with requests.Session() as session:
            for _ in range(20):
                statuses.append(session.post(f"http://127.0.0.1:{port}/predict", data=image).status_code)

    with served(StandIn()) as port:
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert statuses == [200] * 80


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish_and_refuses_new_ones(end: signal.Signals, repository: Path) -> None:
    script = _SLOW_SERVER.format(repository=str(repository))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        answers: list[int | None] = []
        asking = threading.Thread(target=lambda: answers.append(send(port, request(picture(random.Random(1)))).status))
        asking.start()
        time.sleep(0.4)
        process.send_signal(end)
        time.sleep(0.5)
        assert asking.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        asking.join(10)
        assert answers == [200]
        assert process.stdout.read() == "ended\n"
        assert process.wait(10) == 0


@pytest.mark.slow
def test_the_command_serves_a_variants_folder_and_ends_with_0(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "variant")
    command = [sys.executable, "-m", "mlflow_yolo", "serve", str(folder), "--port", "0"]
    environment = {**os.environ, "MLFLOW_YOLO_TOKEN": "s3cret"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split(" on ")[1].strip()
        headers = {"Authorization": "Bearer s3cret"}
        image = picture(random.Random(1), "PNG")
        assert requests.post(f"{address}/predict", data=image, timeout=20).status_code == 401
        heard = requests.post(f"{address}/predict", data=image, headers=headers, timeout=20)
        assert (heard.status_code, heard.json()["model"]["name"]) == (200, "variant")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert line.startswith("serving variant, fp32-onnx, sha256 ")


@pytest.mark.slow
def test_what_cannot_be_served_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK")
    nobody = f"http://127.0.0.1:{unused_port()}"
    before = signal.getsignal(signal.SIGTERM)
    for arguments in (
        ["models:/nothing@champion-cpu", "--tracking-uri", f"sqlite:///{tmp_path / 'new.db'}"],
        ["models:/cells@champion-cpu", "--tracking-uri", nobody],
        ["models:/cells"],
        [str(tmp_path / "x.pt")],
        [str(tmp_path / "nowhere")],
        [str(tmp_path), "--max-pixels", "0"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments, "--port", "0"])
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
    signal.signal(signal.SIGTERM, before)
