"""The file from which an interrupted benchmark goes on."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FORMAT = 1


@dataclass
class Measured:
    """What is known of one candidate: its turns, one a round, or why there are none."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def add(self, turn: Mapping[str, Any]) -> None:
        """Take what a worker answered."""
        if "error" in turn:
            self.error = str(turn["error"])
        else:
            self.turns.append(dict(turn))


@dataclass
class BenchmarkState:
    """What a benchmark has measured.

    Attributes:
        setting: What must be equal for measurements to be kept: machine, images, numbers of runs.
        identities: What was measured, by candidate: digest of the file, how it is opened.
        measured: Turns by candidate.
        benchmark: Identifies the benchmark.
        date: When it began, ISO 8601 in UTC.
        load1: Mean load of the minute before.
    """

    setting: Mapping[str, Any]
    identities: Mapping[str, Any]
    measured: dict[str, Measured]
    benchmark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    load1: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))

    def rounds_done(self) -> int:
        """Return how many rounds every candidate that can be measured has."""
        return min((len(one.turns) for one in self.measured.values() if not one.error), default=0)

    def write(self, path: Path | None) -> None:
        """Write the state; a reader sees the old file or the new one, never half of one."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps({"format": _FORMAT, **asdict(self)}), encoding="utf-8")
        unfinished.replace(path)


def read_state(path: Path | None, *, setting: Mapping[str, Any], identities: Mapping[str, Any]) -> BenchmarkState:
    """Return what was measured before, as far as it may be compared with what will be measured now, else nothing.

    Times are only worth comparing when they were taken side by side. So everything is measured anew as soon as the
    machine, the settings, the images or a file differ or a candidate has joined; only leaving one out keeps the rest.

    Args:
        path: The file; None, a missing, damaged or foreign file mean that nothing was measured.
        setting: See `BenchmarkState`; JSON values.
        identities: See `BenchmarkState`; JSON values.
    """
    new = BenchmarkState(setting, identities, {name: Measured() for name in identities})
    try:
        assert path is not None
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["identities"]
        if content["format"] != _FORMAT or content["setting"] != _as_json(setting):
            return new
        if any(known.get(name) != _as_json(identity) for name, identity in identities.items()):
            return new
        measured = {name: Measured(**content["measured"][name]) for name in identities}
        began = {name: content[name] for name in ("benchmark", "date", "load1")}
        return BenchmarkState(setting, identities, measured, **began)
    except (AssertionError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return new


def _as_json(value: Any) -> Any:
    """Return `value` as it comes back from the file: tuples are lists there, and keys are text."""
    return json.loads(json.dumps(value))
