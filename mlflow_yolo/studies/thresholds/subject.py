"""The model and the data whose operating point is looked for, checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.arguments import check_device, check_imgsz, check_positive
from mlflow_yolo.models.checkpoint import EMBEDDED, read_model
from mlflow_yolo.models.data import AUTO, check_names, choose_split
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.variant import VARIANT_FILE, is_variant

TASKS = ("detect", "segment")
CHOOSING_SPLIT = "val"
CHECKPOINTS = (".pt", ".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its data.

    Attributes:
        source: What is run: a located checkpoint, or a variant's folder or exported file.
        is_variant: Which of the two.
        name: Its file, folder, or address in the registry.
        sha256: Digest of the file.
        task: `detect` or `segment`.
        names: Class names by id.
        dataset: The data.
        reporting: Split that the point is reported on; where it is `val`, too, by cross-fitting.
        imgsz: Side of the input, pixels.
        batch: Images a batch.
        device: A checked device.
        registered: The registered version that it is, None where it was named otherwise.
    """

    source: str
    is_variant: bool
    name: str
    sha256: str
    task: str
    names: tuple[str, ...]
    dataset: Dataset
    reporting: str
    imgsz: int
    batch: int
    device: str
    registered: Fetched | None = None

    @property
    def label(self) -> str:
        """The model's file and the beginning of its digest."""
        return f"{self.name} ({self.sha256[:12]})" if self.sha256 else self.name

    @property
    def is_held_out(self) -> bool:
        """Whether the point is reported on images that were not chosen on."""
        return self.reporting != CHOOSING_SPLIT

    @property
    def folder(self) -> Path | None:
        """The folder with the variant's `variant.json`, None where there is none."""
        path = Path(self.source)
        return next((one for one in (path, path.parent) if self.is_variant and is_variant(one)), None)


def read_subject(
    model: str | Fetched, data: str, *, split: str, imgsz: int | None, batch: int, device: str, trust: bool
) -> Subject:
    """Return a model and its data.

    Args:
        model: A `.pt` checkpoint, `digits`, a variant's folder, an export, or a registered version.
        data: As for a training.
        split: `val`, `test`, or `auto` for test where there is one.
        imgsz: Side of the input, None for the one the model was trained with; of an exported model its own.
        batch: Images a batch.
        device: A device, or `auto`.
        trust: Load a checkpoint that names foreign classes.

    Raises:
        InputError: One of them does not exist, cannot be used, or does not fit the other.
    """
    check_positive(batch=batch)
    if split == "train":
        raise ArgumentError(
            "split=train: the model has learnt these images, so every threshold looks good. Use val or test."
        )
    registered = model if isinstance(model, Fetched) else None
    path = str(registered.folder if registered else model)
    exported = path not in EMBEDDED and Path(path).suffix not in CHECKPOINTS and Path(path).exists()
    called = registered.uri if registered else path
    found = _exported(Path(path), imgsz, called) if exported else _checkpoint(path, imgsz, trust=trust)
    dataset = load_dataset(data, task=found.task)
    check_names(found.names, dataset, model=called)
    if CHOOSING_SPLIT not in dataset.splits:
        raise ArgumentError(f"data={dataset.name} has no {CHOOSING_SPLIT} split to choose on. Add one to data.yaml.")
    return Subject(
        source=found.source,
        is_variant=exported,
        name=registered.uri if registered else found.name,
        sha256=found.sha256,
        task=found.task,
        names=found.names,
        dataset=dataset,
        reporting=choose_split(dataset, split or AUTO),
        imgsz=found.imgsz,
        batch=batch,
        device="cpu" if exported else check_device(device),
        registered=registered,
    )


@dataclass(frozen=True)
class _Found:
    source: str
    name: str
    sha256: str
    task: str
    names: tuple[str, ...]
    imgsz: int


def _checkpoint(model: str, imgsz: int | None, *, trust: bool) -> _Found:
    found = read_model(model, trust=trust)
    _check_task(model, found.task)
    size = found.imgsz if imgsz is None else check_imgsz(imgsz)
    return _Found(found.source, Path(found.source).name, found.sha256, found.task, found.names, size)


def _exported(path: Path, imgsz: int | None, called: str) -> _Found:
    file, variant = describe(path)
    _check_task(called, variant.task)
    if imgsz is not None and (imgsz, imgsz) != variant.imgsz:
        own = "x".join(map(str, variant.imgsz))
        raise ArgumentError(
            f"imgsz={imgsz}, but {called} is made for {own}. Leave imgsz out, or export it at that size."
        )
    folder = path.parent if path.name == VARIANT_FILE else path
    name = folder.name if folder.is_dir() else file.name
    return _Found(str(folder), name, variant.sha256, variant.task, variant.names, max(variant.imgsz))


def _check_task(model: str, task: str) -> None:
    if task == "classify":
        raise CheckpointError(
            f"model={model} is a classifier: it has no conf and IoU to choose. Use a model for detect or segment."
        )
    if task not in TASKS:
        raise CheckpointError(f"model={model} is for {task}. Thresholds are chosen for {' and '.join(TASKS)}.")
