"""What one training leaves behind: values and tables in its run, predictions beside its result file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlflow_yolo import keys
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import save_samples
from mlflow_yolo.tracking.events.final_values import FinalValues, per_class_metrics
from mlflow_yolo.tracking.events.training_files import log_training_files
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training.block_table import BlockRow
from mlflow_yolo.training.measurement import Measurement as Measurement

_LEARNING = ("overfit_gap", "epochs_to_90", "time_to_90_s")


def keep_measurements(measured: Mapping[str, Measurement], directory: Path, *, n_classes: int) -> dict[str, Any]:
    """Save every split's predictions under `predictions/` and return the values as JSON-able data.

    Returns:
        `measured`: per split its values, per-class values and number of images; `predictions`: per split the file's
        path below `directory`; `operating_conf`: the confidence at which mean F1 peaks on val, absent without boxes.
    """
    found: dict[str, Any] = {"measured": {}, "predictions": {}}
    (directory / "predictions").mkdir(parents=True, exist_ok=True)
    for split, measurement in measured.items():
        found["measured"][split] = {
            "values": measurement.values,
            "per_class": {name: dict(values) for name, values in measurement.final.per_class.items()},
            "n_images": measurement.n_images,
        }
        path = directory / "predictions" / f"{split}.npz"
        if measurement.samples:
            save_samples(path, measurement.samples)
        else:
            np.savez_compressed(path, labels=measurement.labels)
        found["predictions"][split] = str(path.relative_to(directory))
    if samples := measured["val"].samples:
        found["operating_conf"] = evaluate(samples, n_classes=n_classes).conf
    return found


def log_results(run: TrackedRun, result: Mapping[str, Any]) -> None:
    """Log the values of a finished training that its callbacks could not know: by size, on test, about learning."""
    values = {f"final/{name}": value for name, value in result["final"].items() if name.startswith("AP-")}
    if test := result["measured"].get("test"):
        values |= {f"test/{name}": value for name, value in test["values"].items()}
        values |= per_class_metrics("test", test["per_class"], most=keys.MAX_CLASSES_ON_TEST)
    values |= {name: result[name] for name in _LEARNING if name in result}
    run.log_metrics(values)


def log_final(run: TrackedRun, final: FinalValues) -> None:
    """Log the values of `best.pt` on val as the callbacks would have done."""
    run.log_metrics({f"final/{name}": value for name, value in final.values.items()})
    run.log_metrics(per_class_metrics("final", final.per_class))


def log_tables(run: TrackedRun, rows: Sequence[BlockRow], measured: Mapping[str, Measurement]) -> None:
    """Log `blocks.csv` and, where there are classes with boxes, `per_class.csv`."""
    run.log_text(pd.DataFrame([asdict(row) for row in rows]).to_csv(index=False), "blocks.csv")
    per_class = [
        {"split": split, "class": name, **values}
        for split, measurement in measured.items()
        for name, values in measurement.final.per_class.items()
    ]
    if per_class:
        run.log_text(pd.DataFrame(per_class).to_csv(index=False), "per_class.csv")


def log_files(run: TrackedRun, save_dir: Path) -> None:
    """Log Ultralytics' own files: arguments, results, plots and the best weights."""
    log_training_files(run, save_dir)
