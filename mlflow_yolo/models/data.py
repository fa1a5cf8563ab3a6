"""Data as Ultralytics takes it, and where what comes of it is written."""

import itertools
import time
from dataclasses import replace
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, write_ultralytics_yaml
from mlflow_yolo.datasets.digits import EMBEDDED
from mlflow_yolo.exceptions import ArgumentError, CheckpointError

DEFAULT_IMGSZ = 640
EMBEDDED_IMGSZ = 128
AUTO = "auto"


def localise(dataset: Dataset, directory: Path) -> Dataset:
    """Return the dataset with a data.yaml in `directory` that means the same from every working directory.

    Ultralytics resolves a relative `path:` against the working directory and its own settings; the user's file is left
    as it is.
    """
    return replace(dataset, yaml=write_ultralytics_yaml(dataset, directory))


def default_imgsz(data: str) -> int:
    """Return the input size for a dataset the user gave no size for: 128 for the embedded digits, else 640."""
    return EMBEDDED_IMGSZ if data in EMBEDDED else DEFAULT_IMGSZ


def choose_split(dataset: Dataset, split: str) -> str:
    """Return the split that `split` means: itself, or for `auto` test where there is one, else val.

    Raises:
        ArgumentError: The data has no such split.
    """
    if split == AUTO:
        return "test" if "test" in dataset.splits else "val"
    if split not in dataset.splits:
        raise ArgumentError(f"split={split} does not exist in {dataset.name}. Use one of {', '.join(dataset.splits)}.")
    return split


def new_directory(output: Path, word: str) -> Path:
    """Return a new folder below `output`, named after what is done in it and the time.

    Raises:
        ArgumentError: It cannot be made.
    """
    first = output.expanduser().resolve() / time.strftime(f"{word}-%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        directory = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue  # another one that started in the same second
        except OSError as error:
            raise ArgumentError(
                f"output={output} cannot be written: {error.strerror or error}. Choose another folder with --output."
            ) from error
    raise AssertionError("counting does not end")


def check_names(names: tuple[str, ...], dataset: Dataset, *, model: str) -> None:
    """Raise CheckpointError where a model's classes are not those of the data, naming the first that differs."""
    if len(names) != len(dataset.names):
        raise CheckpointError(
            f"model={model} has {len(names)} classes and {dataset.name} has {len(dataset.names)}. "
            "Use the data the model was trained for."
        )
    for index, (ours, theirs) in enumerate(zip(names, dataset.names, strict=True)):
        if ours != theirs:
            raise CheckpointError(
                f"model={model} calls class {index} {ours!r} and {dataset.name} calls it {theirs!r}. "
                "Use the data the model was trained for."
            )


def check_task(task: str, dataset: Dataset) -> None:
    """Raise ArgumentError where a model's task is not that of the data."""
    if task != dataset.task:
        raise ArgumentError(
            f"the model is for {task}, the data for {dataset.task}. "
            f"Use data labelled for {task} or a {dataset.task} model."
        )
