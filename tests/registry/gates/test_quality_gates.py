from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.gate import Verdict
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, Measured, Record, write_record
from mlflow_yolo.runtime.accuracy import read_accuracy
from tests.registry.gates.made import a_cost, a_version, an_image, evidence, images, measure, scores_of


def judged(gate: str, version: Fetched, champion: Fetched | None = None, **limits: Any) -> Verdict:
    found = judge(evidence(version, champion), Limits(**limits).only([gate]))
    return next(one for one in found if one.gate == gate)


def points_reached(found: int, of: int) -> int:
    """Return how many of the 101 points of recall are reached by `found` right detections of `of` objects."""
    return 100 * found // of + 1


PARITY = {"score_max": 1e-3, "box_max_px": 1.0, "n_images": 16}


@pytest.mark.parametrize(
    ("parity", "passed"),
    [
        (PARITY, True),
        (PARITY | {"score_max": 1.1e-3}, False),
        (PARITY | {"box_max_px": 1.01}, False),
        (PARITY | {"score_max": np.nan}, False),
        (PARITY | {"box_max_px": np.inf}, False),
        ({"n_images": 16}, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("kind", ["fp32-onnx", "fp32-openvino"])
def test_a_float32_export_has_to_answer_as_its_checkpoint_in_numbers(
    tmp_path: Path, kind: str, parity: dict[str, float] | None, passed: bool
) -> None:
    version = measure(a_version(tmp_path / "1", kind=kind), images(3), parity=parity)
    assert judged("parity", version).passed is passed


def test_another_kind_has_to_agree_with_its_parent_at_the_parents_operating_point(version: Fetched) -> None:
    # The parent finds 21 and this one 19 of them: F1 is 2 * 19 / (21 + 19). What lies below .8 is not looked at.
    own = [*images(21, lost=2), an_image(99, (-1, 0.3))]
    measure(version, own, [*images(21), an_image(99, (-1, 0.2))])
    found = judged("parity", version)
    assert (found.passed, found.value) == (True, "0.9500")
    assert not judged("parity", version, min_agreement=0.951).passed


def test_the_parents_operating_point_counts_and_not_its_own(version: Fetched) -> None:
    # At the parent's .8 nothing of this one is left; at its own .4 all of both would agree.
    measure(version, [an_image(n, (0, 0.4)) for n in range(10)], images(10))
    assert judged("parity", version).value == "0.0000"


def test_a_model_that_finds_what_its_parent_does_not_disagrees(version: Fetched) -> None:
    measure(version, [an_image(n, (0, None), (-1, 0.8)) for n in range(10)], images(10))
    found = judged("parity", version)
    assert (found.passed, found.value) == (False, "0.0000")


def test_half_of_the_objects_are_half_of_the_points_of_recall(version: Fetched) -> None:
    measure(version, images(100, lost=50))
    score = points_reached(50, 100) / 101
    assert judged("accuracy_floor", version).limit == "no floor set"
    found = judged("accuracy_floor", version, accuracy_floor=score)
    assert (found.passed, found.value) == (True, f"mAP50-95 {score:.4f}")
    assert not judged("accuracy_floor", version, accuracy_floor=score + 1e-6).passed


def test_a_split_without_any_object_reaches_no_floor(version: Fetched) -> None:
    measure(version, [an_image(0), an_image(1, (-1, 0.5))])
    assert judged("accuracy_floor", version).passed
    assert not judged("accuracy_floor", version, accuracy_floor=0.0).passed


def test_the_same_predictions_drop_nothing(version: Fetched) -> None:
    measure(version, images(10, lost=2), images(10, lost=2))
    found = judged("accuracy_drop", version, max_drop=0.0)
    assert (found.passed, found.value) == (True, "+0.00 [+0.00, +0.00]")


def test_the_lower_end_of_the_interval_decides_and_not_the_drop_itself(version: Fetched) -> None:
    # One of 100 is lost; how often it is drawn is binomial, and each time it costs one of the 101 points of recall.
    measure(version, images(100, lost=1), images(100))
    low = stats.binom.ppf(0.975, 100, 0.01) / 101
    assert low == pytest.approx(3 / 101)
    assert judged("accuracy_drop", version, max_drop=low + 1e-6).passed
    found = judged("accuracy_drop", version, max_drop=low - 1e-6)
    assert not found.passed
    assert found.value == "-0.99 [-2.97, +0.00]"
    assert "more test images" in found.why


def test_a_drop_that_is_too_large_by_itself_is_not_blamed_on_the_images(version: Fetched) -> None:
    measure(version, images(100, lost=20), images(100))
    found = judged("accuracy_drop", version)
    assert not found.passed
    assert "more test images" not in found.why
    assert "max_drop" in found.why


def test_a_gain_passes(version: Fetched) -> None:
    measure(version, images(100), images(100, lost=20))
    assert judged("accuracy_drop", version, max_drop=0.0).passed


def test_without_a_parent_nothing_that_needs_one_passes(version: Fetched) -> None:
    measure(version, images(10))
    for gate in ("parity", "accuracy_drop", "class_drop"):
        found = judged(gate, version)
        assert not found.passed
        assert "no parent" in found.why


def test_a_parent_that_was_scored_on_other_images_fails(version: Fetched) -> None:
    measure(version, images(10), images(10, start=5))
    for gate in ("parity", "accuracy_drop"):
        assert not judged(gate, version).passed


def two_classes(n_dark: int, *, lost: int = 0, n_bright: int = 40) -> list[Any]:
    return images(n_bright) + images(n_dark, lost=lost, class_id=1, start=100)


def test_the_worst_class_decides(version: Fetched) -> None:
    measure(version, two_classes(30, lost=1), two_classes(30))
    drop = (101 - points_reached(29, 30)) / 101
    found = judged("class_drop", version)
    assert not found.passed
    assert found.value == f"dark {-100 * drop:+.2f}"
    assert "interval over images" in found.why
    assert judged("class_drop", version, max_class_drop=drop).passed
    assert not judged("class_drop", version, max_class_drop=drop - 1e-6).passed


@pytest.mark.parametrize("lost", [1, 3])
def test_a_class_with_three_objects_does_not_decide_alone_and_that_is_said(version: Fetched, lost: int) -> None:
    measure(version, two_classes(3, lost=lost), two_classes(3))
    found = judged("class_drop", version)
    assert (found.passed, found.value) == (True, "bright +0.00")
    assert "3 in all" in found.why
    assert "too few to decide" in found.why


def test_rare_classes_decide_together_weighted_by_their_objects(tmp_path: Path) -> None:
    names = ("bright", "dark", "odd")
    version = a_version(tmp_path / "1", names=names)
    rare = images(10, lost=1, class_id=1, start=100) + images(20, class_id=2, start=200)
    parent = images(10, class_id=1, start=100) + images(20, class_id=2, start=200)
    measure(version, images(40) + rare, images(40) + parent, names=names)
    drop = (101 - points_reached(9, 10)) / 101 * 10 / 30
    found = judged("class_drop", version, max_class_drop=drop)
    assert (found.passed, found.value) == (True, f"2 rare classes {-100 * drop:+.2f}")
    assert not judged("class_drop", version, max_class_drop=drop - 1e-6).passed


def test_a_class_that_does_not_occur_does_not_count(version: Fetched) -> None:
    measure(version, images(40), images(40))
    assert judged("class_drop", version).value == "bright +0.00"


def test_with_rare_classes_alone_and_too_few_objects_nothing_is_refused_and_that_is_said(version: Fetched) -> None:
    measure(version, images(5, lost=2), images(5))
    found = judged("class_drop", version)
    assert found.passed
    assert "no class has 30 objects" in found.why


def test_a_split_without_labels_fails(version: Fetched) -> None:
    measure(version, [an_image(0)], [an_image(0)])
    assert not judged("class_drop", version).passed
    assert not judged("accuracy_drop", version).passed


def test_without_a_champion_there_is_nothing_to_drop(version: Fetched) -> None:
    assert judged("champion_drop", version).passed


def test_the_lower_end_against_the_champion_decides(version: Fetched, tmp_path: Path) -> None:
    measure(version, images(100, lost=1))
    champion = measure(a_version(tmp_path / "3", version="3"), images(100))
    low = stats.binom.ppf(0.975, 100, 0.01) / 101
    assert judged("champion_drop", version, champion, max_champion_drop=low + 1e-6).passed
    found = judged("champion_drop", version, champion, max_champion_drop=low - 1e-6)
    assert not found.passed
    assert "version 3" in found.why


@pytest.mark.parametrize("differing", ["dataset", "split"])
def test_a_champion_that_was_scored_on_other_data_fails_with_the_remedy(
    version: Fetched, tmp_path: Path, differing: str
) -> None:
    measure(version, images(10))
    champion = measure(a_version(tmp_path / "3", version="3"), images(10))
    file = champion.benchmark / "record.json"
    old, new = {"dataset": ("f00d", "beef"), "split": ('"split": "test"', '"split": "val"')}[differing]
    file.write_text(file.read_text().replace(old, new))
    found = judged("champion_drop", version, champion)
    assert not found.passed
    assert "--rebenchmark --data" in found.why


def test_a_champion_of_other_classes_fails(version: Fetched, tmp_path: Path) -> None:
    measure(version, images(10))
    names = ("dark", "bright")
    champion = measure(a_version(tmp_path / "3", version="3", names=names), images(10), names=names)
    found = judged("champion_drop", version, champion)
    assert not found.passed
    assert "other classes" in found.why


def test_a_champion_without_a_benchmark_fails(version: Fetched, tmp_path: Path) -> None:
    measure(version, images(10))
    found = judged("champion_drop", version, a_version(tmp_path / "3", version="3"))
    assert not found.passed
    assert "record.json" in found.why


def a_classifier(folder: Path, own: list[int], parent: list[int], true: list[int]) -> Fetched:
    """Return a classifier that named images as `own`, its parent as `parent`."""
    version = a_version(folder, task="classify")
    version.benchmark.mkdir()
    scores = {}
    for file, given in ((PREDICTIONS, own), (PARENT_PREDICTIONS, parent)):
        np.savez(version.benchmark / file, true=np.array(true), probabilities=np.eye(2)[given])
        found = read_accuracy(version.benchmark / file, names=("bright", "dark"), task="classify", split="test")
        scores[file] = scores_of(found)
    of_parent = Measured("fp32-onnx", "fp32-onnx", "d" * 64, a_cost("fp32-onnx", 20.0), scores[PARENT_PREDICTIONS])
    measured = Measured("int8-onnx", "int8-onnx", version.sha256, a_cost("int8-onnx"), scores[PREDICTIONS])
    write_record(version.benchmark, Record(measured, of_parent))
    return version


def test_a_classifier_is_judged_by_the_images_that_it_names_right(tmp_path: Path) -> None:
    true = [0] * 50 + [1] * 50
    version = a_classifier(tmp_path / "1", [1, *true[1:]], true, true)
    assert judged("accuracy_floor", version, accuracy_floor=0.99).value == "top1 0.9900"
    assert judged("accuracy_floor", version, accuracy_floor=0.99).passed
    assert not judged("accuracy_floor", version, accuracy_floor=0.991).passed
    assert judged("parity", version).value == "0.9900"
    low = stats.binom.ppf(0.975, 100, 0.01) / 100
    assert judged("accuracy_drop", version, max_drop=low).passed
    assert not judged("accuracy_drop", version, max_drop=low - 1e-6).passed
    assert judged("class_drop", version, max_class_drop=0.02).value == "bright -2.00"
    assert judged("class_drop", version, max_class_drop=0.02).passed
    assert not judged("class_drop", version, max_class_drop=0.019).passed


def test_a_classifier_and_a_parent_of_other_images_fail(tmp_path: Path) -> None:
    version = a_classifier(tmp_path / "1", [0, 1, 1], [0, 1, 1], [0, 1, 1])
    np.savez(version.benchmark / PARENT_PREDICTIONS, true=[0, 0, 1], probabilities=np.eye(2)[[0, 0, 1]])
    for gate in ("parity", "accuracy_drop"):
        found = judged(gate, version)
        assert not found.passed
        assert "same images" in found.why
