import numpy as np
import pytest
import torch
from ultralytics.utils import nms, ops

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.runtime import postprocess
from mlflow_yolo.runtime.postprocess import Found, find, read_final, to_original
from mlflow_yolo.runtime.preprocess import place


def limits(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def raw(seed: int, n_classes: int, *, extra: int = 0, n: int = 500) -> np.ndarray:
    """Return a head's output (4 + classes + extra, n): boxes in clusters, most scores low."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 10, n)
    centre = rng.uniform(0, 300, (10, 2))[which] + rng.normal(0, 4, (n, 2))
    size = rng.uniform(20, 90, (10, 2))[which] * rng.uniform(0.9, 1.1, (n, 2))
    parts = [centre, size, rng.beta(0.3, 2, (n, n_classes)), rng.normal(size=(n, extra))]
    return np.concatenate(parts, axis=1).T.astype(np.float32)


def rows(found: Found) -> np.ndarray:
    return np.concatenate([found.boxes, found.scores[:, None], found.classes[:, None], found.extra], axis=1)


def test_centre_and_size_become_corners_and_the_best_class_counts() -> None:
    output = np.array([[10, 20, 4, 8, 0.3, 0.6]], dtype=np.float32).T
    found = find(output, limits(0.25, 0.25), iou=0.7, max_det=300)
    assert rows(found).tolist() == [pytest.approx([8, 16, 12, 24, 0.6, 1])]


def test_with_multi_label_one_anchor_is_found_once_for_each_class() -> None:
    output = np.array([[10, 20, 4, 8, 0.3, 0.6]], dtype=np.float32).T
    found = find(output, limits(0.25, 0.25), iou=0.7, max_det=300, multi_label=True)
    assert found.classes.tolist() == [1, 0]


def test_a_score_must_be_above_the_threshold_of_its_own_class() -> None:
    output = np.array([[10, 10, 4, 4, 0.5, 0.1], [50, 50, 4, 4, 0.1, 0.5], [90, 9, 4, 4, 0.1, 0.6]], np.float32).T
    assert find(output, limits(0.25, 0.5), iou=0.7, max_det=300).classes.tolist() == [1, 0]
    assert len(find(output, limits(0.9, 0.9), iou=0.7, max_det=300).scores) == 0
    both = find(output, limits(0.5, 0.5), iou=0.7, max_det=300, multi_label=True)
    assert (both.classes.tolist(), both.boxes[0].tolist()) == ([1], [88, 7, 92, 11])


def test_a_class_below_its_threshold_suppresses_nothing_even_when_agnostic() -> None:
    output = np.array([[10, 10, 4, 4, 0.5, 0.1], [10, 10, 4, 4, 0.1, 0.4]], np.float32).T
    assert find(output, limits(0.6, 0.25), iou=0.7, max_det=300, agnostic=True).classes.tolist() == [1]


def test_scores_that_are_no_numbers_find_nothing() -> None:
    output = raw(0, 3)
    output[4:] = np.nan
    assert len(find(output, limits(0.1, 0.1, 0.1), iou=0.7, max_det=300).scores) == 0


def test_too_few_rows_for_the_classes_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"\(6, 500\)"):
        find(raw(0, 2), limits(0.1, 0.1, 0.1), iou=0.7, max_det=300)


@pytest.mark.parametrize("conf", [0.001, 0.25, 0.999])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("n_classes", "extra"), [(1, 0), (3, 0), (3, 32), (100, 0)])
def test_it_finds_what_ultralytics_finds(
    conf: float, multi_label: bool, agnostic: bool, n_classes: int, extra: int
) -> None:
    output = raw(n_classes, n_classes, extra=extra)
    expected = nms.non_max_suppression(
        torch.from_numpy(output)[None], conf, 0.7, multi_label=multi_label, agnostic=agnostic, nc=n_classes
    )[0].numpy()
    thresholds = np.full(n_classes, conf, np.float32)
    found = find(output, thresholds, iou=0.7, max_det=300, multi_label=multi_label, agnostic=agnostic)
    assert np.array_equal(rows(found).astype(np.float32), expected)


def test_only_the_best_thirty_thousand_candidates_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postprocess, "MAX_NMS", 100)
    output = raw(5, 3, n=2000)
    expected = nms.non_max_suppression(torch.from_numpy(output)[None], 0.001, 0.7, multi_label=True, max_nms=100)
    found = find(output, limits(0.001, 0.001, 0.001), iou=0.7, max_det=300, multi_label=True)
    assert np.array_equal(rows(found).astype(np.float32), expected[0].numpy())


def final(*lines: list[float]) -> np.ndarray:
    return np.array(lines, dtype=np.float32).reshape(len(lines), -1)


def test_a_final_list_is_only_cut() -> None:
    output = final([0, 0, 5, 5, 0.9, 1, 7], [0, 0, 5, 5, 0.8, 0, 8], [1, 1, 2, 2, 0.5, 1, 9], [0, 0, 1, 1, 0.1, 0, 6])
    found = read_final(output, limits(0.25, 0.6), max_det=300)
    assert (found.classes.tolist(), found.extra.ravel().tolist()) == ([1, 0], [7, 8])
    assert read_final(output, limits(0.25, 0.25), max_det=1).classes.tolist() == [1]


def test_a_final_list_of_nothing_is_nothing() -> None:
    assert len(read_final(np.zeros((300, 6), np.float32), limits(0.25), max_det=300).scores) == 0


@pytest.mark.parametrize("output", [np.zeros((300, 5)), final([0, 0, 1, 1, 0.9, 2])])
def test_a_final_list_of_another_model_is_an_error(output: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        read_final(output.astype(np.float32), limits(0.25, 0.25), max_det=300)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (37, 411), (1080, 1920), (3, 200), (320, 320)])
def test_boxes_go_back_to_the_original_as_in_ultralytics(height: int, width: int) -> None:
    boxes = np.random.default_rng(1).uniform(-20, 340, (50, 4)).astype(np.float32)
    expected = ops.scale_boxes((320, 320), torch.from_numpy(boxes.copy()), (height, width)).numpy()
    frame = place(height, width, (320, 320))
    assert np.array_equal(to_original(boxes, frame), expected)
    free = to_original(boxes, frame, clip=False)
    assert np.array_equal(np.clip(free, 0, np.array([width, height] * 2, np.float32)), expected)
    assert free.min() < 0
