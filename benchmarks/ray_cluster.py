"""A throw-away Ray cluster on this machine: a head that does no work and nodes of one processor each.

It lives in a process of its own, which ends with this one. `ray stop` is never used: it would end every cluster of the
machine.
"""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MEMORY = 80 << 20


def missing_part() -> str:
    """Return what is missing to run Ray here and how to get it, empty when nothing is."""
    missing = [name for name in ("ray", "grpc", "psutil") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: pip install 'mlflow-yolo[ray]'" if missing else ""


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: For drivers of this machine.
        client_address: The same through Ray's client, `ray://…`.
    """

    address: str
    client_address: str
    _process: "subprocess.Popen[str]"

    def kill_node(self) -> str:
        """Kill the oldest node as a power cut would; return its name."""
        return str(self._ask("kill"))

    def add_node(self) -> str:
        """Add a node and return its name."""
        return str(self._ask("add"))

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def cluster(*, n_nodes: int = 2) -> Iterator[Cluster]:
    """Start a cluster and end it afterwards.

    Raises:
        OSError: It does not start.
    """
    command = [sys.executable, "-c", f"from benchmarks.ray_cluster import serve; serve({n_nodes})"]
    # Ray's client server forks with gRPC's threads running, whose fork handlers can close what the child polls.
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise OSError("Ray did not start; see /tmp/ray/session_latest/logs")
        yield Cluster(*json.loads(line), process)
        process.stdin.close()


def serve(n_nodes: int) -> None:
    """Run a cluster until standard input closes, and do what is read there."""
    from ray.cluster_utils import Cluster as RayCluster

    answers, port = os.dup(1), _free_port()
    os.dup2(2, 1)  # Ray prints there too
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _MEMORY, "ray_client_server_port": port}
    running = RayCluster(initialize_head=True, head_node_args=head)
    nodes: list[Any] = []

    def add() -> str:
        nodes.append(running.add_node(num_cpus=1, resources={"slot": 1}, object_store_memory=_MEMORY))
        return str(nodes[-1].unique_id)

    def kill() -> str:
        node = nodes.pop(0)
        running.remove_node(node, allow_graceful=False)
        return str(node.unique_id)

    def answer(value: Any) -> None:
        os.write(answers, json.dumps(value).encode() + b"\n")

    try:
        for _ in range(n_nodes):
            add()
        answer([running.address, f"ray://127.0.0.1:{port}"])
        for line in sys.stdin:
            answer({"add": add, "kill": kill}[line.strip()]())
    finally:
        running.shutdown()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
