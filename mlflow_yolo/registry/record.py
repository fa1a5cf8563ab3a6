"""What was measured of one variant, as a file that travels with its bytes: `record.json` and the predictions.

    <row>/record.json               costs, scores, parity, tags of the variant and of its parent
    <row>/predictions.npz           what it predicted on the split its scores hold for
    <row>/parent_predictions.npz    the same of its parent, absent where there is none

`compress` and `benchmark` leave one folder a variant below `<output>/benchmark/records`; a registered version carries
it as `benchmark/`, so that gates judge what was measured and nothing that somebody typed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult
from mlflow_yolo.runtime.hardware import Hardware

RECORD_FILE = "record.json"
PREDICTIONS = "predictions.npz"
PARENT_PREDICTIONS = "parent_predictions.npz"

_FORMAT = 1


@dataclass(frozen=True)
class Scores:
    """What was scored on one split.

    Attributes:
        metric: Name of the headline value: `mAP50-95`, or `top1`.
        values: Every value by name, in [0, 1].
        per_class: AP50-95 by class name, for classification the share of a class' images that were named right; nan
            for a class that does not occur.
        split: The split.
        n_images: Its images.
        dataset: Fingerprint of the data.
        conf: The confidence with the best mean F1 on this split; nan for classification.
    """

    metric: str
    values: Mapping[str, float]
    per_class: Mapping[str, float]
    split: str
    n_images: int
    dataset: str
    conf: float = math.nan

    @property
    def headline(self) -> float:
        """The value of `metric`."""
        return self.values[self.metric]

    @property
    def worst_class(self) -> tuple[str, float]:
        """The class with the lowest score of those that occur; an empty name and nan where none does."""
        present = {name: value for name, value in self.per_class.items() if not math.isnan(value)}
        name = min(present, key=lambda one: present[one], default="")
        return name, present.get(name, math.nan)


@dataclass(frozen=True)
class Measured:
    """One row of a comparison.

    Attributes:
        name: Its name there.
        kind: `pt`, or the variant's kind.
        sha256: Digest of the file or folder that was measured.
        cost: Latency, throughput, memory, size, and the machine they hold for.
        scores: None where it could not be run.
    """

    name: str
    kind: str
    sha256: str
    cost: BenchmarkResult
    scores: Scores | None


@dataclass(frozen=True)
class Record:
    """What was measured of a variant.

    Attributes:
        variant: The variant itself.
        parent: What it is compared with, measured in the same benchmark: the checkpoint for `fp32-onnx`, else the
            `fp32-onnx` it was made from; None where that was not measured.
        agreement: How far its predictions agree with the parent's at the parent's operating point, in [0, 1]; nan
            without a parent.
        parity: `score_max`, `score_p99`, `box_max_px`, `box_p99_px`, `n_images` of a float32 export against its own
            checkpoint; None for what is no float32 export, or where the checkpoint was not at hand.
        run_id: MLflow's id of the run that logged it; None where no server has answered.
        tags: What its model version is tagged with: `model.*`, `bench.*`, `acc.*`, `quant.*`, `prune.*`, `kd.*`, ...
        about: The `command` that measured it, the `machine` in words, the `data` set's name, the `tracking_uri` of the
            run without password.
    """

    variant: Measured
    parent: Measured | None = None
    agreement: float = math.nan
    parity: Mapping[str, float] | None = None
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


def write_record(folder: Path, record: Record) -> Path:
    """Write `folder/record.json` in one step and return it; a number that is none is written as null."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECORD_FILE
    unfinished = folder / f".{RECORD_FILE}.part"
    text = json.dumps(_plain({"format": _FORMAT, **asdict(record)}), indent=1, ensure_ascii=False, allow_nan=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(file)
    return file


def read_record(folder: Path) -> Record:
    """Return the record of a folder.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    file = folder / RECORD_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
        return _record(content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} holds no {RECORD_FILE}. Measure the variant with mlflow-yolo benchmark."
        ) from None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{file} cannot be read ({reason}). Measure the variant again.") from error


def _plain(value: Any) -> Any:
    """Return what JSON can say: null for nan, a word for infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _record(content: Mapping[str, Any]) -> Record:
    parent, parity = content["parent"], content["parity"]
    return Record(
        variant=_measured(content["variant"]),
        parent=None if parent is None else _measured(parent),
        agreement=_number(content["agreement"]),
        parity=None if parity is None else _numbers(parity),
        run_id=content["run_id"],
        tags={str(name): str(value) for name, value in content["tags"].items()},
        about={str(name): str(value) for name, value in content["about"].items()},
    )


def _measured(content: Mapping[str, Any]) -> Measured:
    scores = content["scores"]
    return Measured(
        name=str(content["name"]),
        kind=str(content["kind"]),
        sha256=str(content["sha256"]),
        cost=_cost(content["cost"]),
        scores=None if scores is None else _scores(scores),
    )


def _scores(content: Mapping[str, Any]) -> Scores:
    numbers = {"values": _numbers(content["values"]), "per_class": _numbers(content["per_class"])}
    scores = Scores(**{**content, **numbers, "conf": _number(content["conf"])})
    if scores.metric not in scores.values:
        raise ValueError(f"{scores.metric} has no value")
    return scores


def _cost(content: Mapping[str, Any]) -> BenchmarkResult:
    floats = {name: _number(value) for name, value in content.items() if name.endswith(("_ms", "_mb", "_s"))}
    hardware = content["hardware"]
    return BenchmarkResult(
        **{
            **content,
            **floats,
            "throughput": {int(size): _number(value) for size, value in content["throughput"].items()},
            "rounds": tuple(_number(value) for value in content["rounds"]),
            "hardware": Hardware(**{**hardware, "versions": dict(hardware["versions"])}),
        }
    )
