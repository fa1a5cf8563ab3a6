"""An MLflow server that says yes to everything and counts: what a store does with values is not measured with it.

It runs in a process of its own, so that it does not share an interpreter with
what is measured. `GET /counts` returns the number of requests by the last two parts of their path.
"""

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

_RUN = {
    "info": {
        "run_id": "0" * 32,
        "run_uuid": "0" * 32,
        "experiment_id": "0",
        "status": "RUNNING",
        "lifecycle_stage": "active",
        "artifact_uri": "mlflow-artifacts:/0/0",
    },
    "data": {},
}
_EXPERIMENT = {"experiment_id": "0", "name": "benchmark", "lifecycle_stage": "active", "artifact_location": "/"}
_ANSWERS = {
    "runs/create": {"run": _RUN},
    "runs/get": {"run": _RUN},
    "runs/search": {"runs": []},
    "experiments/get": {"experiment": _EXPERIMENT},
    "experiments/get-by-name": {"experiment": _EXPERIMENT},
}


@contextmanager
def accepting_server() -> Iterator[str]:
    """Start the server and yield its address."""
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_counts(uri: str) -> dict[str, int]:
    """Return how many requests the server at `uri` has had, for example {"runs/log-batch": 6}."""
    with urllib.request.urlopen(f"{uri}/counts") as answer:
        return dict(json.load(answer))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = "/".join(self.path.partition("?")[0].split("/")[-2:])
        if kind == "/counts":
            content = json.dumps(self.counts).encode()
        else:
            self.counts["files" if self.command == "PUT" else kind] += 1
            content = json.dumps(_ANSWERS.get(kind, {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        return


if __name__ == "__main__":
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(listener.server_address[1], flush=True)
    listener.serve_forever()
