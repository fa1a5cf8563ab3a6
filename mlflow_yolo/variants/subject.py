"""What variants are made of, or measured beside: a model and its data, checked before anything is written."""

from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.arguments import check_imgsz
from mlflow_yolo.models.checkpoint import REGISTRY_PREFIX, Model, read_model
from mlflow_yolo.models.data import AUTO, check_names, choose_split
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.links import link_tags
from mlflow_yolo.variant import is_variant, read_variant

TASKS = ("detect", "segment", "classify")
"""The tasks whose output the runtime reads."""


STRIDE = 32
"""Largest stride of the models that variants are made of, pixels."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its data.

    Attributes:
        model: The located checkpoint; of a variant what its folder says.
        data: The data as the user named it.
        dataset: The same, read.
        split: The split that results are reported on.
        imgsz: Side of the input, pixels.
        registered: The registered version that it is, None where it was named otherwise.
    """

    model: Model
    data: str
    dataset: Dataset
    split: str
    imgsz: int
    registered: Fetched | None = None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file, or the variant's folder."""
        return Path(self.model.source)

    @property
    def label(self) -> str:
        """The file, folder or address in the registry, and the beginning of its digest."""
        name = self.registered.uri if self.registered else self.checkpoint.name
        return f"{name} ({self.model.sha256[:12]})"

    @property
    def tags(self) -> dict[str, str]:
        """What its run says of the registered version, empty where it is none."""
        return link_tags(self.registered) if self.registered else {}

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
    if model != "digits" and Path(model).suffix != ".pt" and not model.startswith(REGISTRY_PREFIX):
        raise CheckpointError(f"model={model} is no checkpoint: variants are made of a trained .pt file. Name one.")
    found = read_model(model, trust=trust)
    if found.task not in TASKS:
        raise CheckpointError(f"model={model} is for {found.task}; variants are made for {', '.join(TASKS)}.")
    dataset = load_dataset(data, task=found.task)
    check_names(found.names, dataset, model=model)
    size = found.imgsz if imgsz is None else check_size(imgsz, task=found.task)
    return Subject(found, data, dataset, choose_split(dataset, split), size)


def read_measured(
    model: str | Fetched, data: str, *, split: str = AUTO, imgsz: int | None = None, trust: bool = False
) -> Subject:
    """Return what is measured and its data: a checkpoint as in `read_subject`, or a variant.

    Args:
        model: Also a variant's folder, or a registered version.
        data: As for a training.
        split: As in `read_subject`.
        imgsz: As in `read_subject`; a variant has its own.
        trust: As in `read_subject`.

    Raises:
        InputError: As in `read_subject`; also where a variant's bytes have changed.
    """
    registered = model if isinstance(model, Fetched) else None
    folder = registered.folder if registered else Path(str(model)).expanduser()
    if not is_variant(folder):
        return read_subject(str(model), data, split=split, imgsz=imgsz, trust=trust)
    variant, called = read_variant(folder), registered.uri if registered else str(model)
    if imgsz is not None and (imgsz, imgsz) != variant.imgsz:
        own = "x".join(map(str, variant.imgsz))
        raise ArgumentError(f"imgsz={imgsz}, but {called} is made for {own}. Leave imgsz out.")
    dataset = load_dataset(data, task=variant.task)
    check_names(variant.names, dataset, model=called)
    source = folder.parent if folder.is_file() else folder
    found = Model(str(source), variant.task, (), variant.sha256, variant.names, max(variant.imgsz))
    return Subject(found, data, dataset, choose_split(dataset, split), found.imgsz, registered)


def check_size(imgsz: int, *, task: str) -> int:
    """Return `imgsz` if a model can take it.

    Raises:
        ArgumentError: It is below 32, or no multiple of the stride of a model that finds objects.
    """
    if check_imgsz(imgsz) % STRIDE and task != "classify":
        below = imgsz - imgsz % STRIDE
        raise ArgumentError(f"imgsz={imgsz} is no multiple of {STRIDE}. Use for example {below} or {below + STRIDE}.")
    return imgsz
