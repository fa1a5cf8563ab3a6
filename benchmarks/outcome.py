"""What every benchmark ends with: the targets, the figures that explain them, and the machine they were taken on.

    arguments = read_arguments(__doc__)
    ...
    sys.exit(finish(Outcome("handover", ratio=worst_ms / 10.0, target=1.0, targets=targets, figures=figures)))

The last line on stdout is one JSON object: name, ratio, target, ok, targets [{name, value, limit, ok}], figures.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_VERSIONS = ("mlflow-yolo", "torch", "ultralytics", "mlflow", "numpy")


@dataclass(frozen=True)
class Target:
    """One promise and what was measured.

    Attributes:
        name: What is promised, with its conditions: 'gradients and updates every step, 160 px'.
        value: What was measured; None where it could not be, which keeps no promise.
        limit: The most it may be; with `at_least`, the least.
        at_least: Whether more is better.
    """

    name: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether the promise is kept."""
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Outcome:
    """What a benchmark has found.

    Attributes:
        name: The benchmark's module name.
        ratio: The headline: what was measured against its peer or its limit; None where it was not measured.
        target: The limit of `ratio`; None in a run too short to judge.
        targets: Every promise; empty in a run too short to judge.
        figures: Whatever explains the targets; `machine` is added by `finish` unless it was taken at the start.
    """

    name: str
    ratio: float | None
    target: float | None
    targets: Sequence[Target] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool | None:
        """Whether every target holds; None where none was judged, as in `--quick`."""
        return all(target.ok for target in self.targets) if self.targets else None

    def to_json(self) -> str:
        """Return the one line of JSON; numbers are rounded to 6 digits, NaN and infinity become null."""
        targets = [{"name": t.name, "value": t.value, "limit": t.limit, "ok": t.ok} for t in self.targets]
        content = {"name": self.name, "ratio": self.ratio, "target": self.target, "ok": self.ok, "targets": targets}
        return json.dumps(_plain({**content, "figures": self.figures}), allow_nan=False)


def finish(outcome: Outcome) -> int:
    """Print the targets and, as the last line, the outcome; return the exit code: 1 where a target is missed."""
    for target in outcome.targets:
        sign, verdict = (">=" if target.at_least else "<="), ("ok" if target.ok else "MISSED")
        value = "not measured" if target.value is None else f"{target.value:.4g}"
        print(f"{verdict:>6}  {target.name}: {value} ({sign} {target.limit:g})")
    figures = {"machine": machine(), **outcome.figures}
    print(Outcome(outcome.name, outcome.ratio, outcome.target, outcome.targets, figures).to_json(), flush=True)
    return 1 if outcome.ok is False else 0


def read_arguments(description: str | None, argv: Sequence[str] | None = None, **options: str) -> argparse.Namespace:
    """Return the command line of a benchmark: `quick`, a run of seconds that exercises the code and judges no time.

    Args:
        description: Its docstring, whose first line is shown.
        argv: The words, None for those of the process.
        options: Help of what else may be given, by name; None where it is not.
    """
    first_line = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first_line)
    parser.add_argument("--quick", action="store_true", help="a run of seconds that judges no time, for CI")
    for name, text in options.items():
        parser.add_argument(f"--{name}", help=text)
    return parser.parse_args(argv)


def machine() -> dict[str, Any]:
    """Return what the figures were taken on: processor, cores, threads, GPU, load, versions."""
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name.replace("-", "_"): version for name in _VERSIONS if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    """Return a JSON-able copy: numbers rounded, those that are none as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
