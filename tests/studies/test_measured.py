"""What a finished training says of itself, and the bootstrap over what several say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.detection.samples import save_samples
from mlflow_yolo.studies.freeze.analysis import Child
from mlflow_yolo.studies.measured import bootstrap_images

MakeChild = Callable[..., Child]


def test_test_decides_where_it_is_and_val_otherwise(make_child: MakeChild) -> None:
    assert make_child("0", 0, 0.5).split == "test"
    assert make_child("3", 0, 0.5, splits=("val",)).split == "val"


def test_the_headline_is_the_tasks(make_child: MakeChild) -> None:
    assert make_child("0", 0, 0.5).headline == "mAP50-95"
    assert make_child("3", 0, 0.5, task="classify", n_right=3).headline == "top1"


def test_values_are_of_the_split_asked_for(make_child: MakeChild) -> None:
    child = make_child("0", 0, 0.5)

    assert (child.value("test", "mAP50-95"), child.value("val", "mAP50-95")) == (0.5, 0.01)
    assert np.isnan(child.value("test", "mAP75"))
    assert child.n_images("test") == 20


def test_predictions_are_boxes_or_classes_never_both(make_child: MakeChild) -> None:
    boxes, classes = make_child("0", 0, 0.5, n_right=9), make_child("3", 0, 0.5, n_right=9, task="classify")

    assert (len(boxes.samples("test")), boxes.labels("test").shape) == (20, (0, 2))
    assert (classes.samples("test"), classes.labels("test").shape) == ([], (20, 2))


def test_the_bootstrap_needs_two_configurations_and_predictions(make_child: MakeChild) -> None:
    with_boxes, without = make_child("0", 0, 0.5, n_right=9), make_child("3", 0, 0.5)

    def bootstrap(**groups: Child) -> dict[str, object]:
        found = {name: [child] for name, child in groups.items()}
        return dict(bootstrap_images(found, "test", baseline="a", metric="mAP50-95", n_resamples=20))

    assert bootstrap(a=with_boxes) == {}
    assert bootstrap(a=without, b=without) == {}
    assert bootstrap(a=with_boxes, b=with_boxes).keys() == {"b"}


def test_images_without_objects_have_no_bootstrap(make_child: MakeChild) -> None:
    child = make_child("0", 0, 0.5, n_right=0)
    empty = [
        type(sample)(**{**vars(sample), "gt_boxes": np.zeros((0, 4)), "gt_classes": np.zeros(0, dtype=np.int64)})
        for sample in child.samples("test")
    ]
    save_samples(child.directory / "predictions" / "test.npz", empty)

    assert bootstrap_images({"a": [child], "b": [child]}, "test", baseline="a", metric="mAP50", n_resamples=20) == {}


def test_a_configuration_that_finds_more_lies_above_the_baseline(make_child: MakeChild) -> None:
    groups = {"a": [make_child("0", 0, 0.5, n_right=5)], "b": [make_child("3", 0, 0.5, n_right=15)]}

    (found,) = bootstrap_images(groups, "test", baseline="a", metric="mAP50", n_resamples=50).values()
    # One object an image: average precision is recall, in steps of 1 / 100.
    assert found.difference == pytest.approx(0.5, abs=0.02)


def test_the_folder_says_where_predictions_lie(make_child: MakeChild, tmp_path: Path) -> None:
    child = make_child("0", 0, 0.5, n_right=9)
    moved = tmp_path / "elsewhere"
    child.directory.rename(moved)

    result = json.loads((moved / "result.json").read_text())
    assert len(Child(child.freeze, 0, moved, result).samples("test")) == 20
