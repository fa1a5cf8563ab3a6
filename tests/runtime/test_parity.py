from dataclasses import dataclass, replace

import numpy as np
import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.parity import Parity, parity
from mlflow_yolo.runtime.pipeline import Pipeline
from mlflow_yolo.variant import Variant

VARIANT = Variant(kind="fp32-onnx", file="m.onnx", task="detect", names=("cat", "dog"), imgsz=(64, 64))
IMAGE = np.zeros((64, 64, 3), dtype=np.uint8)


@dataclass
class Fixed:
    """A session that always says the same."""

    output: np.ndarray
    batch: int | None = None

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.repeat(self.output[None], len(images), axis=0).astype(np.float32),)


def compare(first: list, second: list, variant: Variant = VARIANT, n: int = 1) -> Parity:
    """Compare two models that return these rows: of anchors, or of a final list."""
    arrays = [np.array(rows, dtype=np.float32) for rows in (first, second)]
    if variant.task == "detect" and not variant.end2end:
        arrays = [rows.T for rows in arrays]
    one, other = (Pipeline(variant, Fixed(rows)) for rows in arrays)
    return parity(one, other, [IMAGE] * n)


def test_a_model_is_equal_to_itself() -> None:
    rows = [[10, 10, 4, 4, 0.9, 0.1]]
    assert compare(rows, rows, n=3) == Parity(0, 0, 0, 0, 3)
    assert compare(rows, rows).holds


def test_scores_count_everywhere_and_boxes_only_where_something_is_seen() -> None:
    first = [[10, 10, 4, 4, 0.9, 0.1], [50, 50, 4, 4, 0.01, 0.02]]
    second = [[10.5, 10, 4, 4, 0.9, 0.1], [90, 50, 4, 4, 0.04, 0.02]]
    found = compare(first, second)
    assert found.box_max_px == pytest.approx(0.5)
    assert found.score_max == pytest.approx(0.03)
    assert found.score_p99 == 0  # of the two scores above 0.05
    assert not found.holds


def test_a_wider_box_differs_by_half_the_width_at_its_corners() -> None:
    assert compare([[10, 10, 4, 4, 0.9, 0]], [[10, 10, 8, 4, 0.9, 0]]).box_max_px == pytest.approx(2)


def test_one_side_that_sees_something_is_enough() -> None:
    found = compare([[10, 10, 4, 4, 0, 0]], [[13, 10, 4, 4, 0.5, 0]])
    assert (found.score_max, found.box_max_px) == (pytest.approx(0.5), pytest.approx(3))


def test_the_percentile_is_of_all_corners() -> None:
    first = [[10, 10, 4, 4, 0.9, 0.0]] * 400
    second = [[10, 10, 4, 4, 0.9, 0.0]] * 399 + [[18, 10, 4, 4, 0.9, 0.0]]
    found = compare(first, second)
    assert (found.box_max_px, found.box_p99_px) == (pytest.approx(8), 0)


@pytest.mark.parametrize("column", [0, 4])
def test_what_is_no_number_never_holds(column: int) -> None:
    first, second = [[10, 10, 4, 4, 0.9, 0.0]], [[10, 10, 4, 4, 0.9, 0.0]]
    second[0][column] = float("nan")
    for found in (compare(first, second), compare(second, first), compare(second, second)):
        assert not found.holds


def test_rows_of_a_final_list_may_swap() -> None:
    ends = replace(VARIANT, end2end=True)
    one, other = [1, 1, 5, 5, 0.9, 0], [20, 20, 30, 30, 0.9, 0]
    assert compare([one, other], [other, one], ends).holds
    moved = compare([one, other], [other, [1, 1, 5, 7, 0.8, 0]], ends)
    assert (moved.score_max, moved.score_p99) == (pytest.approx(0.1), pytest.approx(0.1))
    assert moved.box_max_px == pytest.approx(2)


def test_a_box_that_only_one_final_list_has_is_infinitely_far() -> None:
    ends = replace(VARIANT, end2end=True)
    found = compare([[1, 1, 5, 5, 0.9, 0]], [[1, 1, 5, 5, 0.9, 1]], ends)
    assert found.box_max_px == np.inf
    assert not found.holds


def test_a_classifier_has_only_scores() -> None:
    classify = replace(VARIANT, task="classify")
    found = compare([0.75, 0.25], [0.5, 0.5], classify)
    assert found == Parity(0.25, 0.25, 0, 0, 1)


@pytest.mark.parametrize("change", [{"names": ("cat",)}, {"imgsz": (32, 32)}, {"end2end": True}, {"task": "segment"}])
def test_models_that_cannot_be_compared_are_named(change: dict) -> None:
    session = Fixed(np.zeros((6, 3)))
    with pytest.raises(CheckpointError, match=next(iter(change))):
        parity(Pipeline(VARIANT, session), Pipeline(replace(VARIANT, **change), session), [IMAGE])


def test_outputs_of_another_shape_and_no_images_are_errors() -> None:
    one, other = (Pipeline(VARIANT, Fixed(np.zeros((6, n)))) for n in (3, 4))
    with pytest.raises(CheckpointError, match=r"\(6, 3\)"):
        parity(one, other, [IMAGE])
    with pytest.raises(ArgumentError, match="empty"):
        parity(one, one, [])
