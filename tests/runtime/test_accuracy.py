import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.detection.samples import Sample, load_samples, save_samples
from mlflow_yolo.exceptions import InputError
from mlflow_yolo.runtime.accuracy import agreement_with, difference, measure_accuracy, read_accuracy
from tests.variants.made import a_dataset, correct

BOX = [10.0, 10.0, 30.0, 30.0]


def an_image(*found: tuple[int, float]) -> Sample:
    """Return an image with one object of class 0, on which these (class, score) were found at its very place."""
    return Sample(
        "a.png",
        64,
        64,
        np.array([BOX]),
        np.array([0]),
        np.array([BOX] * len(found)).reshape(-1, 4),
        np.array([score for _, score in found]),
        np.array([one for one, _ in found], dtype=np.int64),
    )


def unopened() -> Any:
    raise AssertionError("what was kept is not made again")


def kept(tmp_path: Path, *samples: Sample) -> Path:
    save_samples(tmp_path / "kept.npz", samples)
    return tmp_path / "kept.npz"


def test_a_detector_that_finds_every_object_scores_one(tmp_path: Path) -> None:
    found = measure_accuracy(unopened, a_dataset(), "test", keep=kept(tmp_path, an_image((0, 0.8)), an_image((0, 0.6))))
    assert found.values == pytest.approx(dict.fromkeys(("mAP50-95", "mAP50", "precision", "recall", "f1"), 1.0))
    assert found.headline == ("mAP50-95", pytest.approx(1.0))
    assert found.per_class["bright"] == pytest.approx(1.0)
    assert math.isnan(found.per_class["dark"])
    assert found.worst_class[0] == "bright"
    assert found.operating_point == {"conf": 0.6, "iou": 0.7, "max_det": 300, "split": "test", "objective": "f1"}


def test_a_detector_that_finds_nothing_scores_zero(tmp_path: Path) -> None:
    found = measure_accuracy(unopened, a_dataset(), "test", keep=kept(tmp_path, an_image()))
    assert found.headline[1] == 0.0
    assert found.n_images == 1


def test_the_difference_is_that_of_the_scores_and_zero_between_equals(tmp_path: Path) -> None:
    good = measure_accuracy(unopened, a_dataset(), "test", keep=kept(tmp_path, *[an_image((0, 0.8))] * 4))
    half = measure_accuracy(
        unopened, a_dataset(), "test", keep=kept(tmp_path, *[an_image((0, 0.8))] * 2, *[an_image()] * 2)
    )
    # Half of the objects at full precision: 51 of the 101 points of recall are reached.
    assert difference(good, half, n_classes=2).difference == pytest.approx(51 / 101 - 1)
    same = difference(good, good, n_classes=2)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)


def test_agreement_is_on_detections_above_the_references_operating_point(tmp_path: Path) -> None:
    reference = measure_accuracy(
        unopened, a_dataset(), "test", keep=kept(tmp_path, an_image((0, 0.8)), an_image((0, 0.6)))
    )
    other = measure_accuracy(unopened, a_dataset(), "test", keep=kept(tmp_path, an_image((0, 0.7)), an_image((0, 0.5))))
    # At conf 0.6: two detections against one, one in common.
    assert agreement_with(reference, other) == pytest.approx(2 / 3)
    assert agreement_with(reference, reference) == 1.0


def test_predictions_are_kept_and_read_again(tmp_path: Path) -> None:
    path = kept(tmp_path, an_image((0, 0.8)))
    assert load_samples(path)[0].scores.tolist() == [0.8]
    first = measure_accuracy(unopened, a_dataset(), "test", keep=path)
    assert first.values == measure_accuracy(unopened, a_dataset(), "test", keep=path).values


def test_a_classifier_is_scored_by_whom_it_names_first_and_among_five(tmp_path: Path) -> None:
    names = tuple("abcdefg")
    probabilities = np.tile(np.linspace(0.7, 0.1, 7), (4, 1))  # always a, then b, …
    np.savez(tmp_path / "kept.npz", true=np.array([0, 0, 4, 6]), probabilities=probabilities)
    found = measure_accuracy(unopened, a_dataset("classify", names=names), "test", keep=tmp_path / "kept.npz")
    assert found.values == {"top1": 0.5, "top5": 0.75}
    assert found.headline == ("top1", 0.5)
    assert (found.per_class["a"], found.per_class["e"], found.per_class["g"]) == (1.0, 0.0, 0.0)
    assert math.isnan(found.per_class["b"])
    assert found.operating_point == {}
    assert found.predicted.tolist() == [0, 0, 0, 0]


def test_classifiers_are_compared_image_by_image() -> None:
    reference, other = correct(1, 1, 1, 0), correct(1, 0, 1, 1)
    assert agreement_with(reference, other) == 0.5
    assert difference(reference, other, n_classes=2).difference == 0.0
    assert difference(reference, correct(1, 0, 0, 0), n_classes=2).difference == pytest.approx(-0.5)


def test_what_was_kept_is_read_without_model_and_data(tmp_path: Path) -> None:
    file = kept(tmp_path, an_image((0, 0.8)), an_image())
    measured = measure_accuracy(unopened, a_dataset(), "test", keep=file)
    read = read_accuracy(file, names=("bright", "dark"), task="detect", split="test")
    assert (read.headline, read.conf, read.n_images) == (measured.headline, measured.conf, 2)


def test_kept_probabilities_are_read_without_model_and_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "kept.npz", true=[0, 1, 1], probabilities=[[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    read = read_accuracy(tmp_path / "kept.npz", names=("bright", "dark"), task="classify", split="test")
    assert read.headline == ("top1", pytest.approx(2 / 3))
    assert (read.true.tolist(), read.predicted.tolist()) == ([0, 1, 1], [0, 1, 0])


@pytest.mark.parametrize(
    "arrays",
    [
        {"true": [0, 1]},
        {"true": [0, 1], "probabilities": [[0.9, 0.1]]},
        {"true": [0, 1], "probabilities": [[0.9], [0.1]]},
        {"true": [0, 2], "probabilities": [[0.9, 0.1], [0.9, 0.1]]},
        {"true": [0, 1], "probabilities": [[0.9, 0.1], [np.nan, 0.1]]},
        {"true": [0, 1], "probabilities": [["a", "b"], ["c", "d"]]},
    ],
)
def test_kept_probabilities_that_are_none_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "kept.npz", **arrays)
    with pytest.raises(InputError, match=r"^[^\n]*kept\.npz[^\n]*$"):
        read_accuracy(tmp_path / "kept.npz", names=("bright", "dark"), task="classify", split="test")
