"""Statistics of a split are cut by score and drawn by image without mixing up their rows."""

import numpy as np
import pytest

from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.exceptions import ShapeError


def three_images() -> MatchArrays:
    """Return two detections of one object in image 0, nothing in image 1, one object without a detection in image 2."""
    tp = np.zeros((2, 10), dtype=np.bool_)
    tp[0, :3] = True
    return MatchArrays(
        tp=tp,
        conf=np.array([0.9, 0.1], np.float32),
        pred_cls=np.array([1, 0], np.float32),
        image=np.array([0, 0]),
        target_cls=np.array([1, 0], np.float32),
        target_image=np.array([0, 2]),
        n_images=3,
        n_classes=2,
        tp_mask=~tp,
    )


def test_rows_above_a_confidence_are_those_with_a_higher_score() -> None:
    cut = three_images().above(0.5)

    assert (cut.conf.tolist(), cut.pred_cls.tolist(), cut.image.tolist()) == ([np.float32(0.9)], [1], [0])
    assert cut.tp.sum() == 3
    assert cut.tp_mask is not None
    assert cut.tp_mask.sum() == 7
    assert (cut.target_cls.tolist(), cut.n_images) == ([1, 0], 3)


def test_a_score_equal_to_the_confidence_in_single_precision_is_not_above_it() -> None:
    assert float(np.float32(0.1)) > 0.1  # in double precision it would be
    assert len(three_images().above(0.1).conf) == 1
    assert len(three_images().above(np.float64(0.1)).conf) == 1


def test_images_drawn_twice_count_twice_and_keep_their_order() -> None:
    drawn = three_images().of_images(np.array([2, 0, 1, 0]))

    assert drawn.n_images == 4
    assert drawn.image.tolist() == [1, 1, 3, 3]
    assert drawn.conf.tolist() == three_images().conf.tolist() * 2
    assert drawn.tp.sum(axis=1).tolist() == [3, 0, 3, 0]
    assert drawn.tp_mask is not None
    assert drawn.tp_mask.sum(axis=1).tolist() == [7, 10, 7, 10]
    assert (drawn.target_image.tolist(), drawn.target_cls.tolist()) == ([0, 1, 3], [0, 1, 1])


def test_no_images_have_neither_detections_nor_objects() -> None:
    none = three_images().of_images(np.zeros(0, np.int64))

    assert (none.n_images, len(none.conf), len(none.target_cls), none.tp.shape) == (0, 0, 0, (0, 10))


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="pred_cls"):
        MatchArrays(
            tp=np.zeros((2, 10), np.bool_),
            conf=np.zeros(2, np.float32),
            pred_cls=np.zeros(3, np.float32),
            image=np.zeros(2, np.int64),
            target_cls=np.zeros(0, np.float32),
            target_image=np.zeros(0, np.int64),
            n_images=1,
            n_classes=1,
        )
