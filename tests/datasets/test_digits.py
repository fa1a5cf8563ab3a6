"""The embedded data: the same everywhere, disjoint, honestly labelled, never half-written."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.datasets import digits
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import (
    DEFAULT_FINGERPRINTS,
    EMBEDDED,
    cache_directory,
    compose_scene,
    generate,
    read_objects,
    split_scans,
)
from mlflow_yolo.datasets.log_chromaticity import log_chromaticity
from mlflow_yolo.datasets.scenes import MIN_CHROMATICITY_DISTANCE
from mlflow_yolo.exceptions import DatasetError

SMALL = {"n_train": 12, "n_val": 10, "n_test": 11}
SMALL_FINGERPRINTS = {
    "digits": "4f825d54af50e257",
    "digits-seg": "270195b355b1fee4",
    "digits-cls": "0a8a27dcfea4e26b",
    "digits-shadow": "e77e9e8c1cc1c4eb",
    "digits-logchroma": "00f50e6df430c9ae",
}
TASKS = dict(zip(EMBEDDED, ("detect", "segment", "classify", "detect", "detect"), strict=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Dataset]:
    """Return a function that loads a small version of an embedded data set, generated once."""
    cache = tmp_path_factory.mktemp("cache")
    loaded: dict[str, Dataset] = {}

    def load(name: str) -> Dataset:
        if name not in loaded:
            loaded[name] = load_dataset(generate(name, cache_dir=cache, **SMALL))
        return loaded[name]

    return load


def boxes_of(label: Path, imgsz: int) -> np.ndarray:
    """Return (N, 5): class and xyxy pixels of a label file of boxes or polygons."""
    rows = []
    for line in label.read_text().splitlines():
        class_id, *values = (float(word) for word in line.split())
        if len(values) == 4:
            x, y, w, h = values
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        else:
            points = np.array(values).reshape(-1, 2)
            corners = [*points.min(axis=0), *points.max(axis=0)]
        rows.append([class_id, *(value * imgsz for value in corners)])
    return np.array(rows)


@pytest.mark.parametrize("name", EMBEDDED)
def test_small_version_has_its_task_sizes_and_fingerprint(name: str, small: Callable[[str], Dataset]) -> None:
    dataset = small(name)
    assert dataset.task == TASKS[name]
    assert [split.n_images for split in dataset.splits.values()] == [12, 10, 11]
    assert dataset.names == tuple("0123456789")
    assert dataset.domain == ("log-chromaticity" if name == "digits-logchroma" else "")
    assert dataset.fingerprint == SMALL_FINGERPRINTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_default_version_has_its_recorded_fingerprint(name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.name == name
    assert dataset.fingerprint == DEFAULT_FINGERPRINTS[name]
    assert [split.n_images for split in dataset.splits.values()] == [256, 128, 128]
    assert all(min(split.objects_per_class) > 0 for split in dataset.splits.values())


def test_splits_draw_from_disjoint_scans_that_are_all_of_them() -> None:
    scans = [set(indices.tolist()) for indices in split_scans().values()]
    assert sum(len(part) for part in scans) == len(set.union(*scans)) == 1797
    for split, indices in split_scans().items():
        drawn = {scan for index in range(30) for scan in compose_scene("digits", split, index, imgsz=64)[1]}
        assert drawn <= set(indices.tolist())


@pytest.mark.parametrize("seed", [0, 7])
def test_scenes_of_all_seeds_draw_test_digits_from_the_same_scans(seed: int) -> None:
    drawn = {scan for index in range(20) for scan in compose_scene("digits", "train", index, imgsz=64, seed=seed)[1]}
    assert not drawn & set(split_scans()["test"].tolist())
    assert not drawn & set(split_scans()["val"].tolist())


@pytest.mark.parametrize("name", ["digits", "digits-seg", "digits-shadow", "digits-logchroma"])
def test_labels_lie_in_the_image_and_equal_the_table_of_objects(name: str, small: Callable[[str], Dataset]) -> None:
    dataset = small(name)
    for split in dataset.splits.values():
        table = {(row.image, row.object): row for row in read_objects(dataset.root, split.name)}
        assert len(table) == split.n_objects
        for image, label in zip(split.images, split.labels, strict=True):
            assert label is not None
            for number, row in enumerate(boxes_of(label, 128)):
                assert row[1:].min() >= 0
                assert row[1:].max() <= 128
                known = table[image.name, number]
                assert known.class_id == row[0]
                np.testing.assert_allclose(known.box, row[1:], atol=2e-4)


def test_digits_and_digits_seg_share_their_images(small: Callable[[str], Dataset]) -> None:
    for first, second in zip(
        small("digits").splits["val"].images, small("digits-seg").splits["val"].images, strict=True
    ):
        assert first.read_bytes() == second.read_bytes()


def test_polygons_cover_the_ink(small: Callable[[str], Dataset]) -> None:
    """The polygon filled by Pillow, against the ink with its holes filled; edges may differ by a pixel."""
    from PIL import ImageDraw
    from scipy import ndimage

    dataset = small("digits-seg")
    split = dataset.splits["val"]
    for index, label in enumerate(split.labels):
        assert label is not None
        glyphs = compose_scene("digits-seg", "val", index, imgsz=128)[0].glyphs
        for line, glyph in zip(label.read_text().splitlines(), glyphs, strict=True):
            canvas = Image.new("1", (128 * 4, 128 * 4))
            points = np.array(line.split()[1:], float).reshape(-1, 2) * 128 * 4
            ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in points.tolist()], fill=1)
            filled = np.asarray(canvas).reshape(128, 4, 128, 4).mean(axis=(1, 3)) >= 0.5
            expected = np.zeros((128, 128), bool)
            expected[glyph.window] = ndimage.binary_fill_holes(glyph.mask)
            assert (filled & expected).sum() / (filled | expected).sum() > 0.9


def test_log_chromaticity_is_that_of_the_shadow_images_with_the_same_labels(small: Callable[[str], Dataset]) -> None:
    shadow, chroma = small("digits-shadow"), small("digits-logchroma")
    for split in ("train", "val", "test"):
        first, second = shadow.splits[split], chroma.splits[split]
        assert [label.read_bytes() for label in first.labels if label] == [
            label.read_bytes() for label in second.labels if label
        ]
        for before, after in zip(first.images, second.images, strict=True):
            with Image.open(before) as image, Image.open(after) as converted:
                np.testing.assert_array_equal(log_chromaticity(np.asarray(image)), np.asarray(converted))
        assert read_objects(shadow.root, split) == read_objects(chroma.root, split)


def test_table_of_shadow_objects_keeps_the_least_chromaticity_distance(small: Callable[[str], Dataset]) -> None:
    rows = [row for split in ("train", "val", "test") for row in read_objects(small("digits-shadow").root, split)]
    assert min(row.chromaticity_distance for row in rows) >= MIN_CHROMATICITY_DISTANCE
    assert {row.shadow_fraction == 0 for row in rows} == {True, False}


def test_classification_folders_hold_every_class_in_turn(small: Callable[[str], Dataset]) -> None:
    dataset = small("digits-cls")
    assert dataset.splits["train"].objects_per_class == (2, 2, 1, 1, 1, 1, 1, 1, 1, 1)
    assert dataset.splits["val"].objects_per_class == (1,) * 10
    with Image.open(dataset.splits["val"].images[0]) as image:
        assert image.size == (64, 64)


def test_more_images_or_another_split_do_not_change_a_scene(tmp_path: Path, small: Callable[[str], Dataset]) -> None:
    larger = generate("digits", cache_dir=tmp_path, n_train=13, n_val=1, n_test=1)
    for image in small("digits").splits["train"].images:
        assert (larger.parent / "images/train" / image.name).read_bytes() == image.read_bytes()


def test_another_seed_makes_other_scenes(tmp_path: Path, small: Callable[[str], Dataset]) -> None:
    other = generate("digits", cache_dir=tmp_path, n_train=1, n_val=1, n_test=1, seed=1)
    image = small("digits").splits["train"].images[0]
    assert (other.parent / "images/train" / image.name).read_bytes() != image.read_bytes()


def test_image_size_scales_the_scene(tmp_path: Path) -> None:
    data = load_dataset(generate("digits", cache_dir=tmp_path, imgsz=64, n_train=1, n_val=1, n_test=1))
    with Image.open(data.splits["val"].images[0]) as image:
        assert image.size == (64, 64)


def test_sizes_do_not_collide_in_the_cache(tmp_path: Path) -> None:
    folders = {
        generate("digits-cls", cache_dir=tmp_path, n_train=10, n_val=n_val, n_test=10, seed=seed)
        for n_val in (10, 11)
        for seed in (0, 1)
    }
    assert len(folders) == 4


def test_second_call_writes_nothing(tmp_path: Path) -> None:
    file = generate("digits", cache_dir=tmp_path, n_train=1, n_val=1, n_test=1)
    before = file.stat().st_mtime_ns
    assert generate("digits", cache_dir=tmp_path, n_train=1, n_val=1, n_test=1) == file
    assert file.stat().st_mtime_ns == before
    assert len(list(tmp_path.iterdir())) == 1


def test_killed_generation_leaves_no_dataset(tmp_path: Path, repository: Path) -> None:
    code = (
        "from pathlib import Path; from mlflow_yolo.datasets.digits import generate; "
        f"generate('digits', cache_dir=Path({str(tmp_path)!r}), n_train=100_000, n_val=1, n_test=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=repository)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*/images/train/*.png")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()

    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0].name.startswith(".digits-v")


def test_leftovers_are_removed_when_an_hour_old_and_kept_before(tmp_path: Path) -> None:
    folder = generate("digits", cache_dir=tmp_path / "probe", n_train=1, n_val=1, n_test=1).parent.name
    old, young = tmp_path / f".{folder}.old", tmp_path / f".{folder}.young"
    for left in (old, young):
        (left / "images").mkdir(parents=True)
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    generate("digits", cache_dir=tmp_path, n_train=1, n_val=1, n_test=1)
    assert not old.exists()
    assert young.exists()


def test_process_that_comes_second_keeps_the_first_ones_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same data set while this one is writing it."""
    write_split = digits._write_split
    other = tmp_path / "other"
    finished = generate("digits", cache_dir=other, n_train=1, n_val=1, n_test=1).parent

    def write_and_be_overtaken(root: Path, name: str, split: str, n: int, *, imgsz: int, seed: int) -> None:
        write_split(root, name, split, n, imgsz=imgsz, seed=seed)
        if split == "test":
            finished.rename(tmp_path / finished.name)
            (tmp_path / finished.name / "mark").touch()

    monkeypatch.setattr(digits, "_write_split", write_and_be_overtaken)
    file = generate("digits", cache_dir=tmp_path, n_train=1, n_val=1, n_test=1)

    assert (file.parent / "mark").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [finished.name, "other"]


def test_failed_generation_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digits, "_write_split", disk_full)
    with pytest.raises(DatasetError, match="No space left on device") as caught:
        generate("digits", cache_dir=tmp_path)
    assert "MLFLOW_YOLO_CACHE" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_cache_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError) as caught:
        generate("digits", cache_dir=tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "keywords", "value"),
    [("digitz", {}, "'digitz'"), ("digits", {"imgsz": 16}, "imgsz=16"), ("digits", {"n_val": 0}, "(256, 0, 128)")],
)
def test_bad_arguments_are_named(tmp_path: Path, name: str, keywords: dict[str, int], value: str) -> None:
    with pytest.raises(DatasetError) as caught:
        generate(name, cache_dir=tmp_path, **keywords)
    assert value in str(caught.value)


def test_cache_directory_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_YOLO_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("MLFLOW_YOLO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "mlflow_yolo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "mlflow_yolo"


def test_objects_of_other_data_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read_objects(tmp_path, "val")
    assert str(tmp_path / "objects" / "val.csv") in str(caught.value)
