"""How much a server costs beside the model it serves: requests a second and latencies over HTTP.

    python -m benchmarks.serving                              # some eight minutes; leave the machine alone meanwhile
    python -m benchmarks.serving --variant out/int8-onnx --data cells.yaml
    python -m benchmarks.serving --quick                      # exercises the code, judges no time

One ONNX file, asked in turns, round by round, by 1, 4 and 16 clients (`benchmarks.http_clients`, in a process of their
own on the same machine):

    in-process            `Detector(folder, threads=1)` in threads of this process, as many as clients, at most one a
                          core: decoding, inference, suppression
    server                `mlflow-yolo serve folder`, which is sent the same JPEG bytes and answers JSON
    mlflow models serve   MLflow's own flavor and tensor protocol for the same file, with as many workers as there are
                          cores; it gets pixels that are letterboxed already and answers raw output, so that decoding
                          and suppression would come on top of its times

The file is the float32 ONNX of YOLO11n for BCCD at 320 pixels where that lies in `../shared`, else of the embedded
`digits` checkpoint, whose pictures are enlarged to photographs of 640 by 480.

Then the server is asked 10,000 times by 16 clients, and its memory looked at every 250 requests.

Targets: p50 with one client at most 1.2 times in-process; with 16 clients at least 0.85 times the images a second of
in-process on all cores, and at least 3 times those of `mlflow models serve`; memory that grows by at most 5 MB in the
last three quarters of the 10,000. The ratio is the first.
"""

import contextlib
import io
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.http_clients import Driven, drive, request
from benchmarks.outcome import Outcome, Target, finish, read_arguments
from benchmarks.pairing import paired_ratio
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.variant import read_variant

BCCD = Path(__file__).resolve().parents[2] / "shared" / "data" / "bccd"
CHECKPOINT = "yolo11n-bccd.pt"
PHOTOGRAPH = (640, 480)

CLIENTS = (1, 4, 16)
IN_PROCESS, SERVER, MLFLOW = "in-process", "server", "mlflow models serve"
MOST_P50, LEAST_RATE, LEAST_AGAINST_MLFLOW, MOST_GROWTH_MB = 1.2, 0.85, 3.0, 5.0
_START_S = 120.0

T = TypeVar("T")
Ask = Callable[[int], Driven]
"""Asks by so many clients, for one round."""


@dataclass(frozen=True)
class Effort:
    """How long it is measured.

    Attributes:
        rounds: Turns of every arm.
        n_requests: Requests of a turn, by clients.
        n_mlflow: The same for `mlflow models serve`, which is slow.
        n_memory: Requests in which memory is watched.
        every: Requests between two looks at it.
    """

    rounds: int
    n_requests: Mapping[int, int]
    n_mlflow: Mapping[int, int]
    n_memory: int
    every: int


LONG = Effort(7, {1: 60, 4: 120, 16: 240}, {1: 3, 4: 4, 16: 16}, 10_000, 250)
SHORT = Effort(1, {1: 4, 4: 8, 16: 16}, {1: 1, 4: 4, 16: 16}, 64, 16)


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = read_arguments(
        __doc__, variant="folder of an ONNX variant [made here]", data="data.yaml of its images [BCCD or digits]"
    )
    quick: bool = arguments.quick
    effort = SHORT if quick else LONG
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        variant, pictures = _elsewhere(_subject, folder, arguments.variant, arguments.data, quick)
        port, process = stack.enter_context(_server([*_OURS, str(variant), "--port"], folder / "server.log"))
        peer, _ = stack.enter_context(_server(_elsewhere(_mlflow_command, variant, folder), folder / "mlflow.log"))
        clients = stack.enter_context(_another_process())
        detector = Detector(variant, threads=1)
        _check_equal(detector, port, pictures[0])
        sent = [request("/predict", picture, "image/jpeg") for picture in pictures]
        tensors = [request("/invocations", _tensor(variant, picture), "application/json") for picture in pictures[:4]]
        arms: dict[str, Ask] = {
            IN_PROCESS: lambda n: in_process(detector, pictures, n_clients=n, n_requests=effort.n_requests[n]),
            SERVER: lambda n: clients.submit(drive, port, sent, n_clients=n, n_requests=effort.n_requests[n]).result(),
            MLFLOW: lambda n: clients.submit(drive, peer, tensors, n_clients=n, n_requests=effort.n_mlflow[n]).result(),
        }
        cpu = _cpu_s(process.pid)
        taken = ask_in_turns(arms, effort.rounds)
        n_asked = effort.rounds * sum(effort.n_requests.values()) + sum(effort.n_requests.values())
        server_cpu_ms = (_cpu_s(process.pid) - cpu) / n_asked * 1e3
        memory = [_rss_mb(process.pid)]
        for _ in range(effort.n_memory // effort.every):
            clients.submit(drive, port, sent, n_clients=max(CLIENTS), n_requests=effort.every).result()
            memory.append(_rss_mb(process.pid))
        what = read_variant(variant)
    figures = {
        "quick": quick,
        "load_before": load,
        "variant": f"{what.kind} {what.imgsz[1]}x{what.imgsz[0]}",
        "jpeg_kb": statistics.median(map(len, pictures)) / 1e3,
        **{name: {n: summary(taken[name, n]) for n in CLIENTS} for name in arms},
        "cpu_ms_a_request": {SERVER: server_cpu_ms, **_cpu_ms(taken)},
        "memory_mb": {"start": memory[0], "end": memory[-1], "growth": growth_mb(memory), "n": effort.n_memory},
    }
    promised = targets(taken, memory)
    headline = promised[0]
    if quick:
        return finish(Outcome("serving", None, None, (), figures))
    return finish(Outcome("serving", headline.value, headline.limit, promised, figures))


def targets(taken: Mapping[tuple[str, int], Sequence[Driven]], memory_mb: Sequence[float]) -> list[Target]:
    """Return what is promised, and what was measured of it."""
    p50 = {name: [float(np.median(one.latency_s)) for one in taken[name, 1]] for name in (SERVER, IN_PROCESS)}
    rates = {name: [one.per_second for one in taken[name, 16]] for name in (SERVER, IN_PROCESS, MLFLOW)}
    return [
        Target("p50 with 1 client against in-process", paired_ratio(p50[SERVER], p50[IN_PROCESS]).value, MOST_P50),
        Target(
            "images/s with 16 clients against in-process on all cores",
            paired_ratio(rates[SERVER], rates[IN_PROCESS]).value,
            LEAST_RATE,
            at_least=True,
        ),
        Target(
            "images/s with 16 clients against mlflow models serve",
            paired_ratio(rates[SERVER], rates[MLFLOW]).value,
            LEAST_AGAINST_MLFLOW,
            at_least=True,
        ),
        Target("MB of memory grown in the last three quarters of the requests", growth_mb(memory_mb), MOST_GROWTH_MB),
    ]


def ask_in_turns(arms: Mapping[str, Ask], n_rounds: int) -> dict[tuple[str, int], list[Driven]]:
    """Return what was measured of each arm and number of clients, round by round; the first round is thrown away."""
    taken: dict[tuple[str, int], list[Driven]] = {}
    for number in range(-1, n_rounds):
        for n in CLIENTS:
            for name in list(arms)[:: -1 if number % 2 else 1]:
                driven = arms[name](n)
                if number >= 0:
                    taken.setdefault((name, n), []).append(driven)
        if number >= 0:
            rates = (f"{name} {taken[name, 16][-1].per_second:.1f}" for name in arms)
            print(f"round {number + 1} of {n_rounds}, images/s with 16 clients: {', '.join(rates)}", flush=True)
    return taken


def in_process(detector: Detector, pictures: Sequence[bytes], *, n_clients: int, n_requests: int) -> Driven:
    """Ask a detector from threads of this process, as many as clients but at most one a core."""

    def one(index: int) -> float:
        start = time.perf_counter()
        detector(pictures[index % len(pictures)])
        return time.perf_counter() - start

    with ThreadPoolExecutor(min(n_clients, _cores())) as pool:
        list(pool.map(one, range(pool._max_workers)))  # starts the threads
        start, cpu = time.perf_counter(), time.process_time()
        latencies = tuple(pool.map(one, range(n_requests)))
        return Driven(latencies, time.perf_counter() - start, time.process_time() - cpu)


def summary(rounds: Sequence[Driven]) -> dict[str, float]:
    """Return latencies of all rounds together, milliseconds, and the median of their requests a second."""
    p50, p95, p99 = np.percentile(np.concatenate([one.latency_s for one in rounds]) * 1e3, [50, 95, 99])
    rate = statistics.median(one.per_second for one in rounds)
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "per_s": rate}


def growth_mb(memory_mb: Sequence[float]) -> float:
    """Return the slope of a straight line through the last three quarters, times their length.

    The slope is the median of those of all pairs, which a single jump does not move.

    Source: H. Theil, A rank-invariant method of linear and polynomial regression analysis, 1950.
    """
    kept = np.asarray(memory_mb[len(memory_mb) // 4 :])
    later, earlier = np.triu_indices(len(kept), 1)[::-1]
    return float(np.median((kept[later] - kept[earlier]) / (later - earlier)) * (len(kept) - 1))


def _cpu_ms(taken: Mapping[tuple[str, int], Sequence[Driven]]) -> dict[str, float]:
    """Return CPU milliseconds a request with 16 clients: of in-process, and of the clients themselves."""
    spent = {name: [one.cpu_s / len(one.latency_s) * 1e3 for one in taken[name, 16]] for name in (IN_PROCESS, SERVER)}
    return {IN_PROCESS: statistics.median(spent[IN_PROCESS]), "clients": statistics.median(spent[SERVER])}


def _another_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _elsewhere(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a process of its own: this one is to hold no more than what is measured."""
    with _another_process() as process:
        return process.submit(function, *arguments).result()


def _subject(folder: Path, variant: str | None, data: str | None, quick: bool) -> tuple[Path, list[bytes]]:
    """Return a variant's folder and photographs as JPEG."""
    from mlflow_yolo.datasets.dataset import load_dataset
    from mlflow_yolo.datasets.digits import generate

    has_bccd = (BCCD / CHECKPOINT).is_file() and not quick and not variant
    if data or has_bccd:
        splits = load_dataset(data or str(BCCD / "data.yaml")).splits
        files = splits["test" if "test" in splits else "val"].images[:32]
        pictures = [_jpeg(Image.open(file)) for file in files]
    else:
        made = generate("digits", cache_dir=folder, n_train=1, n_val=1, n_test=16).parent
        files = tuple(sorted((made / "images" / "test").iterdir()))
        pictures = [_jpeg(Image.open(file).resize(PHOTOGRAPH, Image.Resampling.BICUBIC)) for file in files]
    if variant:
        return Path(variant), pictures
    return _export(folder, str(BCCD / CHECKPOINT) if has_bccd else "digits", 320 if has_bccd else 128), pictures


def _export(folder: Path, checkpoint: str, imgsz: int) -> Path:
    from mlflow_yolo.compression.export import export_onnx

    (made := folder / "fp32-onnx").mkdir()
    export_onnx(checkpoint, made, imgsz=imgsz)
    return made


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()


_OURS = (sys.executable, "-m", "mlflow_yolo", "serve")


def _mlflow_command(variant: Path, folder: Path) -> list[str]:
    """Save the same file in MLflow's own flavor, and return what serves it up to the port."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(str(variant / read_variant(variant).file))
    entry = graph.graph.input[0]
    sides = [axis.dim_value or -1 for axis in entry.type.tensor_type.shape.dim]
    signature = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), tuple(sides), entry.name)]))
    mlflow.onnx.save_model(graph, str(folder / "mlflow-onnx"), signature=signature, pip_requirements=[])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    return [*command, "--model-uri", str(folder / "mlflow-onnx"), "--workers", str(_cores()), "--port"]


def _tensor(variant: Path, picture: bytes) -> bytes:
    """Return a picture as MLflow's tensor protocol takes it: what the model's input is, as nested lists."""
    pipeline = open_pipeline(variant, threads=1)
    pixels, _ = pipeline.preprocess([read_image(picture)])
    # Four digits are more than 8 bits have, and a third of the bytes of a float's own.
    return json.dumps({"inputs": np.round(pixels.astype(np.float64), 4).tolist()}).encode()


@contextmanager
def _server(command: Sequence[str], log: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Start a server whose command ends with the port, wait for its `/ping`, and yield port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": programs}  # MLflow starts `uvicorn` by its name
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, str(port)], stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
    try:
        end = time.monotonic() + _START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise OSError(f"{' '.join(command)} does not answer: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield port, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)  # MLflow starts its workers as processes of the group
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _check_equal(detector: Detector, port: int, picture: bytes) -> None:
    """Check that the server finds what the detector finds."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/predict", picture, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found = json.loads(answer.read())["detections"]
    expected = detector(picture)
    if len(found) != len(expected):
        raise OSError(f"the server finds {len(found)} objects, the detector {len(expected)}")


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    """Return the resident memory of a process, 10^6 bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
