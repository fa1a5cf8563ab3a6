"""MLflow as the laboratory notebook of Ultralytics YOLO.

Public names are imported when they are first used: reading an error class or the version costs no torch, no
Ultralytics and no MLflow.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_yolo.datasets.dataset import load_dataset as load_dataset
    from mlflow_yolo.exceptions import MlflowYoloError as MlflowYoloError
    from mlflow_yolo.explanation.explain import explain as explain
    from mlflow_yolo.explanation.map import Map as Map
    from mlflow_yolo.registry.flavor import load_model as load_model
    from mlflow_yolo.registry.flavor import log_model as log_model
    from mlflow_yolo.registry.flavor import save_model as save_model
    from mlflow_yolo.runtime.detector import Detector as Detector
    from mlflow_yolo.studies.freeze.ablation import run_freeze_ablation as run_freeze_ablation
    from mlflow_yolo.studies.freeze.question import FreezeQuestion as FreezeQuestion
    from mlflow_yolo.tracking.autolog import autolog as autolog
    from mlflow_yolo.tracking.autolog import track as track
    from mlflow_yolo.tracking.blocks.statistics_files import load_statistics as load_statistics
    from mlflow_yolo.tracking.delivery.replay import replay as replay
    from mlflow_yolo.tracking.run import open_run as open_run

__version__ = "0.1.0"

_HOMES = {
    "Detector": "mlflow_yolo.runtime.detector",
    "FreezeQuestion": "mlflow_yolo.studies.freeze.question",
    "Map": "mlflow_yolo.explanation.map",
    "MlflowYoloError": "mlflow_yolo.exceptions",
    "autolog": "mlflow_yolo.tracking.autolog",
    "explain": "mlflow_yolo.explanation.explain",
    "load_dataset": "mlflow_yolo.datasets.dataset",
    "load_model": "mlflow_yolo.registry.flavor",
    "load_statistics": "mlflow_yolo.tracking.blocks.statistics_files",
    "log_model": "mlflow_yolo.registry.flavor",
    "open_run": "mlflow_yolo.tracking.run",
    "replay": "mlflow_yolo.tracking.delivery.replay",
    "run_freeze_ablation": "mlflow_yolo.studies.freeze.ablation",
    "save_model": "mlflow_yolo.registry.flavor",
    "track": "mlflow_yolo.tracking.autolog",
}

__all__ = [
    "Detector",
    "FreezeQuestion",
    "Map",
    "MlflowYoloError",
    "__version__",
    "autolog",
    "explain",
    "load_dataset",
    "load_model",
    "load_statistics",
    "log_model",
    "open_run",
    "replay",
    "run_freeze_ablation",
    "save_model",
    "track",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
