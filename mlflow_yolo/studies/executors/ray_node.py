"""What runs on the nodes of a Ray cluster: a job's worker with somebody beside it who passes on what is said.

A node that sees the attempt's folder works in it, as a worker of this machine does. One that does not works in a
folder of its own, whose files travel back whole at the end.
"""

import contextlib
import importlib.util
import io
import json
import os
import select
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.studies.executors.worker_process import WorkerProcess
from mlflow_yolo.training.job import write_json

END = "mlflow_yolo.end"
"""Key of the message upon which a worker is asked to close its run."""

BEGUN = "mlflow_yolo.begun"
"""Key of the first thing that is said about a job: the node that it runs on."""

_UNMOVED = ("job.json", "result.json")
_PAUSE_S = 0.3

Exchange = Callable[[Sequence[dict[str, Any]]], list[Mapping[str, Any]]]
"""Leaves what a worker has said and returns the messages for it."""


@dataclass(frozen=True)
class Order:
    """A job on its way to a node.

    Attributes:
        uid: Of this try, so that a node that was given up cannot speak for a later one.
        file: The job file as the driver names it.
        text: What stands in it.
        command: The program, where its first word is the driver's Python the node's own.
        python: The driver's Python.
        threads: Threads of the worker.
        environment: Its variables on top of the node's.
    """

    uid: str
    file: str
    text: str
    command: Sequence[str]
    python: str
    threads: int
    environment: Mapping[str, str]


class Mailbox:
    """Where nodes and driver leave what they have to say; it lives on the head of the cluster as an actor."""

    def __init__(self) -> None:
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._messages: dict[str, list[Mapping[str, Any]]] = {}

    def exchange(self, uid: str, said: Sequence[dict[str, Any]]) -> list[Mapping[str, Any]]:
        """Leave what a worker has said and return the messages for it."""
        self._said += [(uid, values) for values in said]
        return self._messages.pop(uid, [])

    def tell(self, uid: str, message: Mapping[str, Any]) -> None:
        """Leave a message for a worker."""
        self._messages.setdefault(uid, []).append(message)

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what all workers have said since the last call, with the uid of each."""
        said, self._said = self._said, []
        return said


def do_job(order: Order, mailbox: Any) -> tuple[int, bytes | None]:
    """Run a job's worker on this node.

    Args:
        order: The job.
        mailbox: The handle of a `Mailbox` actor.

    Returns:
        The worker's exit code; the files of its folder as a tar archive, None where the driver sees them itself.
    """
    import ray

    def exchange(said: Sequence[dict[str, Any]]) -> list[Mapping[str, Any]]:
        return list(ray.get(mailbox.exchange.remote(order.uid, said)))

    messages = exchange([{BEGUN: str(ray.util.get_node_ip_address())}])  # type: ignore[no-untyped-call]
    with _place_of(order) as (file, is_own):
        worker = WorkerProcess(
            file, command=_command(order), threads=order.threads, environment=_environment(order.environment)
        )
        try:
            _pass_on(worker, exchange, messages)
        except BaseException:
            worker.end(grace_s=0.0)
            raise
        return worker.end(), _packed(file.parent) if is_own else None


def _pass_on(worker: WorkerProcess, exchange: Exchange, messages: Sequence[Mapping[str, Any]]) -> None:
    """Carry lines both ways until the worker has ended or is asked to."""
    was_last = False
    while not was_last:
        for message in messages:
            if END in message:
                worker.ask_to_end()
                return
            worker.tell(message)
        select.select([worker], [], [], _PAUSE_S)
        said, was_last = worker.read()
        messages = exchange(said)


@contextlib.contextmanager
def _place_of(order: Order) -> Iterator[tuple[Path, bool]]:
    """Yield the job file on this node, and whether it stands in a folder of the node's own."""
    file = Path(order.file)
    if file.is_file() and file.read_text() == order.text:
        yield file, False
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-yolo-") as folder:
        own = Path(folder, "attempt", file.name)
        own.parent.mkdir()
        job = json.loads(order.text)
        if "shared" in job:
            job["shared"] = str(Path(folder, "shared"))
        own.write_text(json.dumps(job))
        yield own, True


def _command(order: Order) -> list[str]:
    program, *rest = order.command
    return [sys.executable if program == order.python else program, *rest]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the worker; it finds this package where this process has found it."""
    spec = importlib.util.find_spec("mlflow_yolo")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parents[1]
    if folder.name in ("site-packages", "dist-packages"):
        return dict(given)
    return {**given, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _packed(folder: Path) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, arcname=".")
    return archive.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Put the files of a worker's folder into the attempt's, `result.json` last: with it the attempt counts."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name.removeprefix("./"): member for member in tar.getmembers()}
        first = [member for name, member in members.items() if name not in _UNMOVED]
        tar.extractall(folder, members=first, filter="data")
        if "result.json" in members and (result := tar.extractfile(members["result.json"])):
            write_json(folder / "result.json", json.load(result))
