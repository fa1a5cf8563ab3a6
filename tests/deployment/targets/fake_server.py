"""A program that behaves as `mlflow-yolo serve` does, and computes nothing; it is run as a file, without this package.

python fake_server.py FOLDER --host H --port P --uri-file FILE [--fails WORDS] [--sleeps SECONDS]
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WORDS = sys.argv[2:]
GIVEN = dict(zip(WORDS[::2], WORDS[1::2], strict=True))


def served() -> dict[str, Any]:
    """Return which variant's folder is named now; one that is none is an error, and the first one goes on."""
    folder = Path(Path(GIVEN["--uri-file"]).read_text().strip())
    first = Path(sys.argv[1])
    good = (folder / "variant.json").is_file() and "broken" not in folder.name
    variant = json.loads(((folder if good else first) / "variant.json").read_text())
    error = "" if good else f"{folder.name} is broken"
    return {"name": folder.name, "version": None, "sha256": variant["sha256"], "error": error}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send({"status": "ok"} if self.path == "/ping" else served())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        token = os.environ.get("MLFLOW_YOLO_TOKEN")
        if token and self.headers["authorization"] != f"Bearer {token}":
            self._send({"error_code": "UNAUTHORIZED", "message": "the token is wrong."}, 401)
            return
        if "wrong" in json.dumps(body):
            self._send({"error_code": "BAD_REQUEST", "message": "no image."}, 400)
            return
        self._send({"predictions": [{"asked": body}]})

    def _send(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if "--fails" in GIVEN:
    print("some noise")
    print(f"error: {GIVEN['--fails']}")
    print("more noise")
    sys.exit(2)
time.sleep(float(GIVEN.get("--sleeps", "0")))
server = ThreadingHTTPServer((GIVEN["--host"], int(GIVEN["--port"])), Handler)
if "--stubborn" in GIVEN:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
