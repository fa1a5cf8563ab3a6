"""What variants are made of: a checkpoint and the data it is measured on, checked before anything is written."""

from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.arguments import check_imgsz
from mlflow_yolo.models.checkpoint import Model, read_model
from mlflow_yolo.models.data import AUTO, check_names, choose_split

TASKS = ("detect", "segment", "classify")
"""The tasks whose output the runtime reads."""


STRIDE = 32
"""Largest stride of the models that variants are made of, pixels."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A checkpoint and its data.

    Attributes:
        model: The located checkpoint.
        data: The data as the user named it.
        dataset: The same, read.
        split: The split that results are reported on.
        imgsz: Side of the input, pixels.
    """

    model: Model
    data: str
    dataset: Dataset
    split: str
    imgsz: int

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file."""
        return Path(self.model.source)

    @property
    def label(self) -> str:
        """The checkpoint's file and the beginning of its digest."""
        return f"{self.checkpoint.name} ({self.model.sha256[:12]})"

    def of(self, checkpoint: Path) -> "Subject":
        """Return the same with another checkpoint, one that was made here: pruned, distilled."""
        return replace(self, model=read_model(str(checkpoint), trust=True))

    @property
    def choosing_split(self) -> str:
        """The split that choices are made on: val, so that those of test stay untouched."""
        return "val" if "val" in self.dataset.splits else self.split


def read_subject(model: str, data: str, *, split: str = AUTO, imgsz: int | None = None, trust: bool = False) -> Subject:
    """Return a checkpoint and its data.

    Args:
        model: A `.pt` checkpoint, or `digits`.
        data: As for a training.
        split: `train`, `val`, `test`, or `auto` for test where there is one.
        imgsz: Side of the input, None for the one the model was trained with.
        trust: Load a checkpoint that names foreign classes.

    Raises:
        InputError: One of them does not exist, cannot be used, or does not fit the other.
    """
    if model != "digits" and Path(model).suffix != ".pt":
        raise CheckpointError(f"model={model} is no checkpoint: variants are made of a trained .pt file. Name one.")
    found = read_model(model, trust=trust)
    if found.task not in TASKS:
        raise CheckpointError(f"model={model} is for {found.task}; variants are made for {', '.join(TASKS)}.")
    dataset = load_dataset(data, task=found.task)
    check_names(found.names, dataset, model=model)
    size = found.imgsz if imgsz is None else check_size(imgsz, task=found.task)
    return Subject(found, data, dataset, choose_split(dataset, split), size)


def check_size(imgsz: int, *, task: str) -> int:
    """Return `imgsz` if a model can take it.

    Raises:
        ArgumentError: It is below 32, or no multiple of the stride of a model that finds objects.
    """
    if check_imgsz(imgsz) % STRIDE and task != "classify":
        below = imgsz - imgsz % STRIDE
        raise ArgumentError(f"imgsz={imgsz} is no multiple of {STRIDE}. Use for example {below} or {below + STRIDE}.")
    return imgsz
