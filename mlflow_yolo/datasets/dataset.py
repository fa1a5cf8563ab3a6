"""The data set of a run: its splits, its class balance and its fingerprint, checked before anything is trained.

    dataset = load_dataset("data.yaml")     # or "digits", or a classification folder
    dataset.splits["train"].n_objects

Nothing is written into the user's folders.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import yaml

from mlflow_yolo.datasets.data_yaml import DOMAIN_KEY, SPLITS, DataYaml, read_data_yaml
from mlflow_yolo.datasets.digits import EMBEDDED, generate
from mlflow_yolo.datasets.file_checks import Progress, check_all_images, check_all_labels
from mlflow_yolo.datasets.images import ImageCheck, find_images
from mlflow_yolo.datasets.labels import LabelCheck, LabelRules, label_path
from mlflow_yolo.exceptions import DatasetError

TASKS = ("detect", "segment", "classify", "pose", "obb")

_FOLDERS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: 'train', 'val' or 'test'.
        images: Absolute paths in Ultralytics' order.
        labels: Label file of each image; None for an image without one (a background) and for classification.
        objects_per_class: Number of labelled objects by class id; for classification, of images.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path | None, ...]
    objects_per_class: tuple[int, ...]
    n_backgrounds: int

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def n_objects(self) -> int:
        """Number of labelled objects; for classification, of images."""
        return sum(self.objects_per_class)


@dataclass(frozen=True)
class ClassCount:
    """One row of the class balance.

    Attributes:
        class_id: The class.
        name: Its name.
        objects: Number of objects by split name; a split that is not there has no key.
    """

    class_id: int
    name: str
    objects: Mapping[str, int]


@dataclass(frozen=True)
class Dataset:
    """A checked data set.

    Attributes:
        name: An embedded name, or the stem of data.yaml (its folder's name when the file is called data.yaml).
        yaml: The data.yaml as found; for classification the folder. Give Ultralytics `write_ultralytics_yaml(...)`.
        root: Folder that the split paths are relative to.
        task: 'detect', 'segment', 'classify', 'pose' or 'obb'.
        names: Class names by id.
        splits: 'train', 'val' and, where there is one, 'test'.
        fingerprint: 16 hex digits over class names, image names, image bytes and label bytes; the same wherever the
            folder lies.
        domain: What the pixels are, such as 'log-chromaticity' (`mlflow_yolo_domain` in data.yaml); '' otherwise.
        description: The data.yaml as read; None for classification.
    """

    name: str
    yaml: Path
    root: Path
    task: str
    names: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    domain: str = ""
    description: DataYaml | None = field(default=None, repr=False, compare=False)

    def class_balance(self) -> tuple[ClassCount, ...]:
        """Return the number of objects of every class in every split, by class id."""
        return tuple(
            ClassCount(
                class_id=index,
                name=name,
                objects=MappingProxyType({key: split.objects_per_class[index] for key, split in self.splits.items()}),
            )
            for index, name in enumerate(self.names)
        )


def load_dataset(
    data: str | Path,
    *,
    progress: Progress | None = None,
    task: str | None = None,
    datasets_dir: Path | None = None,
) -> Dataset:
    """Return a data set whose every image and label was read once.

    Args:
        data: An embedded name (`mlflow_yolo.datasets.digits.EMBEDDED`; generated on first use), a data.yaml or a
            folder: of a classification data set (train/, val/ and maybe test/ with one folder a class), or one that
            holds a data.yaml.
        progress: Called while files are checked.
        task: What the labels are for. None decides: polygons are 'segment', boxes 'detect', a `kpt_shape` 'pose'.
            'obb' is never guessed: its 9 columns are also a polygon of 4 points.
        datasets_dir: Ultralytics' datasets directory, the last place a relative `path:` is looked up in.

    Raises:
        DatasetError: The data set is missing or malformed; one line with cause, value and remedy.
    """
    if task is not None and task not in TASKS:
        raise DatasetError(f"task={task!r} is not a task. Use one of {', '.join(TASKS)}.")
    if str(data) in EMBEDDED and not Path(data).exists():
        return _load(generate(str(data)), name=str(data), progress=progress, task=task, datasets_dir=None)
    path = Path(data).expanduser()
    if not path.exists():
        raise DatasetError(
            f"data={data} does not exist. Name a data.yaml, a classification folder or one of {', '.join(EMBEDDED)}."
        )
    return _load(path.absolute(), name=None, progress=progress, task=task, datasets_dir=datasets_dir)


def write_ultralytics_yaml(dataset: Dataset, directory: Path) -> Path:
    """Return a data.yaml in `directory` that means the same from every working directory; give it to Ultralytics.

    All keys of the original are kept except `path`, which becomes absolute, and `download`. For classification the
    folder itself is returned and nothing is written.
    """
    source = dataset.description
    if source is None:
        return dataset.root
    content = {key: value for key, value in source.content.items() if key not in ("download", "validation")}
    content["path"] = str(source.root)
    for split, paths in source.sources.items():
        content[split] = [str(path) for path in paths] if len(paths) > 1 else str(paths[0])
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "data.yaml"
    temporary = directory / f".data.yaml.{os.getpid()}"
    temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(temporary, target)
    return target


def _load(
    path: Path, *, name: str | None, progress: Progress | None, task: str | None, datasets_dir: Path | None
) -> Dataset:
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in (".yaml", ".yml") and entry.is_file())
        if task != "classify" and len(inside) == 1:
            path = inside[0]
        elif task in (None, "classify"):
            return _load_folders(path.resolve(), name=name, progress=progress)
        else:
            raise DatasetError(
                f"{path} is a folder without a data.yaml, but task={task} needs one. Name the data.yaml."
            )
    elif task == "classify":
        raise DatasetError(f"{path} is a file, but task=classify needs a folder with train/ and val/. Name the folder.")
    return _load_yaml(read_data_yaml(path, datasets_dir=datasets_dir), name=name, progress=progress, task=task)


def _load_yaml(description: DataYaml, *, name: str | None, progress: Progress | None, task: str | None) -> Dataset:
    file = description.file
    images: dict[str, list[Path]] = {}
    for split, sources in description.sources.items():
        images[split] = sorted(image for source in sources for image in _find_images(source))
        if not images[split]:
            raise DatasetError(f"{file}: no images in '{split}': {sources[0]}. Correct '{split}:' or add images.")
    wanted = task or ("pose" if description.kpt_shape else None)
    rules = LabelRules(n_classes=len(description.names), task=wanted, kpt_shape=description.kpt_shape)
    checks = check_all_images([image for split in images.values() for image in split], progress=progress)
    splits: dict[str, Split] = {}
    labels: dict[Path, LabelCheck] = {}
    for split, paths in images.items():
        candidates = [label_path(image) for image in paths]
        present = [candidate if candidate.is_file() else None for candidate in candidates]
        labels |= check_all_labels([candidate for candidate in present if candidate is not None], rules)
        splits[split] = _make_split(split, paths, present, labels, len(description.names))
        if not splits[split].n_objects:
            raise DatasetError(
                f"{file}: '{split}' has no labels at all: {len(paths)} images, no object "
                f"(looked for {candidates[0]}). Put the label files there"
                + (", or remove 'test:'." if split == "test" else ".")
            )
    return Dataset(
        name=name or (file.stem if file.stem != "data" else file.parent.name),
        yaml=file,
        root=description.root,
        task=wanted or _decide_task(file, labels),
        names=description.names,
        splits=MappingProxyType(splits),
        fingerprint=_fingerprint(description.names, description.root, splits, checks, labels),
        domain=description.domain,
        description=description,
    )


def _load_folders(root: Path, *, name: str | None, progress: Progress | None) -> Dataset:
    folders = {
        split: next((root / word for word in words if (root / word).is_dir()), None)
        for split, words in _FOLDERS.items()
    }
    for split in ("train", "val"):
        if folders[split] is None:
            raise DatasetError(
                f"{root} has no folder '{split}' and no data.yaml. "
                f"Add {split}/<class>/ with images, or name the data.yaml."
            )
    train = folders["train"]
    assert train is not None
    names = tuple(sorted(entry.name for entry in train.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not names:
        raise DatasetError(f"{train} has no class folders. Put the images into {train.name}/<class>/.")
    splits = {
        split: _make_folder_split(split, folder, names) for split, folder in folders.items() if folder is not None
    }
    checks = check_all_images([image for split in splits.values() for image in split.images], progress=progress)
    return Dataset(
        name=name or root.name,
        yaml=root,
        root=root,
        task="classify",
        names=names,
        splits=MappingProxyType(splits),
        fingerprint=_fingerprint(names, root, splits, checks, {}),
    )


def _make_folder_split(split: str, folder: Path, names: tuple[str, ...]) -> Split:
    extra = sorted({entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."} - set(names))
    if extra:
        raise DatasetError(f"{folder} has a class that train has not: {extra[0]}. Remove it or add it to train/.")
    by_class = [_find_images(folder / name) if (folder / name).is_dir() else [] for name in names]
    if not any(by_class):
        raise DatasetError(f"No images in {folder}. Put the images into {folder.name}/<class>/.")
    images = tuple(image for found in by_class for image in found)
    return Split(
        name=split,
        images=images,
        labels=(None,) * len(images),
        objects_per_class=tuple(len(found) for found in by_class),
        n_backgrounds=0,
    )


def _make_split(
    split: str, images: Sequence[Path], labels: Sequence[Path | None], checks: Mapping[Path, LabelCheck], n_classes: int
) -> Split:
    per_image = [checks[label].classes if label is not None else () for label in labels]
    counts = Counter(class_id for classes in per_image for class_id in classes)
    return Split(
        name=split,
        images=tuple(images),
        labels=tuple(labels),
        objects_per_class=tuple(counts[index] for index in range(n_classes)),
        n_backgrounds=sum(not classes for classes in per_image),
    )


def _find_images(source: Path) -> list[Path]:
    try:
        return find_images(source)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{source} is neither a folder nor a readable list of images ({error}). Correct it."
        ) from error


def _decide_task(file: Path, labels: Mapping[Path, LabelCheck]) -> str:
    first = {check.polygons: label for label, check in labels.items() if check.polygons is not None}
    if len(first) > 1:
        raise DatasetError(
            f"{file}: some label files hold polygons ({first[True]}), others boxes ({first[False]}). "
            "Give task=detect to use the boxes of both, or convert them."
        )
    return "segment" if True in first else "detect"


def _fingerprint(
    names: Iterable[str],
    root: Path,
    splits: Mapping[str, Split],
    images: Mapping[Path, ImageCheck],
    labels: Mapping[Path, LabelCheck],
) -> str:
    """Return 16 hex digits of SHA-256 over names and files; an image outside `root` counts under its bare name."""
    lines = [f"class {name!r}" for name in names]
    for split in (splits[name] for name in SPLITS if name in splits):
        rows = []
        for image, label in zip(split.images, split.labels, strict=True):
            where = image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name
            rows.append(f"{split.name} {where!r} {images[image].sha256} {labels[label].sha256 if label else '-'}")
        lines += sorted(rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


__all__ = [
    "DOMAIN_KEY",
    "TASKS",
    "ClassCount",
    "Dataset",
    "Progress",
    "Split",
    "load_dataset",
    "write_ultralytics_yaml",
]
