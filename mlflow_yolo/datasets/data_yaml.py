"""data.yaml: Ultralytics' description of a data set, read by Ultralytics' rules, with one difference.

Ultralytics 8.4.190 takes a relative `path:` from the working directory if it exists there, else from its own datasets
directory (`check_det_dataset`): `path: .` means wherever the command was typed. Here the file's own folder comes
first, then those two; `mlflow_yolo.datasets.dataset.write_ultralytics_yaml` hands Ultralytics the absolute result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.exceptions import DatasetError

SPLITS = ("train", "val", "test")
DOMAIN_KEY = "mlflow_yolo_domain"
"""Our optional key: what the pixels are, such as 'log-chromaticity'; empty means ordinary photographs."""


@dataclass(frozen=True)
class DataYaml:
    """A data.yaml with every path made absolute.

    Attributes:
        file: The data.yaml.
        root: Folder that the split paths are relative to.
        names: Class names by id.
        sources: Folders or .txt lists of images of each split that is given; `test` may be absent.
        kpt_shape: (keypoints, values per keypoint) of a pose data set, else None.
        domain: Value of `mlflow_yolo_domain`, else ''.
        content: The mapping as it was read.
    """

    file: Path
    root: Path
    names: tuple[str, ...]
    sources: Mapping[str, tuple[Path, ...]]
    kpt_shape: tuple[int, int] | None
    domain: str
    content: Mapping[str, Any]


def read_data_yaml(file: Path, *, datasets_dir: Path | None = None) -> DataYaml:
    """Return the description of a data set, checked as far as it goes without opening images.

    Args:
        file: The data.yaml.
        datasets_dir: Ultralytics' datasets directory, the last place a relative `path:` is looked up in.

    Raises:
        DatasetError: The file is missing or malformed, or a split's path does not exist.
    """
    content = _read_mapping(file)
    if "val" not in content and "validation" in content:
        content = {**content, "val": content["validation"]}
    for split in ("train", "val"):
        if not content.get(split):
            raise DatasetError(f"{file} has no '{split}:'. Add the folder of its {split} images.")
    names = _read_names(file, content)
    entries = {split: _read_entries(file, split, content[split]) for split in SPLITS if content.get(split)}
    root = _find_root(file, content.get("path"), entries, datasets_dir)
    sources = {split: tuple(_resolve(root, entry) for entry in found) for split, found in entries.items()}
    for split, paths in sources.items():
        for path in paths:
            if not path.exists():
                raise DatasetError(
                    f"{file}: the path of '{split}' does not exist: {path}. Correct '{split}:' or 'path:' "
                    f"(split paths are relative to {root})."
                )
    return DataYaml(
        file=file,
        root=root,
        names=names,
        sources=sources,
        kpt_shape=_read_kpt_shape(file, content.get("kpt_shape")),
        domain=str(content.get(DOMAIN_KEY) or ""),
        content=content,
    )


def _read_mapping(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}). Name an existing data.yaml.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text file. Name a data.yaml in UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise DatasetError(f"{place} is not YAML ({problem}). Correct that line.") from error
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise DatasetError(f"{file} is {kind}, not a mapping. Write the keys train, val and names.")
    return content


def _read_names(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names, nc = content.get("names"), content.get("nc")
    if nc is not None:
        try:
            n_classes = int(nc)
            if isinstance(nc, bool) or n_classes != float(nc) or n_classes < 1:
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f"{file}: nc: {nc} is no positive whole number. Write the number of classes.") from error
    if names is None:
        if nc is None:
            raise DatasetError(f"{file} has neither 'names:' nor 'nc:'. Add names, a list of the classes.")
        return tuple(f"class_{index}" for index in range(n_classes))
    if not isinstance(names, (list, dict)) or not names:
        raise DatasetError(f"{file}: names: {names!r} is not a list of class names. Write names: [cat, dog].")
    try:
        by_id = {int(key): str(name) for key, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{file}: names has a key that is no class id: {list(names)}. Use 0, 1, 2, ...") from error
    if sorted(by_id) != list(range(len(names))):
        raise DatasetError(
            f"{file}: names has the class ids {sorted(by_id)}, but {len(names)} names need 0 to {len(names) - 1}. "
            "Number them without gaps."
        )
    if nc is not None and n_classes != len(by_id):
        raise DatasetError(f"{file}: nc is {n_classes}, but names lists {len(by_id)} classes. Make them agree.")
    return tuple(by_id[index] for index in range(len(by_id)))


def _read_entries(file: Path, split: str, value: Any) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise DatasetError(f"{file}: {split}: {value!r} is no path. Write a folder, a .txt file or a list of them.")
    return entries


def _read_kpt_shape(file: Path, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        raise DatasetError(f"{file}: kpt_shape: {value!r} is not [keypoints, 2 or 3]. Write e.g. kpt_shape: [17, 3].")
    return value[0], value[1]


def _find_root(file: Path, path: Any, entries: Mapping[str, list[str]], datasets_dir: Path | None) -> Path:
    """Return the folder that splits are relative to: the first candidate that holds the val split."""
    here = file.resolve().parent
    if not path:
        return here
    bases = [here, Path.cwd()] + ([datasets_dir] if datasets_dir else [])
    candidates = [(base / str(path)).resolve() for base in bases]
    for root in candidates:
        if all(_resolve(root, entry).exists() for entry in entries["val"]):
            return root
    return next((root for root in candidates if root.exists()), candidates[0])


def _resolve(root: Path, entry: str) -> Path:
    path = (root / entry).resolve()
    if not path.exists() and entry.startswith("../"):
        return (root / entry[3:]).resolve()
    return path
