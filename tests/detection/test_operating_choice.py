from collections.abc import Iterator

import numpy as np
import pytest

from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.objective import Objective, parse_objective
from mlflow_yolo.detection.operating_choice import choose, choose_conf, running
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.detection.ranking import Ranking
from tests.detection.matches_by_hand import arrays_of, random_arrays, slowly

WEIGHING = Weighing(beta=2, c_fp=1, c_fn=3)
WORDS = ["f1", "fbeta", "cost", "recall@0.7", "precision@0.4", "recall@0.999"]


def every_threshold(arrays: MatchArrays, low: float, high: float) -> list[float]:
    """Return the bounds and every score between them: between two of these nothing changes."""
    return sorted({low, high, *(float(score) for score in arrays.conf if low <= score <= high)})


def brute_force(arrays: MatchArrays, objective: Objective, low: float, high: float) -> tuple[bool, float]:
    """Return whether the bound can be kept, and the best value: of what keeps it, else of the bounded measure."""
    found = [
        slowly(arrays, [conf] * arrays.n_classes, objective.weighing) for conf in every_threshold(arrays, low, high)
    ]
    values = [np.nan_to_num(one[objective.measure]) for one in found]
    if objective.bound is None:
        return True, max(values) if objective.sign > 0 else min(values)
    others = [float(np.nan_to_num(one[objective.bounded])) for one in found]
    kept = [value for value, other in zip(values, others, strict=True) if other >= objective.bound]
    return (True, max(kept)) if kept else (False, max(others))


def cases() -> Iterator[tuple[MatchArrays, float, float]]:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        arrays = random_arrays(
            rng, n_classes=int(rng.integers(1, 6)), decimals=[None, 1, 2][seed % 3], skill=[0.3, 1.0][seed % 2]
        )
        yield arrays, *([(0.001, 1.0), (0.2, 0.6)][seed % 2])


@pytest.mark.parametrize("word", WORDS)
def test_the_choice_is_the_best_of_all_thresholds_by_brute_force(word: str) -> None:
    objective = parse_objective(word, weighing=WEIGHING)
    feasible = []
    for arrays, low, high in cases():
        found = choose_conf(Ranking.of(arrays), objective, conf=(low, high))
        assert low <= found.conf <= high
        there = slowly(arrays, [found.conf] * arrays.n_classes, WEIGHING)
        assert found.value == pytest.approx(np.nan_to_num(there[objective.measure]), abs=1e-9)
        possible, best = brute_force(arrays, objective, low, high)
        assert found.feasible == possible
        assert (found.value if possible else found.bounded) == pytest.approx(best, abs=1e-9)
        feasible.append(possible)
    if word == "recall@0.999":
        assert not all(feasible), "no bound was out of reach: the test does not look at it"


@pytest.mark.parametrize("measure", ["precision", "recall", "f1", "f_beta", "cost"])
def test_the_running_measure_is_that_of_every_prefix(measure: str) -> None:
    arrays = random_arrays(np.random.default_rng(5), n_detections=60)
    ranking = Ranking.of(arrays)
    values = running(ranking, Objective("f1", None, WEIGHING), measure)
    for k in range(len(arrays.conf) + 1):
        conf = float(ranking.score[k]) if k < len(arrays.conf) else 0.0
        expected = slowly(arrays, [conf] * arrays.n_classes, WEIGHING)[measure]
        assert values[k] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_the_threshold_lies_in_the_middle_of_its_gap_with_few_decimals() -> None:
    arrays = arrays_of([(0, 0, 0.813, True), (0, 0, 0.217, False)], [(0, 0)], n_images=1, n_classes=1)
    found = choose_conf(Ranking.of(arrays), Objective(), conf=(0.05, 0.95))
    assert (found.conf, found.value) == (0.52, 1.0)  # (0.813 + 0.217) / 2 = 0.515


def test_neighbouring_scores_are_told_apart() -> None:
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    arrays = arrays_of([(0, 0, float(high), True), (0, 0, float(low), False)], [(0, 0)], n_images=1, n_classes=1)
    found = choose_conf(Ranking.of(arrays), Objective(), conf=(0.05, 0.95))
    assert found.value == 1
    assert len(arrays.above(found.conf).conf) == 1


def test_equal_scores_count_together() -> None:
    detections = [(0, 0, 0.5, True), (1, 0, 0.5, False), (2, 0, 0.5, False), (3, 0, 0.4, True)]
    arrays = arrays_of(detections, [(0, 0), (3, 0)], n_images=4, n_classes=1)
    found = choose_conf(Ranking.of(arrays), Objective(), conf=(0.05, 0.95))
    assert found.value == pytest.approx(
        4 / 6
    )  # all four: 2 right, 2 wrong; never the first one alone (2/3 too: 2/(1+2))
    assert len(arrays.above(found.conf).conf) == 4


def test_of_equal_thresholds_the_highest_is_taken() -> None:
    detections = [(0, 0, 0.9, True), (0, 1, 0.5, False), (0, 1, 0.4, False)]  # class 1 has no object: F1 stays
    arrays = arrays_of(detections, [(0, 0)], n_images=1, n_classes=2)
    assert choose_conf(Ranking.of(arrays), Objective(), conf=(0.05, 0.95)).conf == 0.7


def test_the_bounds_are_kept() -> None:
    arrays = arrays_of([(0, 0, 0.9, True), (0, 0, 0.3, True)], [(0, 0), (0, 0)], n_images=1, n_classes=1)
    ranking = Ranking.of(arrays)
    assert choose_conf(ranking, Objective(), conf=(0.5, 0.95)).value == pytest.approx(2 / 3)
    assert choose_conf(ranking, Objective(), conf=(0.95, 0.95)).conf == 0.95
    assert choose_conf(ranking, Objective(), conf=(0.95, 0.95)).value == 0


def test_without_detections_or_objects_there_is_a_threshold_all_the_same() -> None:
    nothing = Ranking.of(arrays_of([], [(0, 0)], n_images=1, n_classes=1))
    assert choose_conf(nothing, Objective(), conf=(0.1, 0.9)).conf == 0.5
    unlabelled = Ranking.of(arrays_of([(0, 0, 0.5, False)], [], n_images=1, n_classes=1))
    assert choose_conf(unlabelled, parse_objective("cost"), conf=(0.1, 0.9)).conf > 0.5
    assert choose_conf(unlabelled, Objective(), conf=(0.1, 0.9)).value == 0


def test_the_best_overlap_is_chosen_and_of_equal_ones_that_nearest_to_ultralytics_own() -> None:
    objects = [(0, 0), (1, 0)]
    better = arrays_of([(0, 0, 0.9, True), (1, 0, 0.8, True)], objects, n_images=2, n_classes=1)
    worse = arrays_of([(0, 0, 0.9, True), (1, 0, 0.8, True), (1, 0, 0.85, False)], objects, n_images=2, n_classes=1)
    rankings = {0.3: Ranking.of(better), 0.55: Ranking.of(better), 0.8: Ranking.of(worse)}
    choice = choose(rankings, Objective(), conf=(0.05, 0.95))
    assert choice.iou == 0.55
    assert choice.by_iou[0.8].value == pytest.approx(0.8)
    cheap = choose(rankings, parse_objective("cost"), conf=(0.05, 0.95))
    assert (cheap.iou, cheap.best.value) == (0.55, 0)


def test_an_overlap_that_keeps_the_bound_beats_one_that_does_not() -> None:
    objects = [(0, 0), (1, 0)]
    keeps = arrays_of([(0, 0, 0.9, True)], objects, n_images=2, n_classes=1)
    loses = arrays_of([(0, 0, 0.95, False), (0, 0, 0.9, True), (1, 0, 0.9, True)], objects, n_images=2, n_classes=1)
    rankings = {0.3: Ranking.of(keeps), 0.7: Ranking.of(loses)}
    assert choose(rankings, parse_objective("recall@0.9"), conf=(0.05, 0.95)).iou == 0.3


def test_the_order_of_images_does_not_matter() -> None:
    arrays = random_arrays(np.random.default_rng(3), decimals=1)
    turned = arrays.of_images(np.arange(arrays.n_images)[::-1].copy())
    first, second = (choose_conf(Ranking.of(one), Objective(), conf=(0.05, 0.95)) for one in (arrays, turned))
    assert first.conf == second.conf
    assert first.value == pytest.approx(second.value, abs=1e-12)
