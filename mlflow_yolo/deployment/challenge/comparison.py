"""What a shadow or a canary showed, in an MLflow run for every pair of versions that met.

    comparison = Comparison("shadow", directory, tracking_uri=…, params={"percent": 10})
    comparison.add(outcome)      # from any thread, returns at once
    comparison.close()

A run says one thing: this version beside that one. When either alias moves on, the run ends with its summary and the
next one begins. What a dead server misses stays in the run's journal below `directory`, for `mlflow-yolo replay`.
"""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mlflow_yolo import __version__, keys
from mlflow_yolo.deployment.challenge.outcomes import Outcome, Tally
from mlflow_yolo.deployment.inference.backend import Loaded
from mlflow_yolo.tracking.run import open_run

TAG_DEPLOYMENT = "mlflow_yolo.deployment"
MAX_UNWRITTEN = 10_000
EVERY_S = 30.0
"""How often a run gets new values."""

_CLOSE_S = 10.0
_logger = logging.getLogger(__name__)


class Run(Protocol):
    """What is used of a `TrackedRun`."""

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0) -> None: ...

    def log_params(self, values: Mapping[str, Any]) -> None: ...

    def set_tags(self, values: Mapping[str, Any]) -> None: ...

    def close(self, status: str = "FINISHED", *, timeout_s: float = 30.0) -> Any: ...


class Comparison:
    """Writes outcomes into runs, from a thread of its own.

    Args:
        kind: `shadow` or `canary`; names the runs.
        open_one: Opens a run of this name.
        params: Of every run.
        every_s: How often a run gets new values.
    """

    def __init__(
        self, kind: str, open_one: Callable[[str], Run], *, params: Mapping[str, Any], every_s: float = EVERY_S
    ) -> None:
        self._kind = kind
        self._open = open_one
        self._params = params
        self._every_s = every_s
        self._heard: queue.Queue[Outcome | None] = queue.Queue(MAX_UNWRITTEN)
        self._n_dropped = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._pair: tuple[Loaded | None, Loaded | None] = (None, None)
        self._run: Run | None = None
        self._tally = Tally()
        self._thread = threading.Thread(target=self._write_all, name=f"{kind}-run", daemon=True)
        self._thread.start()

    def add(self, outcome: Outcome) -> None:
        """Take an outcome to be written; beyond `MAX_UNWRITTEN` it is dropped and counted."""
        try:
            self._heard.put_nowait(outcome)
        except queue.Full:
            self.dropped()

    def dropped(self) -> None:
        """Count a request that was to be compared and was not."""
        with self._lock:
            self._n_dropped += 1

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is left, the run's summary too, and end it; a dead server is waited for `timeout_s` at most."""
        self._ending.set()
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        due = time.monotonic() + self._every_s
        while not (self._ending.is_set() and self._heard.empty()):
            try:
                outcome = self._heard.get(timeout=min(0.2, self._every_s))
            except queue.Empty:
                outcome = None
            try:
                if outcome is not None:
                    self._take(outcome)
                if time.monotonic() >= due:
                    self._write()
                    due = time.monotonic() + self._every_s
            except Exception:  # a comparison never ends the serving
                _logger.exception("%s: values could not be written", self._kind)
        self._end()

    def _take(self, outcome: Outcome) -> None:
        champion = outcome.champion.model if outcome.champion else self._pair[0]
        challenger = outcome.challenger.model if outcome.challenger else self._pair[1]
        if self._run is not None and _moved((champion, challenger), self._pair):
            self._end()
        self._pair = (champion, challenger)
        self._tally.add(outcome)
        if self._run is None and champion is not None and challenger is not None:
            self._begin(champion, challenger)

    def _begin(self, champion: Loaded, challenger: Loaded) -> None:
        self._run = self._open(f"{self._kind} {short(champion)} and {short(challenger)}")
        tags = {TAG_DEPLOYMENT: self._kind, keys.TAG_VERSION: __version__}
        for side, model in (("champion", champion), ("challenger", challenger)):
            tags |= {f"{side}.version": short(model), f"{side}.sha256": model.sha256, f"{side}.kind": model.kind}
        self._run.set_tags(tags)
        self._run.log_params(self._params)

    def _write(self) -> None:
        with self._lock:
            self._tally.n_dropped += self._n_dropped
            self._n_dropped = 0
        if self._run is not None:
            self._run.log_metrics(
                {f"{self._kind}/{name}": value for name, value in self._tally.metrics().items()}, step=len(self._tally)
            )

    def _end(self) -> None:
        run, self._run = self._run, None
        try:
            if run is not None:
                self._run = run
                self._write()
                run.set_tags({keys.TAG_NOTE: summary(self._kind, *self._pair, self._tally)})
                run.close("FINISHED", timeout_s=_CLOSE_S)
        except Exception:
            _logger.exception("%s: the run could not be closed", self._kind)
        self._run, self._tally = None, Tally()


def run_opener(
    directory: Path, *, tracking_uri: str, experiment: str | None, experiment_id: str | None = None
) -> Callable[[str], Run]:
    """Return what opens a run of a name, journaled in a folder of its own below `directory`."""

    def open_one(name: str) -> Run:
        return open_run(
            directory / f"{keys.segment(name).replace(' ', '-')}-{uuid.uuid4().hex[:8]}",
            tracking_uri=tracking_uri,
            experiment=experiment,
            experiment_id=experiment_id,
            name=name,
        )

    return open_one


def summary(kind: str, champion: Loaded | None, challenger: Loaded | None, tally: Tally) -> str:
    """Return markdown: one sentence and a table of both sides."""
    values = tally.metrics()
    sides = {"champion": champion, "challenger": challenger}
    says = {
        "shadow": "The challenger computed a share of the requests that the champion had answered. "
        "Its latency is an upper bound: it computes only while nobody else wants the core.",
        "canary": "The challenger answered a share of the requests.",
    }[kind]
    lines = [says, "", "| | model | requests | failed | p50 ms | p95 ms |", "|---|---|---|---|---|---|"]
    for side, model in sides.items():
        cells = [short(model) if model else "—", *(_shown(values.get(f"{side}/{key}")) for key in _COLUMNS)]
        lines.append(f"| {side} | {' | '.join(cells)} |")
    if tally.agreement is not None:
        lines += ["", f"Agreement of the detections: {tally.agreement:.3f} (F1, {int(values['pairs'])} images)."]
    if tally.n_dropped:
        lines += ["", f"{tally.n_dropped} more were not compared: the challenger was busy."]
    return "\n".join(lines)


_COLUMNS = ("requests", "failed", "latency_ms_p50", "latency_ms_p95")


def _shown(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}".removesuffix(".0")


def short(model: Loaded) -> str:
    """Return a model in two words: `cells 7`, or a local variant's name with the beginning of its digest."""
    return f"{model.name} {model.version if model.version is not None else model.sha256[:8]}"


def _moved(pair: tuple[Loaded | None, Loaded | None], known: tuple[Loaded | None, Loaded | None]) -> bool:
    """Return whether a side is another model than it was."""
    return any(
        old is not None and new is not None and (old.version, old.sha256) != (new.version, new.sha256)
        for old, new in zip(known, pair, strict=True)
    )
