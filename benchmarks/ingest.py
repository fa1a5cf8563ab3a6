"""How fast values reach a store, and in how many requests: values per second against MLflow's own clients.

Every way logs the same epochs of 1000 values, one after the other in one process, into the same store: a SQLite file,
and an `mlflow server` before PostgreSQL (left out, with the reason, where PostgreSQL is missing). The time runs from
the first call until the store has everything.

    this package      log_metrics per epoch, then close: journaled on disk and sent in batches
    log_batch         MlflowClient.log_batch, 1000 values a call: the fastest that MLflow offers
    asynchronous      mlflow.log_metrics(synchronous=False), then flush_async_logging
    log_metric        MlflowClient.log_metric, one value a call (on a twelfth of the epochs)

A server is warmed up first: for a quarter of a minute after its start it is five times slower, whoever asks. The order
turns around from round to round, and ratios are medians of those of the rounds.

A training with the default statistics, tracked by `autolog`, then says how many requests its metrics take an epoch;
images and files are not counted.

Targets: at most 3 requests an epoch; at least 0.9 times the values per second of `log_batch` in either store, although
every value is also written to the journal first. The ratio is the lower of the two.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.accepting_server import accepting_server, read_counts
from benchmarks.outcome import Outcome, Target, finish, read_arguments
from benchmarks.postgres import cluster, missing_part

VALUES_PER_EPOCH = 1000
MAX_REQUESTS = 3.0
LEAST_RATIO = 0.9


def main() -> int:
    """Measure both stores and the requests, and print the outcome."""
    quick = read_arguments(__doc__).quick
    n_epochs, n_rounds = (3, 1) if quick else (12, 3)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        from mlflow_yolo.tracking.stores.store import ensure_store

        ensure_store(uri := f"sqlite:///{folder}/mlflow.db")
        stores = {"sqlite": _measure(uri, Path(folder), n_epochs, n_rounds)}
        if not (missing := missing_part()):
            with cluster() as database, tracking_server(database, Path(folder)) as server:
                stores["postgresql server"] = _measure(server, Path(folder), n_epochs, n_rounds)
        requests = count_requests(Path(folder), n_epochs=2 if quick else 6)
    ratios = {store: _ratio(rates) for store, rates in stores.items()}
    targets = [
        Target("HTTP requests an epoch, default statistics", requests["an epoch"], MAX_REQUESTS),
        *(Target(f"{s}, values/s against log_batch", r, LEAST_RATIO, at_least=True) for s, r in ratios.items()),
    ]
    if missing:
        print(f"PostgreSQL is left out: {missing}")
        targets.append(Target("postgresql server, values/s against log_batch", None, LEAST_RATIO, at_least=True))
    medians = {store: {way: statistics.median(r) for way, r in rates.items()} for store, rates in stores.items()}
    figures = {"values_per_s": medians, "requests": requests, "epochs": n_epochs, "missing": missing}
    judged = [] if quick else targets
    return finish(Outcome("ingest", min(ratios.values()), LEAST_RATIO, targets=judged, figures=_numbers(figures)))


def _measure(uri: str, folder: Path, n_epochs: int, n_rounds: int) -> dict[str, list[float]]:
    """Return the values per second of each way in each round, the ways taking turns."""
    for way in (_this_package, _log_batch):
        way(uri, folder, _epochs(n_epochs))
    rates: dict[str, list[float]] = {}
    for number in range(n_rounds):
        for name in list(WAYS)[:: (-1) ** number]:
            n = max(1, n_epochs // 12) if name == "log_metric" else n_epochs
            epochs = _epochs(n)
            start = time.perf_counter()
            WAYS[name](uri, folder, epochs)
            rates.setdefault(name, []).append(n * VALUES_PER_EPOCH / (time.perf_counter() - start))
    return rates


def _ratio(rates: Mapping[str, list[float]]) -> float:
    """Return how fast this package is against `log_batch`, by rounds: a machine's load changes between them."""
    return statistics.median(a / b for a, b in zip(rates["this package"], rates["log_batch"], strict=True))


Epochs = list[dict[str, float]]


def _epochs(n: int) -> Epochs:
    return [{f"stats/value/{i:04d}": epoch + i / 7 for i in range(VALUES_PER_EPOCH)} for epoch in range(n)]


def _this_package(uri: str, folder: Path, epochs: Epochs) -> None:
    from mlflow_yolo.tracking.run import open_run

    run = open_run(Path(tempfile.mkdtemp(dir=folder)), tracking_uri=uri, recover=False)
    for epoch, values in enumerate(epochs):
        run.log_metrics(values, step=epoch)
    delivery = run.close(timeout_s=600.0)
    assert delivery.n_pending == 0, delivery.reason


def _log_batch(uri: str, folder: Path, epochs: Epochs) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run("0").info.run_id
    for epoch, values in enumerate(epochs):
        t = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(key, value, t, epoch) for key, value in values.items()])
    client._tracking_client.set_terminated(run_id, "FINISHED")


def _log_metric(uri: str, folder: Path, epochs: Epochs) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run("0").info.run_id
    for epoch, values in enumerate(epochs):
        for key, value in values.items():
            client.log_metric(run_id, key, value, step=epoch)
    client._tracking_client.set_terminated(run_id, "FINISHED")


def _asynchronous(uri: str, folder: Path, epochs: Epochs) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    with contextlib.redirect_stdout(sys.stderr), mlflow.start_run(experiment_id="0"):
        for epoch, values in enumerate(epochs):
            mlflow.log_metrics(values, step=epoch, synchronous=False)
        mlflow.flush_async_logging()


WAYS: Mapping[str, Callable[[str, Path, Epochs], None]] = {
    "this package": _this_package,
    "log_batch": _log_batch,
    "asynchronous": _asynchronous,
    "log_metric": _log_metric,
}


def count_requests(folder: Path, *, n_epochs: int) -> dict[str, Any]:
    """Return the requests of a tracked training by kind, and those for its metrics an epoch."""
    with accepting_server() as uri:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "YOLO_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        code = _TRAINING.format(folder=str(folder), n_epochs=n_epochs)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
        counts = read_counts(uri)
    return {"an epoch": counts.get("runs/log-batch", 0) / n_epochs, **counts}


# Every batch counts, also those with params and tags at the start and `final/*` at the end.
_TRAINING = """
import mlflow_yolo
from ultralytics import YOLO
from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.digits import generate

data = generate("digits", n_train=48, n_val=16, n_test=4)
mlflow_yolo.autolog()
YOLO(str(checkpoints.path())).train(
    data=str(data), epochs={n_epochs}, imgsz=128, batch=4, workers=0, device="cpu", plots=False, verbose=False,
    project={folder!r}, name="requests",
)
"""


@contextmanager
def tracking_server(
    database: str, folder: Path, *, more: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start `mlflow server`, which also hands out artifacts, before a database and yield its address.

    Args:
        database: The backend store.
        folder: Where artifacts and the log are kept.
        more: Further options.
        environment: Further variables of its environment.
    """
    from mlflow import MlflowClient

    from mlflow_yolo.tracking.stores.addresses import responds

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), *options, *more]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    try:
        while not responds(f"http://127.0.0.1:{port}"):
            if process.poll() is not None:
                raise OSError((folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        MlflowClient(f"http://127.0.0.1:{port}").search_experiments()  # the first request makes the tables
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder / "artifacts", ignore_errors=True)


def _numbers(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return `figures` with its one sentence only where there is something to say."""
    return {name: value for name, value in figures.items() if value != ""}


if __name__ == "__main__":
    sys.exit(main())
