"""Data sets of the user: what is read, and one clear error for everything that cannot be trained on."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mlflow_yolo.datasets.dataset import Dataset, load_dataset, write_ultralytics_yaml
from mlflow_yolo.datasets.labels import LabelRules, check_labels
from mlflow_yolo.exceptions import DatasetError

SPLITS = ("train", "val", "test")
BOX = "0 0.5 0.5 0.2 0.4"
POLYGON = "1 0.1 0.1 0.5 0.1 0.3 0.6"


def write_image(path: Path, *, side: int = 32, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_dataset(root: Path, *, labels: Mapping[str, str] | None = None, **keys: object) -> Path:
    """Two images a split (a.jpg, b.png), each with one box of class 0; returns data.yaml."""
    for number, split in enumerate(SPLITS):
        for stem in ("a.jpg", "b.png"):
            image = write_image(root / "images" / split / stem, seed=number)
            label = root / "labels" / split / f"{image.stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(BOX + "\n")
    for name, text in (labels or {}).items():
        (root / "labels" / name).write_text(text)
    content = {"path": ".", **{split: f"images/{split}" for split in SPLITS}, "names": ["cat", "dog"], **keys}
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return file


def write_folders(root: Path) -> Path:
    for split, n in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            for index in range(n if name == "cat" else n + 1):
                write_image(root / split / name / f"{index}.png", seed=index)
    return root


def fails(data: Path, *parts: object, task: str | None = None) -> str:
    """Assert that loading fails with one line that names all parts; return the line."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(data, task=task)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def test_counts_are_those_of_the_label_files(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, labels={"train/a.txt": f"{BOX}\n1 0.2 0.2 0.1 0.1\n\n", "val/b.txt": ""})
    (tmp_path / "labels/test/a.txt").unlink()

    dataset = load_dataset(data)

    assert dataset.task == "detect"
    assert dataset.names == ("cat", "dog")
    assert dataset.name == tmp_path.name
    assert dataset.domain == ""
    assert {name: split.objects_per_class for name, split in dataset.splits.items()} == {
        "train": (2, 1),
        "val": (1, 0),
        "test": (1, 0),
    }
    assert [split.n_backgrounds for split in dataset.splits.values()] == [0, 1, 1]
    assert dataset.splits["train"].n_objects == 3
    assert dataset.splits["train"].n_images == 2
    assert dataset.splits["test"].labels == (None, tmp_path / "labels/test/b.txt")
    assert [dict(row.objects) for row in dataset.class_balance()] == [
        {"train": 2, "val": 1, "test": 1},
        {"train": 1, "val": 0, "test": 0},
    ]


def test_images_and_counts_equal_those_of_ultralytics(tmp_path: Path) -> None:
    """Ultralytics reads the resolved yaml to the same files, boxes and classes."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    root = tmp_path / "with images in the name" / "images"
    data = write_dataset(root, labels={"train/a.txt": f"1 -0.005 0.5 0.1 1.005\n{BOX}\n"})
    dataset = load_dataset(data)
    resolved = check_det_dataset(str(write_ultralytics_yaml(dataset, tmp_path / "run")))

    for name, split in dataset.splits.items():
        theirs = YOLODataset(img_path=resolved[name], data=resolved, task="detect", augment=False)
        assert [Path(label["im_file"]) for label in theirs.labels] == list(split.images)
        classes = np.concatenate([label["cls"].ravel() for label in theirs.labels]).astype(int)
        assert tuple(np.bincount(classes, minlength=2)) == split.objects_per_class


def test_path_dot_is_the_yaml_folder_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.data.utils import check_det_dataset

    data = write_dataset(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError):
        check_det_dataset(str(data), autodownload=False)
    written = write_ultralytics_yaml(load_dataset(data), tmp_path / "run")

    assert check_det_dataset(str(written))["val"] == str(tmp_path / "data/images/val")
    assert load_dataset("../data/data.yaml").root == tmp_path / "data"


def test_relative_path_falls_back_to_the_working_directory_and_the_datasets_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "store" / "cells")
    description = tmp_path / "yaml" / "cells.yaml"
    description.parent.mkdir()
    description.write_text("path: cells\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")

    fails(description, "'train'", tmp_path / "yaml" / "cells")
    assert load_dataset(description, datasets_dir=tmp_path / "store").name == "cells"
    monkeypatch.chdir(tmp_path / "store")
    assert load_dataset(description).root == tmp_path / "store" / "cells"


def test_written_yaml_keeps_other_keys_and_drops_download(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, channels=3, download="https://example.org/x.zip", mlflow_yolo_domain="thermal")
    content = yaml.safe_load(write_ultralytics_yaml(load_dataset(data), tmp_path / "run").read_text())

    assert content["channels"] == 3
    assert content["mlflow_yolo_domain"] == "thermal"
    assert content["path"] == str(tmp_path)
    assert "download" not in content
    assert load_dataset(tmp_path / "run/data.yaml").fingerprint == load_dataset(data).fingerprint
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["data.yaml"]


def test_split_may_be_a_list_of_folders_or_a_text_file(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, train=["images/train", "images/test"], val="val.txt", test=None)
    (tmp_path / "val.txt").write_text(f"./images/val/b.png\n{tmp_path}/images/val/a.jpg\n./notes.md\n")

    dataset = load_dataset(data)

    assert dataset.splits["train"].n_images == 4
    assert [image.name for image in dataset.splits["val"].images] == ["a.jpg", "b.png"]
    assert list(dataset.splits) == ["train", "val"]


def test_names_may_be_a_mapping_or_only_a_number(tmp_path: Path) -> None:
    assert load_dataset(write_dataset(tmp_path, names={1: "dog", 0: "cat"}, nc=2)).names == ("cat", "dog")
    assert load_dataset(write_dataset(tmp_path, names=None, nc=3)).names == ("class_0", "class_1", "class_2")


def test_folder_with_one_yaml_is_a_dataset(tmp_path: Path) -> None:
    assert load_dataset(write_dataset(tmp_path).parent).yaml == tmp_path / "data.yaml"


def test_domain_comes_from_the_yaml(tmp_path: Path) -> None:
    assert load_dataset(write_dataset(tmp_path, mlflow_yolo_domain="log-chromaticity")).domain == "log-chromaticity"


def test_fingerprint_does_not_depend_on_the_place(tmp_path: Path) -> None:
    first = load_dataset(write_dataset(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "far" / "away")
    second = load_dataset(tmp_path / "far/away/data.yaml")

    assert re.fullmatch("[0-9a-f]{16}", first.fingerprint)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("change", ["image", "label", "class", "image name", "missing label"])
def test_fingerprint_changes_with_content(tmp_path: Path, change: str) -> None:
    data = write_dataset(tmp_path)
    before = load_dataset(data).fingerprint
    if change == "image":
        write_image(tmp_path / "images/val/a.jpg", seed=99)
    elif change == "label":
        (tmp_path / "labels/val/a.txt").write_text("0 0.5 0.5 0.2 0.41\n")
    elif change == "class":
        write_dataset(tmp_path, names=["cat", "wolf"])
    elif change == "image name":
        (tmp_path / "images/val/a.jpg").rename(tmp_path / "images/val/c.jpg")
        (tmp_path / "labels/val/a.txt").rename(tmp_path / "labels/val/c.txt")
    else:
        (tmp_path / "labels/val/a.txt").unlink()

    assert load_dataset(data).fingerprint != before


def test_progress_counts_every_image_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_dataset(write_dataset(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]


def test_nothing_is_written_beside_the_data(tmp_path: Path) -> None:
    data = write_dataset(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    load_dataset(data)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("labels", "keys", "task", "expected"),
    [
        ({"train/a.txt": POLYGON, "train/b.txt": POLYGON}, {}, "detect", "detect"),
        ({}, {"kpt_shape": [1, 3]}, None, "pose"),
        ({}, {}, "obb", "obb"),
        ({}, {}, None, "segment"),
    ],
)
def test_task_follows_labels_and_argument(
    tmp_path: Path, labels: Mapping[str, str], keys: Mapping[str, object], task: str | None, expected: str
) -> None:
    rows = {"pose": "0 0.5 0.5 0.2 0.4 0.5 0.6 2", "obb": "1 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6"}
    row = rows.get(expected, "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6")
    every = labels or {f"{split}/{stem}.txt": row for split in SPLITS for stem in "ab"}
    assert load_dataset(write_dataset(tmp_path, labels=every, **keys), task=task).task == expected


def test_classification_folder_counts_images_per_class(tmp_path: Path) -> None:
    dataset = load_dataset(write_folders(tmp_path / "pets"))

    assert (dataset.task, dataset.name, dataset.names) == ("classify", "pets", ("cat", "dog"))
    assert {name: split.objects_per_class for name, split in dataset.splits.items()} == {"train": (3, 4), "val": (1, 2)}
    assert dataset.splits["train"].n_backgrounds == 0
    assert write_ultralytics_yaml(dataset, tmp_path / "run") == tmp_path / "pets"
    assert not (tmp_path / "run").exists()


def test_missing_data_is_named_with_the_embedded_names(tmp_path: Path) -> None:
    fails(tmp_path / "none.yaml", tmp_path / "none.yaml", "does not exist", "digits-logchroma")


def test_unknown_task_is_named(tmp_path: Path) -> None:
    fails(write_dataset(tmp_path), "'depth'", "detect", task="depth")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty", "names"]),
        ("- a\n- b\n", ["a list, not a mapping"]),
        ("train: [a\nval: b\n", ["data.yaml:2", "not YAML"]),
        ("val: images/val\nnames: [a]\n", ["no 'train:'"]),
        ("train: images/train\nnames: [a]\n", ["no 'val:'"]),
        ("train: images/train\nval: images/val\n", ["neither 'names:' nor 'nc:'"]),
        ("train: images/train\nval: images/val\nnames: [a, b, c]\nnc: 2\n", ["nc is 2", "3 classes"]),
        ("train: images/train\nval: images/val\nnames: {0: a, 2: b}\n", ["[0, 2]", "0 to 1"]),
        ("train: images/train\nval: images/val\nnames: {a: 0, b: 1}\n", ["no class id", "'a'"]),
        ("train: images/train\nval: images/val\nnames: cat\n", ["'cat'", "list"]),
        ("train: images/train\nval: images/val\nnames: []\n", ["[]", "list"]),
        ("train: images/train\nval: images/val\nnc: many\n", ["nc: many", "whole number"]),
        ("train: images/train\nval: images/val\nnc: 1.5\n", ["nc: 1.5", "whole number"]),
        ("train: 3\nval: images/val\nnames: [a]\n", ["train: 3", "no path"]),
        ("train: images/nowhere\nval: images/val\nnames: [a]\n", ["'train'", "images/nowhere", "does not exist"]),
        ("train: images/train\nval: [images/val, images/gone]\nnames: [a]\n", ["'val'", "images/gone"]),
        ("train: images/train\nval: images/val\ntest: gone\nnames: [a]\n", ["'test'", "gone"]),
        ("train: images/train\nval: labels/val\nnames: [a]\n", ["no images in 'val'", "labels/val"]),
        ("train: images/train\nval: images/val\nnames: [a]\nkpt_shape: 17\n", ["kpt_shape: 17", "[17, 3]"]),
    ],
)
def test_malformed_yaml_is_one_line_with_the_value(tmp_path: Path, text: str, parts: list[str]) -> None:
    write_dataset(tmp_path)
    file = tmp_path / "data.yaml"
    file.write_text(text)
    fails(file, *parts)


def test_binary_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_bytes(b"\xff\xfe\x00names")
    fails(file, file, "not a text file")


@pytest.mark.parametrize(
    ("row", "task", "parts"),
    [
        ("2 0.5 0.5 0.1 0.1", None, ["class id 2", "0 to 1"]),
        ("-1 0.5 0.5 0.1 0.1", None, ["class id -1"]),
        ("0.5 0.5 0.5 0.1 0.1", None, ["class id 0.5"]),
        ("0 1.2 0.5 0.1 0.1", None, ["1.2", "outside [0, 1]"]),
        ("0 0.5 -0.2 0.1 0.1", None, ["-0.2", "outside [0, 1]"]),
        ("0 0.5 0.5 -0.005 0.1", None, ["width -0.005", "negative"]),
        ("0 0.5 0.5 0.1 x", None, ["'x'", "not a number"]),
        ("0 0.5 0.5 0.1 nan", None, ["'nan'", "not a number"]),
        ("0 0.5 0.5 0.1", None, ["4 columns"]),
        ("0 0.5 0.5 0.1 0.1 0.9", None, ["6 columns"]),
        ("0 0.1 0.1 0.5 0.1 0.3 0.6 0.7", None, ["8 columns"]),
        (POLYGON, None, ["boxes and polygons are mixed"]),
        (BOX, "segment", ["5 columns", "polygon has 7"]),
        (POLYGON, "obb", ["7 columns", "has 9"]),
        (BOX, "pose", ["kpt_shape"]),
    ],
)
def test_bad_label_row_is_named_by_file_and_line(tmp_path: Path, row: str, task: str | None, parts: list[str]) -> None:
    before = f"{BOX}\n\n" if task is None else ""
    data = write_dataset(tmp_path, labels={"val/b.txt": before + row + "\n"})
    if task is not None:
        for file in (tmp_path / "labels").rglob("*.txt"):
            file.write_text(before + row + "\n")
        fails(data, "a.txt:1:", *parts, task=task)
    else:
        fails(data, f"{tmp_path}/labels/val/b.txt:3:", *parts)


def test_pose_columns_must_match_kpt_shape(tmp_path: Path) -> None:
    fails(write_dataset(tmp_path, kpt_shape=[2, 3]), "5 columns", "[2, 3]", "needs 11")


@pytest.mark.parametrize("row", ["0 1.01 0.5 0.1 0.1", "0 -0.01 0.5 0.1 0.1", "1.0 0.5 0.5 1 1"])
def test_rows_within_ultralytics_tolerance_pass(tmp_path: Path, row: str) -> None:
    assert load_dataset(write_dataset(tmp_path, labels={"val/b.txt": row})).splits["val"].n_objects == 2


def test_boxes_here_and_polygons_there_need_a_task(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, labels={"val/b.txt": POLYGON})
    fails(data, "val/b.txt", "polygons", "task=detect")
    assert load_dataset(data, task="detect").splits["val"].objects_per_class == (1, 1)


@pytest.mark.parametrize("split", SPLITS)
def test_split_without_any_object_is_an_error(tmp_path: Path, split: str) -> None:
    data = write_dataset(tmp_path)
    (tmp_path / "labels" / split / "a.txt").unlink()
    (tmp_path / "labels" / split / "b.txt").write_text("")
    fails(data, f"'{split}' has no labels", "2 images", tmp_path / "labels" / split / "a.txt")


def break_empty(file: Path) -> None:
    file.write_bytes(b"")


def break_truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def break_text(file: Path) -> None:
    file.write_text("<html>404</html>")


def break_tiny(file: Path) -> None:
    write_image(file, side=4)


def break_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone")


@pytest.mark.parametrize("name", ["a.jpg", "b.png"])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (break_empty, "0 bytes"),
        (break_truncated, "truncated"),
        (break_text, "not an image"),
        (break_tiny, "4x4 pixels"),
        (break_link, "no such file"),
    ],
)
def test_broken_image_is_named_with_its_cause(
    tmp_path: Path, name: str, damage: Callable[[Path], None], cause: str
) -> None:
    data = write_dataset(tmp_path)
    damage(tmp_path / "images/val" / name)
    message = fails(data, tmp_path / "images/val" / name, cause)
    assert "more of" not in message


def test_many_broken_images_are_counted(tmp_path: Path) -> None:
    data = write_dataset(tmp_path)
    for image in (tmp_path / "images").rglob("*.jpg"):
        break_empty(image)
    fails(data, tmp_path / "images/train/a.jpg", "2 more of 6")


def test_jpeg_with_bytes_behind_its_end_is_usable(tmp_path: Path) -> None:
    data = write_dataset(tmp_path)
    image = tmp_path / "images/val/a.jpg"
    image.write_bytes(image.read_bytes() + b"camera notes")
    assert load_dataset(data).splits["val"].n_images == 2


def test_unreadable_label_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    rules = LabelRules(n_classes=1, task=None, kpt_shape=None)
    check = check_labels(tmp_path, rules)
    assert str(tmp_path) in check.problem
    assert "cannot be read" in check.problem


def test_binary_label_is_named(tmp_path: Path) -> None:
    data = write_dataset(tmp_path)
    (tmp_path / "labels/val/a.txt").write_bytes(b"\xff\xfe\x00")
    fails(data, tmp_path / "labels/val/a.txt", "not a text file")


def test_classification_errors_name_the_folder(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "pets")
    write_image(root / "val/bird/0.png")
    fails(root, root / "val", "bird")
    shutil.rmtree(root / "val")
    fails(root, root, "'val'")
    (root / "val").mkdir()
    fails(root, root / "val", "No images")
    shutil.rmtree(root / "train")
    fails(root, root, "'train'")
    (root / "train").mkdir()
    fails(root, root / "train", "no class folders")


def test_task_and_kind_of_data_must_agree(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "boxes")
    fails(data, data, "classify", task="classify")
    fails(write_folders(tmp_path / "pets"), tmp_path / "pets", "task=detect", task="detect")


def test_embedded_name_gives_the_generated_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = write_dataset(tmp_path / "generated")
    monkeypatch.setattr("mlflow_yolo.datasets.dataset.generate", lambda name: generated)
    dataset: Dataset = load_dataset("digits-shadow")
    assert (dataset.name, dataset.yaml) == ("digits-shadow", generated)
