"""mAP at many confidences is Ultralytics' own at each of them, and in small cases what the hand computes."""

import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class

from mlflow_yolo.detection import ultralytics_ap
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.ultralytics_ap import average_precision_surface

CONFS = [0.0, 0.1, 0.25, 0.3, 0.5, 0.50001, 0.9, 0.999, 1.0]


def some_arrays(seed: int, *, n: int, n_objects: int, n_classes: int, ties: bool = False) -> MatchArrays:
    """Return random verdicts; no class has more right detections than objects."""
    rng = np.random.default_rng(seed)
    conf = rng.random(n).astype(np.float32)
    pred_cls = rng.integers(0, n_classes, n).astype(np.float32)
    target_cls = rng.integers(0, n_classes, n_objects).astype(np.float32)
    tp, tp_mask = (rng.random(n)[:, None] * rng.uniform(0.5, 3) > np.linspace(0.5, 0.95, 10) for _ in range(2))
    for class_id in range(n_classes):
        for right in (*tp.T, *tp_mask.T):
            rows = np.flatnonzero((pred_cls == class_id) & right)
            right[rows[(target_cls == class_id).sum() :]] = False
    return MatchArrays(
        tp=tp,
        conf=np.round(conf, 1) if ties else conf,
        pred_cls=pred_cls,
        image=np.zeros(n, np.int64),
        target_cls=target_cls,
        target_image=np.zeros(n_objects, np.int64),
        n_images=1,
        n_classes=n_classes,
        tp_mask=tp_mask,
    )


def by_hand(right: list[bool], n_objects: int) -> MatchArrays:
    """Return the detections of one class with falling scores .9, .8, … that are right at every threshold or at none."""
    n = len(right)
    return MatchArrays(
        tp=np.repeat(np.array(right, np.bool_)[:, None], 10, axis=1),
        conf=np.linspace(0.9, 1.0 - n / 10, n).astype(np.float32) if n else np.zeros(0, np.float32),
        pred_cls=np.zeros(n, np.float32),
        image=np.zeros(n, np.int64),
        target_cls=np.zeros(n_objects, np.float32),
        target_image=np.zeros(n_objects, np.int64),
        n_images=1,
        n_classes=3,
    )


def theirs(arrays: MatchArrays, *, masks: bool = False) -> tuple[float, float]:
    right = arrays.tp_mask if masks and arrays.tp_mask is not None else arrays.tp
    ap = ap_per_class(right, arrays.conf, arrays.pred_cls, arrays.target_cls)[5]
    return (float(ap[:, 0].mean()), float(ap.mean())) if len(ap) else (0.0, 0.0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "n_objects", "n_classes"), [(200, 60, 3), (40, 40, 1), (600, 300, 100), (3, 50, 5)])
def test_every_confidence_has_the_value_that_ultralytics_gives_there(
    n: int, n_objects: int, n_classes: int, ties: bool
) -> None:
    for seed in range(5):
        arrays = some_arrays(seed, n=n, n_objects=n_objects, n_classes=n_classes, ties=ties)
        expected = [theirs(arrays.above(conf)) for conf in CONFS]
        np.testing.assert_allclose(average_precision_surface(arrays, CONFS), expected, rtol=0, atol=1e-12)


def test_masks_are_judged_by_their_own_verdicts() -> None:
    arrays = some_arrays(0, n=100, n_objects=50, n_classes=2)
    expected = [theirs(arrays.above(conf), masks=True) for conf in CONFS]

    found = average_precision_surface(arrays, CONFS, masks=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert not np.allclose(found, average_precision_surface(arrays, CONFS))


def test_many_confidences_are_worked_off_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = some_arrays(1, n=200, n_objects=80, n_classes=3)
    whole = average_precision_surface(arrays, CONFS)

    monkeypatch.setattr(ultralytics_ap, "_CELLS_AT_ONCE", 1)
    np.testing.assert_allclose(average_precision_surface(arrays, CONFS), whole, rtol=0, atol=1e-14)


def test_finding_everything_and_nothing_else_falls_short_of_one_by_the_last_trapezoid() -> None:
    # Precision is 1 up to recall 1, where Ultralytics' curve drops to 0: of its 100 trapezoids the last is half full.
    found = average_precision_surface(by_hand([True, True], 2), [0.0])

    np.testing.assert_allclose(found, [[0.995, 0.995]], atol=1e-12)


def test_a_wrong_detection_in_between_makes_the_curve_flat() -> None:
    # Recall 1/2 at precision 1, then one wrong, then recall 1 at 2/3: 50 trapezoids of 1, one from 1 to 2/3 (recall .49
    # to .50), 49 of 2/3 and a last one of 1/3; at recall .5 exactly the curve is at 2/3 already.
    found = average_precision_surface(by_hand([True, False, True], 2), [0.0])

    expected = (49 + (1 + 2 / 3) / 2 + 49 * 2 / 3 + 1 / 3) / 100
    np.testing.assert_allclose(found[0], [expected, expected], atol=1e-12)


def test_a_confidence_that_cuts_a_right_detection_off_cuts_its_recall_off() -> None:
    # .9 and .8 right, .7 wrong, of 4 objects: above .85 one is left, recall 1/4.
    found = average_precision_surface(by_hand([True, True, False], 4), [0.85, 0.95])

    np.testing.assert_allclose(found, [[0.245, 0.245], [0, 0]], atol=1e-12)


@pytest.mark.parametrize(("right", "n_objects"), [([], 2), ([True], 0), ([], 0), ([False, False], 2)])
def test_without_objects_or_right_detections_it_is_zero(right: list[bool], n_objects: int) -> None:
    np.testing.assert_array_equal(average_precision_surface(by_hand(right, n_objects), [0.0, 0.5]), np.zeros((2, 2)))


def test_no_confidence_has_no_value() -> None:
    assert average_precision_surface(by_hand([True], 1), []).shape == (0, 2)
