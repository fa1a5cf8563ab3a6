"""What stands beside a champion that is served: a shadow or a canary, and the watch that takes a bad version back.

    backend = with_challenger(backend, "models:/cells@champion-cpu", shadow="challenger-cpu", percent=10)

The champion never depends on its challenger: one that cannot be opened, because nobody has named one yet or its bytes
have changed, is tried again at every poll, and meanwhile the champion serves alone.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.datasets.digits import cache_directory
from mlflow_yolo.deployment.challenge.comparison import Comparison, Run, run_opener
from mlflow_yolo.deployment.challenge.router import Router, Share
from mlflow_yolo.deployment.challenge.shadow import Shadow
from mlflow_yolo.deployment.challenge.trials import record_trial
from mlflow_yolo.deployment.challenge.watch import N_REQUESTS, Rollback, Verdict, Watch, Watched, read_limits
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Options, Status
from mlflow_yolo.deployment.inference.opening import open_backend
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError
from mlflow_yolo.registry.address import ModelAddress, is_model_uri, parse_model_uri
from mlflow_yolo.registry.champions import CHAMPION
from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.tracking.stores.target import resolve_target

PERCENT = 10.0
"""Share of the requests that a challenger gets."""

_MAX_QUEUE = 8
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What is to stand beside a champion; everything off by default.

    Attributes:
        shadow: Alias, or URI, of the model that computes a share of the requests too.
        canary: Alias, or URI, of the model that answers a share of the requests.
        percent: The share, in [0, 100].
        rollback_on: Limits a new version has to keep, as `read_limits` takes them.
        rollback_after: Requests of its trial.
    """

    shadow: str | None = None
    canary: str | None = None
    percent: float = PERCENT
    rollback_on: str | None = None
    rollback_after: int = N_REQUESTS

    def check(self, uri: str) -> None:
        """Raise ArgumentError for what cannot be done for the model `uri`."""
        if self.shadow and self.canary:
            raise ArgumentError("shadow and canary are two ways to try one challenger. Use one of them.")
        Share(self.percent)
        if challenger := self.shadow or self.canary:
            challenger_uri(uri, challenger)
        if self.rollback_on:
            limits = read_limits(self.rollback_on, n_requests=self.rollback_after)
            champion_of(uri)
            if limits.agreement is not None and not self.shadow:
                raise ArgumentError("rollback_on: agreement is measured by a shadow. Name one, or leave it out.")


def with_challenger(
    backend: Backend,
    uri: str,
    *,
    shadow: str | None = None,
    canary: str | None = None,
    percent: float = PERCENT,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    poll_s: float = 5.0,
    threads: int = 1,
    rollback_on: str | None = None,
    rollback_after: int = N_REQUESTS,
    directory: Path | None = None,
) -> Backend:
    """Return a backend that serves as `backend` does, with what is asked for beside it; `backend` if nothing is.

    Args:
        backend: Serves the champion; closed with what is returned.
        uri: What it follows.
        shadow: See `Wish`.
        canary: See `Wish`.
        percent: See `Wish`.
        tracking_uri: The store of registry and runs; None for `MLFLOW_TRACKING_URI`.
        experiment: Where the runs go; None for MLflow's own choice.
        poll_s: Time between two looks at the challenger's alias, seconds.
        threads: Threads of one inference of the challenger, which computes one at a time.
        rollback_on: See `Wish`.
        rollback_after: See `Wish`.
        directory: Where the runs keep what is not delivered yet; None for a folder of the user's cache.

    Raises:
        ArgumentError: What is asked for cannot be done; nothing was started.
    """
    wish = Wish(shadow or None, canary or None, percent, rollback_on or None, rollback_after)
    wish.check(uri)
    place = resolve_target(tracking_uri=tracking_uri, experiment=experiment).place
    opener = run_opener(directory if directory is not None else cache_directory() / "serving", **place)
    watch = None
    if wish.rollback_on:
        watch = _watch(wish, uri, place["tracking_uri"], opener)
        backend = Watched(backend, watch)
    if (name := wish.shadow or wish.canary) is None:
        return backend
    address = challenger_uri(uri, name)
    options: Mapping[str, Any] = {"threads": threads, "workers": 1, "max_queue": _MAX_QUEUE}
    challenger = Challenger(
        lambda: open_backend(
            address, tracking_uri=tracking_uri, poll_s=poll_s, background=bool(wish.shadow), **options
        ),
        label=address,
        retry_s=poll_s,
    )
    kind = "shadow" if wish.shadow else "canary"
    comparison = Comparison(kind, opener, params={"challenger": address, "champion": uri, "percent": percent})
    beside = challenger.beside(backend)
    if wish.canary:
        both: Backend = Router(backend, beside, percent, listeners=[comparison.add])
    else:
        listeners = [comparison.add, *([watch.compared] if watch is not None else [])]
        both = Shadow(backend, beside, percent, listeners=listeners, dropped=comparison.dropped)
    return _Closing(both, challenger, comparison)


class Challenger:
    """A backend that is opened in the background, as often as it takes.

    Args:
        open_one: Opens it.
        label: What it is, for the log.
        retry_s: Time between two attempts.
    """

    def __init__(self, open_one: Callable[[], Backend], *, label: str, retry_s: float) -> None:
        self._open = open_one
        self._label = label
        self._retry_s = retry_s
        self._backend: Backend | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._try, name="challenger", daemon=True)
        self._thread.start()

    def beside(self, champion: Backend) -> Callable[[], Backend | None]:
        """Return a function that returns it while it is open and its bytes are not the champion's."""

        def differing() -> Backend | None:
            backend = self._backend
            if backend is None or backend.status().serving.sha256 == champion.status().serving.sha256:
                return None
            return backend

        return differing

    def close(self, grace_s: float) -> None:
        """Close it, or give up opening it."""
        self._ending.set()
        self._thread.join(grace_s)
        if self._backend is not None:
            self._backend.close(grace_s)

    def _try(self) -> None:
        said = ""
        while not self._ending.is_set():
            try:
                opened = self._open()
                break
            except MlflowYoloError as error:
                line = str(error)
            except Exception as error:
                line = f"{type(error).__name__}: {error}"
            if line != said:
                _logger.warning("no challenger %s yet: %s", self._label, line)
                said = line
            self._ending.wait(self._retry_s)
        else:
            return
        if self._ending.is_set():
            opened.close(0)
        else:
            self._backend = opened


class _Closing:
    """A backend that takes its challenger and its run with it when it is closed."""

    def __init__(self, backend: Backend, challenger: Challenger, comparison: Comparison) -> None:
        self._backend = backend
        self._challenger = challenger
        self._comparison = comparison

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        """Take an image; see `Backend.submit`."""
        return self._backend.submit(image, options)

    def status(self) -> Status:
        """Return how the champion is."""
        return self._backend.status()

    def close(self, grace_s: float) -> None:
        """Close the champion, then the challenger, and end the run with its summary."""
        self._backend.close(grace_s)
        self._challenger.close(min(grace_s, 2.0))
        self._comparison.close()


def challenger_uri(uri: str, challenger: str) -> str:
    """Return the challenger's URI: `challenger` itself where it is one, else that alias of the champion's model.

    Raises:
        ArgumentError: It is an alias, but the champion is no registered model.
    """
    if is_model_uri(challenger):
        return str(parse_model_uri(challenger))
    if not is_model_uri(uri):
        raise ArgumentError(f"{challenger} is an alias of a registered model, but {uri} is served. Use a models:/ URI.")
    return str(parse_model_uri(f"models:/{parse_model_uri(uri).name}@{challenger}"))


def champion_of(uri: str) -> tuple[str, str]:
    """Return the name and the target of `models:/<name>@champion-<target>`.

    Raises:
        ArgumentError: It is something else, so nothing can be rolled back.
    """
    address = parse_model_uri(uri) if is_model_uri(uri) else ModelAddress("")
    role, _, target = (address.alias or "").partition("-")
    if role != CHAMPION or not target:
        raise ArgumentError(f"rollback_on works for models:/<name>@{CHAMPION}-<target>, but {uri} is served.")
    return address.name, target


def _watch(wish: Wish, uri: str, tracking_uri: str, opener: Callable[[str], Run]) -> Watch:
    assert wish.rollback_on is not None
    limits = read_limits(wish.rollback_on, n_requests=wish.rollback_after)
    return Watch(limits, rolling_back(uri, tracking_uri), ended=lambda verdict: record_trial(verdict, limits, opener))


def rolling_back(uri: str, tracking_uri: str) -> Rollback:
    """Return what takes the champion of `uri` back, unless somebody has promoted another version meanwhile."""
    name, target = champion_of(uri)

    def take_back(verdict: Verdict) -> None:
        from mlflow_yolo.registry.fetching import resolve
        from mlflow_yolo.registry.rollback import bring_back
        from mlflow_yolo.registry.store import open_registry

        client = open_registry(tracking_uri)
        now = str(resolve(client, parse_model_uri(uri)).version)
        if now != verdict.new.version:
            _logger.warning("not rolled back: version %s is champion by now", now)
            return
        bring_back(
            tracking_uri,
            name=name,
            target=target,
            by="mlflow-yolo serve",
            reason=verdict.reason,
            expected=verdict.new.version,
            open_client=lambda: client,
            tell=lambda line: _logger.warning("%s", line),
        )

    return take_back
