"""Connecting to a Ray cluster and leaving the process as it was, whether or not there was one."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.stores.addresses import answers
from mlflow_yolo.tracking.stores.client import one_line

_SET_BY_RAY = ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_CLIENT_MODE", "PYTHONBREAKPOINT")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "AWS_")
_N_ATTEMPTS = 3
_BETWEEN_ATTEMPTS_S = 1.0


def import_ray(what: str, *, otherwise: str = "") -> Any:
    """Return Ray.

    Args:
        what: What needs it, for the error.
        otherwise: How to do without: "or use executor=local."

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        import ray
    except ImportError:
        remedy = "pip install 'mlflow-yolo[ray]'"
        raise ArgumentError(f"{what} needs Ray: {remedy}{f', {otherwise}' if otherwise else '.'}") from None
    return ray


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say how to reach the tracking server and its artifacts: nodes have their own."""
    return {name: value for name, value in environment.items() if name.startswith(_PASSED_ON)}


@contextlib.contextmanager
def connected(address: str, *, otherwise: str = "First") -> Iterator[None]:
    """Connect this process to a cluster, unless it is already; leave only what was connected here.

    A process of the head that refuses is asked again: it begins by a fork, which in a busy one can die of gRPC's
    threads.

    Args:
        address: `auto` (the cluster that this machine belongs to), `ray://host:port`, `host:port`, or `local` (one of
            its own on this machine, ended afterwards).
        otherwise: How the remedy begins where there is no cluster: "Use address=local, or".

    Raises:
        ArgumentError: There is none at the address.
    """
    ray = import_ray(f"address={address}")
    ways = f"{otherwise} start a cluster (ray start --head) and use address=auto or ray://host:10001."
    if ray.is_initialized():
        yield
        return
    if address not in ("auto", "local") and not answers(address if "://" in address else f"ray://{address}"):
        raise ArgumentError(f"address={address}: nobody answers there. {ways}")
    with _environment_kept():
        try:
            _initialise(ray, address)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"address={address}: {one_line(error)} {ways}") from None
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what Ray sets in the environment of the process."""
    before = {name: os.environ.get(name) for name in _SET_BY_RAY}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports to nobody
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def _initialise(ray: Any, address: str) -> None:
    """Call `ray.init` so that SIGTERM goes on to mean what it meant; what fails leaves nothing connected."""
    quiet: dict[str, Any] = {} if "://" in address else {"log_to_driver": False, "logging_level": "ERROR"}
    own = {"include_dashboard": False} if address == "local" else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        for attempt in range(1, _N_ATTEMPTS + 1):
            try:
                ray.init(address=address, **quiet, **own)
                return
            except BaseException as error:
                ray.shutdown()  # or Ray's functions would go on asking its client, which is not connected
                if not isinstance(error, ConnectionAbortedError) or attempt == _N_ATTEMPTS:
                    raise
                time.sleep(_BETWEEN_ATTEMPTS_S)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
