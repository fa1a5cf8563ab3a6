"""Data as Ultralytics takes it: the checked dataset, with a data.yaml whose paths are absolute."""

from dataclasses import replace
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, write_ultralytics_yaml
from mlflow_yolo.datasets.digits import EMBEDDED

DEFAULT_IMGSZ = 640
EMBEDDED_IMGSZ = 128


def localise(dataset: Dataset, directory: Path) -> Dataset:
    """Return the dataset with a data.yaml in `directory` that means the same from every working directory.

    Ultralytics resolves a relative `path:` against the working directory and its own settings; the user's file is left
    as it is.
    """
    return replace(dataset, yaml=write_ultralytics_yaml(dataset, directory))


def default_imgsz(data: str) -> int:
    """Return the input size for a dataset the user gave no size for: 128 for the embedded digits, else 640."""
    return EMBEDDED_IMGSZ if data in EMBEDDED else DEFAULT_IMGSZ
