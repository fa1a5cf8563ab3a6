"""Automatic rollback: a new version is on trial for its first requests. Off unless asked for.

    watch = Watch(read_limits("errors=0.02,p95=1.5", n_requests=200), rollback=roll_back)
    backend = Watched(engine, watch)

The version that served before is the measure. A version that has served well here is not tried again, so that going
back, by this watch or by a person, is never itself undone.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields

import numpy as np

from mlflow_yolo.deployment.challenge.outcomes import Call, Outcome, Tally
from mlflow_yolo.deployment.challenge.router import call_of
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Loaded, Options, Status
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import Pixels

N_REQUESTS = 200
MIN_MEASURED = 20
"""Latencies of the old version, and compared images, below which they judge nothing."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RollbackLimits:
    """What a new version must keep; None is not looked at.

    Attributes:
        errors: Largest share of failed requests, in [0, 1); not held against it where the old version failed as often.
        p95: Largest 95th percentile of latency, as a multiple of the old version's.
        p95_ms: The same in milliseconds.
        agreement: Least agreement with the shadow's challenger, in (0, 1].
        n_requests: Requests after which it has passed.

    Raises:
        ArgumentError: A value is out of its range, or nothing is looked at.
    """

    errors: float | None = None
    p95: float | None = None
    p95_ms: float | None = None
    agreement: float | None = None
    n_requests: int = N_REQUESTS

    def __post_init__(self) -> None:
        if self.errors is not None and not 0 <= self.errors < 1:
            raise ArgumentError(f"errors={self.errors:g} is no share of requests. Use 0 to below 1.")
        if self.agreement is not None and not 0 < self.agreement <= 1:
            raise ArgumentError(f"agreement={self.agreement:g} is out of range. Use above 0, up to 1.")
        for name in ("p95", "p95_ms"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise ArgumentError(f"{name}={value:g} is no limit. Use a number above 0.")
        if self.n_requests < 1:
            raise ArgumentError(f"rollback_after={self.n_requests} tries nothing. Use 1 request or more.")
        if all(getattr(self, name) is None for name in LIMITS):
            raise ArgumentError(
                f"rollback_on names no limit. Use {', '.join(LIMITS)}, for example errors=0.02,p95=1.5."
            )


LIMITS = tuple(field.name for field in fields(RollbackLimits) if field.name != "n_requests")


def read_limits(text: str, *, n_requests: int = N_REQUESTS) -> RollbackLimits:
    """Return the limits of `errors=0.02,p95=1.5,agreement=0.9`.

    Raises:
        ArgumentError: A word is no limit, is given twice, or its value is no number or out of range.
    """
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in LIMITS or name in values:
            raise ArgumentError(f"rollback_on={part!r} cannot be used. Name each of {', '.join(LIMITS)} once at most.")
        try:
            values[name] = float(value)
        except ValueError:
            raise ArgumentError(f"rollback_on={part!r} is no number. Write for example {name}=0.9.") from None
    return RollbackLimits(**values, n_requests=n_requests)


@dataclass(frozen=True)
class Verdict:
    """How the trial of a version ended.

    Attributes:
        old: What served before.
        new: What was tried.
        violations: What it did not keep, one sentence each; empty where it passed.
        figures: What was measured: `old/requests`, `new/failed`, `new/latency_ms_p95`, `agreement`, …
    """

    old: Loaded
    new: Loaded
    violations: tuple[str, ...]
    figures: Mapping[str, float]

    @property
    def reason(self) -> str:
        """The violations in one line, as history and log say them."""
        return f"automatic, after version {self.new.version}: {'; '.join(self.violations)}"


Rollback = Callable[[Verdict], object]

_Key = tuple[str | None, str, str]
"""Version, digest, time of loading: a version that is promoted once more is tried once more."""


class Watch:
    """Tries every new version, and calls `rollback` once for one that does not keep the limits.

    Args:
        limits: What is to be kept.
        rollback: Takes the champion back; called in a thread of its own, its errors are logged.
        ended: Is told of every trial's end, after the rollback where there was one, in that thread.
    """

    def __init__(
        self, limits: RollbackLimits, rollback: Rollback, *, ended: Callable[[Verdict], object] = lambda _: None
    ) -> None:
        self._limits = limits
        self._rollback = rollback
        self._ended = ended
        self._lock = threading.Lock()
        self._stable: Loaded | None = None
        self._tried: Loaded | None = None
        self._trusted: set[str] = set()
        self._left: set[_Key] = set()
        self._rolled_back = False
        self._old: deque[Call] = deque(maxlen=limits.n_requests)
        self._new: list[Call] = []
        self._tally = Tally()

    def served(self, call: Call) -> None:
        """Take the champion's part in a request."""
        with self._lock:
            if not self._is_known(call.model):
                self._swapped(call.model)
            verdict = None
            if self._tried is not None and _key(call.model) == _key(self._tried):
                self._new.append(call)
                verdict = self._judge()
            elif self._stable is not None and _key(call.model) == _key(self._stable):
                self._old.append(call)
                self._rolled_back = False
        if verdict is not None:
            threading.Thread(target=self._conclude, args=(verdict,), name="rollback", daemon=True).start()

    def compared(self, outcome: Outcome) -> None:
        """Take what a shadow found; only the version on trial is looked at."""
        with self._lock:
            call, tried = outcome.champion, self._tried
            if call is not None and tried is not None and _key(call.model) == _key(tried):
                self._tally.add(outcome)

    def _is_known(self, model: Loaded) -> bool:
        """Return whether it serves, is on trial, or answers late what came before a swap."""
        known = {_key(one) for one in (self._stable, self._tried) if one is not None}
        return _key(model) in known | self._left

    def _swapped(self, model: Loaded) -> None:
        self._leave(self._tried)
        self._new, self._tally = [], Tally()
        if self._stable is not None and not self._rolled_back and model.sha256 not in self._trusted:
            self._tried = model
            return
        self._leave(self._stable)
        self._stable, self._tried, self._rolled_back = model, None, False
        self._trusted.add(model.sha256)
        self._old.clear()

    def _leave(self, model: Loaded | None) -> None:
        if model is not None:
            self._left.add(_key(model))

    def _judge(self) -> Verdict | None:
        """Return the verdict on the version on trial, None while it is not ripe."""
        assert self._stable is not None
        assert self._tried is not None
        n = self._limits.n_requests
        violations = list(self._errors())
        if not violations and len(self._new) < n:
            return None
        if len(self._new) >= n:
            violations += [*self._latency(), *self._disagreement()]
        verdict = Verdict(self._stable, self._tried, tuple(violations), self._figures())
        self._leave(self._tried if violations else self._stable)
        if violations:
            self._rolled_back = True
        else:
            self._stable = self._tried
            self._trusted.add(self._stable.sha256)
            self._old = deque(self._new, maxlen=n)
        self._tried = None
        return verdict

    def _errors(self) -> list[str]:
        """Say that too many failed, as soon as that is certain whatever comes of the rest."""
        limit, n = self._limits.errors, self._limits.n_requests
        if limit is None:
            return []
        failed = sum(call.failed for call in self._new)
        before = sum(call.failed for call in self._old) / max(1, len(self._old))
        if failed / n <= max(limit, before):
            return []
        return [f"{failed} of {len(self._new)} requests failed (errors={limit:g} of {n}, before {before:.3g})"]

    def _latency(self) -> list[str]:
        new, old = _p95(self._new), _p95(self._old)
        absolute, relative, said = self._limits.p95_ms, self._limits.p95, []
        if new is not None and absolute is not None and new > absolute:
            said.append(f"p95 {new:.1f} ms (p95_ms={absolute:g})")
        enough = sum(not call.failed for call in self._old) >= min(MIN_MEASURED, self._limits.n_requests)
        if enough and new is not None and old is not None and relative is not None and new > relative * old:
            said.append(f"p95 {new:.1f} ms is {new / old:.2f} times the {old:.1f} ms before (p95={relative:g})")
        return said

    def _disagreement(self) -> list[str]:
        found, limit = self._tally.agreement, self._limits.agreement
        n = int(self._tally.metrics().get("pairs", 0))
        if found is None or limit is None or found >= limit or n < min(MIN_MEASURED, self._limits.n_requests):
            return []
        return [f"agreement {found:.3f} on {n} images (agreement={limit:g})"]

    def _figures(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for side, calls in (("old", self._old), ("new", self._new)):
            values |= {f"{side}/requests": len(calls), f"{side}/failed": sum(call.failed for call in calls)}
            if (p95 := _p95(calls)) is not None:
                values[f"{side}/latency_ms_p95"] = p95
        return values if self._tally.agreement is None else {**values, "agreement": self._tally.agreement}

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.violations:
            _logger.warning("rolling back: %s", verdict.reason)
            try:
                self._rollback(verdict)
            except Exception as error:  # the server goes on with what it serves
                _logger.error("the rollback failed, version %s goes on: %s", verdict.new.version, error)
                with self._lock:
                    self._rolled_back = False
        else:
            _logger.info("version %s has passed its trial of %d requests", verdict.new.version, self._limits.n_requests)
        try:
            self._ended(verdict)
        except Exception:
            _logger.exception("the trial could not be recorded")


class Watched:
    """A backend whose every request is shown to a `Watch`."""

    def __init__(self, backend: Backend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 -- frozen
        """Take an image; see `Backend.submit`."""
        future = self._backend.submit(image, options)
        future.add_done_callback(self._answered)
        return future

    def status(self) -> Status:
        """Return how the backend is."""
        return self._backend.status()

    def close(self, grace_s: float) -> None:
        """Close the backend."""
        self._backend.close(grace_s)

    def _answered(self, done: "Future[Answer]") -> None:
        call = call_of(done, self._backend)
        if call is not None:
            self._watch.served(call)


def _p95(calls: "deque[Call] | list[Call]") -> float | None:
    measured = [call.latency_ms for call in calls if call.latency_ms is not None]
    return float(np.percentile(measured, 95)) if measured else None


def _key(model: Loaded) -> _Key:
    return (model.version, model.sha256, model.loaded_at)
