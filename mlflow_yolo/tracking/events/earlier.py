"""What earlier attempts of a resumed training logged, read back from its journal, so that the run continues as one."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_yolo.tracking.delivery.journal import read_all

EPOCH_SECONDS = "seconds_per_epoch"
"""The metric that marks a record of a whole epoch."""

_NOT_VALUES = frozenset({"epoch", "time"})


@dataclass(frozen=True)
class EarlierAttempts:
    """The attempts before this one.

    Attributes:
        n_attempts: How often the run was opened before.
        params: Its params by key.
        epochs: The values of every finished epoch by its number, counted from 1.
    """

    n_attempts: int = 0
    params: Mapping[str, str] = field(default_factory=dict)
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def arguments(self) -> dict[str, str]:
        """Return Ultralytics' arguments among the params, by their own names."""
        return {key.removeprefix("args/"): value for key, value in self.params.items() if key.startswith("args/")}

    def up_to(self, epoch: int) -> list[dict[str, float]]:
        """Return the values of the epochs that the resumed training builds on, ascending, with `seconds` of each."""
        return [
            {**{key: value for key, value in values.items() if key != EPOCH_SECONDS}, "seconds": values[EPOCH_SECONDS]}
            for number, values in sorted(self.epochs.items())
            if number <= epoch
        ]


def read_earlier(journal: Path) -> EarlierAttempts:
    """Return what `journal` holds of earlier attempts; nothing where there is no journal."""
    n_attempts = 0
    params: dict[str, str] = {}
    epochs: dict[int, Mapping[str, float]] = {}
    for entry in read_all(journal):
        record = entry.record
        kind = record.get("type")
        if kind == "open":
            n_attempts += 1
        elif kind == "params":
            params |= {key: value for key, value in record["values"].items() if key not in params}
        elif kind == "metrics" and EPOCH_SECONDS in record["values"]:
            epochs[int(record["step"])] = record["values"]
    return EarlierAttempts(n_attempts, params, epochs)


def missing_epochs(results_csv: Path, earlier: EarlierAttempts, *, up_to: int) -> dict[int, dict[str, float]]:
    """Return the values of epochs that Ultralytics saved but a kill kept out of the journal.

    Args:
        results_csv: Ultralytics' table, one row an epoch.
        earlier: What the journal holds.
        up_to: The last epoch the resumed training builds on.
    """
    try:
        with results_csv.open(newline="", encoding="utf-8") as file:
            rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
        found = {int(float(row["epoch"])): _numbers(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {epoch: values for epoch, values in found.items() if epoch <= up_to and epoch not in earlier.epochs}


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in _NOT_VALUES and value not in ("", None)}
