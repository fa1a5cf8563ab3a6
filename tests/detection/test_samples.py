import dataclasses

import numpy as np
import pytest

from mlflow_yolo.detection.samples import Sample, load_samples, save_samples
from mlflow_yolo.exceptions import InputError, ShapeError


def test_samples_come_back_as_they_were_saved(tmp_path, random_samples):
    samples = random_samples(0, 15)
    save_samples(tmp_path / "samples.npz", samples)
    loaded = load_samples(tmp_path / "samples.npz")
    assert len(loaded) == 15
    for before, after in zip(samples, loaded, strict=True):
        for field in dataclasses.fields(Sample):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
            assert type(getattr(after, field.name)) is type(getattr(before, field.name))


def test_names_of_any_alphabet_come_back(tmp_path, one_image):
    names = ["日本/画像 1.jpg", "a" * 300 + ".png", "ä'\".jpg"]
    save_samples(tmp_path / "samples.npz", [one_image([], [], image=name) for name in names])
    assert [sample.image for sample in load_samples(tmp_path / "samples.npz")] == names


def test_no_samples_come_back_as_none(tmp_path):
    save_samples(tmp_path / "samples.npz", [])
    assert load_samples(tmp_path / "samples.npz") == []


def test_saving_again_replaces_the_file_and_leaves_nothing_else(tmp_path, random_samples):
    save_samples(tmp_path / "samples.npz", random_samples(0, 3))
    save_samples(tmp_path / "samples.npz", random_samples(1, 5))
    assert len(load_samples(tmp_path / "samples.npz")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


def test_a_write_that_fails_leaves_no_part_behind(tmp_path, random_samples):
    (tmp_path / "samples.npz").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        save_samples(tmp_path / "samples.npz", random_samples(0, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "array", "other", "folder", "format"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, random_samples, damage):
    path = tmp_path / "samples.npz"
    save_samples(path, random_samples(0, 3))
    content = path.read_bytes()
    path.unlink()
    if damage in ("empty", "truncated", "text"):
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"image,score\n"}[damage])
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        with path.open("wb") as file:
            if damage == "array":
                np.save(file, np.zeros(3))
            else:
                np.savez(file, **({"format": np.array(99)} if damage == "format" else {"weights": np.zeros(3)}))
    with pytest.raises(InputError, match=r"samples\.npz"):
        load_samples(path)


@pytest.mark.parametrize("field", ["gt_boxes", "gt_classes", "boxes", "scores", "classes"])
def test_arrays_that_do_not_fit_together_raise_with_their_name(one_image, field):
    sample = one_image([((0, 0, 1, 1), 0)], [((0, 0, 1, 1), 0.5, 0)])
    with pytest.raises(ShapeError, match=f"^{field} of .a.jpg. has shape"):
        dataclasses.replace(sample, **{field: np.zeros((2, 3))})
