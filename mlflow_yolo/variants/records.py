"""What a comparison leaves for a registry: one record a variant, with its predictions and its parent's."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mlflow_yolo import keys
from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, Measured, Record, Scores, write_record
from mlflow_yolo.runtime.accuracy import agreement_with, difference
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.parity import Parity, parity
from mlflow_yolo.runtime.speed import speedup
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.variant import digest
from mlflow_yolo.variants.checkpoints import open_pipeline
from mlflow_yolo.variants.comparison import Comparison, Entry, Row, parent_of, predictions_file
from mlflow_yolo.variants.exactness import N_IMAGES
from mlflow_yolo.variants.results import FOLDER, tags
from mlflow_yolo.variants.table import machine

RECORDS = "records"
FLOAT32_KINDS = ("fp32-onnx", "fp32-openvino")
"""Kinds that must compute what their checkpoint computes."""


def write_records(
    comparison: Comparison,
    directory: Path,
    *,
    command: str,
    checkpoints: Sequence[Path] = (),
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Path]:
    """Write `benchmark/records/<row>/` for every variant of a comparison, and return the folders.

    Args:
        comparison: What was measured.
        directory: The folder that `compare` worked in, after `log_results`: the rows' runs are read from it.
        command: What measured it, `compress` or `benchmark`.
        checkpoints: Checkpoints that float32 exports are compared with; those in the comparison always are.
        more: Further tags by candidate.
    """
    rows = [row for row in comparison.rows if row.entry.variant is not None]
    at_hand = [*(row.entry.path for row in comparison.rows if row.entry.variant is None), *checkpoints]
    by_digest = {digest(path): path for path in at_hand if path.is_file()}
    folders = []
    for row in rows:
        folder = directory / FOLDER / RECORDS / keys.segment(row.entry.name)
        folder.mkdir(parents=True, exist_ok=True)
        parent = parent_of(row, comparison)
        _copy_predictions(row, comparison, directory, folder / PREDICTIONS)
        _copy_predictions(parent, comparison, directory, folder / PARENT_PREDICTIONS)
        exact = _parity(row.entry, by_digest, comparison) if row.accuracy is not None else None
        known = read_run_file(directory / "runs" / keys.segment(row.entry.name))
        record = Record(
            variant=_measured(row, comparison),
            parent=_measured(parent, comparison) if parent else None,
            agreement=_agreement(parent, row),
            parity=asdict(exact) if exact else None,
            run_id=known.run_id if known else None,
            tags={**tags(row, comparison), **(more or {}).get(row.entry.name, {}), **_against(parent, row, comparison)},
            about={
                "command": command,
                "machine": machine(comparison),
                "data": comparison.dataset.name,
                "tracking_uri": known.tracking_uri if known else "",
                "folder": os.path.relpath(row.entry.path.resolve(), directory.resolve()),
                "error": row.error,
            },
        )
        write_record(folder, record)
        folders.append(folder)
    return folders


def _measured(row: Row, comparison: Comparison) -> Measured:
    accuracy, variant = row.accuracy, row.entry.variant
    scores = accuracy and Scores(
        metric=comparison.metric,
        values=dict(accuracy.values),
        per_class=dict(accuracy.per_class),
        split=accuracy.split,
        n_images=accuracy.n_images,
        dataset=comparison.dataset.fingerprint,
        conf=accuracy.conf,
    )
    sha256 = variant.sha256 if variant else digest(row.entry.path)
    return Measured(row.entry.name, row.entry.kind, sha256, row.cost, scores or None)


def _agreement(parent: Row | None, row: Row) -> float:
    if parent is None or parent.accuracy is None or row.accuracy is None:
        return float("nan")
    return agreement_with(parent.accuracy, row.accuracy)


def _against(parent: Row | None, row: Row, comparison: Comparison) -> dict[str, str]:
    """Return how a variant stands against its parent, as tags: `parent.speedup`, `parent.change_points`, ..."""
    if parent is None:
        return {}
    found = {"parent.name": parent.entry.name, "parent.kind": parent.entry.kind}
    found["parent.sha256"] = parent.entry.variant.sha256 if parent.entry.variant else digest(parent.entry.path)
    if not (row.cost.error or parent.cost.error):
        ratio = speedup(parent.cost, row.cost)
        found["parent.speedup"] = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    if row.accuracy is not None and parent.accuracy is not None:
        change = difference(parent.accuracy, row.accuracy, n_classes=len(comparison.dataset.names))
        ends = (round(100 * value, 2) + 0.0 for value in (change.difference, change.low, change.high))
        found["parent.change_points"] = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*ends)
        found["parent.agreement"] = f"{_agreement(parent, row):.4f}"
    return found


def _parity(entry: Entry, checkpoints: Mapping[str, Path], comparison: Comparison) -> Parity | None:
    """Return how far a float32 export is from its checkpoint, None where the two cannot be compared."""
    variant = entry.variant
    if variant is None or variant.kind not in FLOAT32_KINDS:
        return None
    checkpoint = checkpoints.get(str(variant.sources.get("checkpoint_sha256")))
    if checkpoint is None:
        return None
    images = [read_image(file) for file in comparison.dataset.splits[comparison.split].images[:N_IMAGES]]
    try:
        return parity(open_pipeline(checkpoint, imgsz=max(variant.imgsz)), open_pipeline(entry.path), images)
    except MlflowYoloError:
        return None


def _copy_predictions(row: Row | None, comparison: Comparison, directory: Path, to: Path) -> None:
    """Put what a row predicts into a record; an older file goes where there is none any more."""
    if row is None or row.accuracy is None:
        to.unlink(missing_ok=True)
        return
    unfinished = to.with_name(f".{to.name}.part")
    shutil.copyfile(predictions_file(row.entry, comparison.dataset, comparison.split, directory), unfinished)
    unfinished.replace(to)
