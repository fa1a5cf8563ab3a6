from itertools import product

import numpy as np
import pytest

from mlflow_yolo.detection.class_thresholds import FULL_TRUST, choose_by_class
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.objective import Objective, parse_objective
from mlflow_yolo.detection.operating_choice import choose
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.detection.ranking import Ranking
from tests.detection.matches_by_hand import arrays_of, random_arrays, slowly

SPAN = (0.05, 0.95)


def chosen(arrays: dict[float, MatchArrays], objective: Objective) -> tuple:
    rankings = {iou: Ranking.of(one) for iou, one in arrays.items()}
    choice = choose(rankings, objective, conf=SPAN)
    return choice, choose_by_class(rankings, objective, choice, conf=SPAN)


def many(seed: int, n_classes: int = 3) -> MatchArrays:
    return random_arrays(np.random.default_rng(seed), n_images=30, n_classes=n_classes, n_detections=400, skill=0.6)


@pytest.mark.parametrize("word", ["f1", "fbeta", "cost"])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_classs_own_threshold_is_the_best_of_all_by_brute_force(word: str, seed: int) -> None:
    arrays, weighing = many(seed), Weighing(beta=0.5, c_fp=2, c_fn=1)
    objective = parse_objective(word, weighing=weighing)
    _, by_class = chosen({0.7: arrays}, objective)
    assert [one.n_objects >= FULL_TRUST for one in by_class.classes] == [True, True, False]
    for one in by_class.classes[:2]:
        rows = arrays.rows(arrays.pred_cls == one.class_id)
        alone = MatchArrays(
            rows.tp, rows.conf, rows.pred_cls * 0, rows.image,
            np.zeros(one.n_objects, np.float32), arrays.target_image[arrays.target_cls == one.class_id],
            arrays.n_images, 1,
        )  # fmt: skip
        values = [
            slowly(alone, [conf], weighing)[objective.measure]
            for conf in (*SPAN, *(float(score) for score in alone.conf if SPAN[0] <= score <= SPAN[1]))
        ]
        assert one.own is not None
        assert one.own.value == pytest.approx(max(values) if objective.sign > 0 else min(values), abs=1e-9)
        assert one.conf == one.own.conf


def test_all_thresholds_together_are_the_joint_optimum_by_brute_force() -> None:
    rng = np.random.default_rng(7)
    arrays = random_arrays(rng, n_images=40, n_classes=3, n_detections=240, decimals=1)
    _, by_class = chosen({0.7: arrays}, Objective())
    assert min(one.n_objects for one in by_class.classes[:2]) >= FULL_TRUST
    grid = [0.05, *(round(0.1 * step, 1) for step in range(1, 10)), 0.95]
    best = max(slowly(arrays, [a, b, 0.5], Weighing())["f1"] for a, b in product(grid, grid))
    assert by_class.value == pytest.approx(best, abs=1e-9)
    assert by_class.value == pytest.approx(slowly(arrays, list(by_class.confs), Weighing())["f1"], abs=1e-9)


def test_few_objects_draw_a_threshold_to_the_common_one_in_a_straight_line() -> None:
    # Class 0 is best between 0.4 and 0.6; class 1, with six objects, between 0.1 and 0.3.
    detections = [(i, 0, 0.6, True) for i in range(40)] + [(i, 0, 0.4, False) for i in range(40)]
    detections += [(i, 1, 0.3, True) for i in range(6)] + [(i, 1, 0.1, False) for i in range(6)]
    objects = [(i, 0) for i in range(40)] + [(i, 1) for i in range(6)]
    arrays = arrays_of(detections, objects, n_images=40, n_classes=3)
    choice, by_class = chosen({0.7: arrays}, Objective())
    large, small, absent = by_class.classes
    assert (large.conf, large.own and large.own.conf) == (0.5, 0.5)
    assert small.own is not None
    assert (small.n_objects, small.own.conf) == (6, 0.2)
    assert small.conf == pytest.approx(choice.conf + 6 / 30 * (0.2 - choice.conf), abs=1e-4)
    assert (absent.n_objects, absent.own, absent.conf) == (0, None, choice.conf)


def test_a_class_that_cannot_keep_the_bound_takes_the_common_threshold() -> None:
    detections = [(i, 0, 0.9, True) for i in range(40)] + [(i, 1, 0.6, i % 2 == 0) for i in range(40)]
    objects = [(i, c) for i in range(40) for c in (0, 1)]
    choice, by_class = chosen(
        {0.7: arrays_of(detections, objects, n_images=40, n_classes=2)}, parse_objective("recall@0.9")
    )
    assert choice.best.feasible, "above 0.6 class 1 is silent and class 0 always right"
    assert by_class.classes[0].own is not None
    assert by_class.classes[1].own is None
    assert by_class.classes[1].conf == choice.conf


def test_the_overlap_is_that_where_the_classes_are_best_together() -> None:
    # With one threshold the first overlap wins; with one for each class the second finds everything.
    objects = [(i, c) for i in range(40) for c in (0, 1)]
    one = [(i, 0, 0.9, True) for i in range(40)] + [(i, 1, 0.9, True) for i in range(36)]
    each = [(i, 0, 0.9, True) for i in range(40)] + [(i, 0, 0.7, False) for i in range(40)]
    each += [(i, 1, 0.6, True) for i in range(40)]
    arrays = {iou: arrays_of(rows, objects, n_images=40, n_classes=2) for iou, rows in ((0.5, one), (0.6, each))}
    choice, by_class = chosen(arrays, Objective())
    assert (choice.iou, by_class.iou) == (0.5, 0.6)
    assert by_class.value == 1
    assert by_class.common == choice.by_iou[0.6].conf
