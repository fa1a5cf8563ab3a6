from collections.abc import Mapping

import numpy as np
import pytest

from mlflow_yolo.detection.objective import Objective, parse_objective
from mlflow_yolo.detection.operating_assessment import assess, cross_fit
from mlflow_yolo.detection.operating_choice import choose_conf
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.detection.ranking import Ranking
from mlflow_yolo.exceptions import ArgumentError
from tests.detection.matches_by_hand import arrays_of, random_arrays, slowly


def test_the_value_is_that_of_the_images_as_they_are() -> None:
    arrays = random_arrays(np.random.default_rng(0))
    confs = [0.2, 0.5, 0.4, 0.3]
    found = assess({"only": Ranking.of(arrays).image_counts(confs)}, Objective(), baseline="only", n_resamples=50)
    expected = slowly(arrays, confs, Weighing())
    assert found["only"].change is None
    for name, interval in found["only"].measured.items():
        assert interval.value == pytest.approx(expected[name]), name
        assert interval.low <= interval.high


def test_intervals_are_those_of_resampled_splits_measured_one_by_one() -> None:
    arrays = random_arrays(np.random.default_rng(1), n_images=10)
    confs, n, seed = [0.3] * 4, 40, 3
    found = assess({"a": Ranking.of(arrays).image_counts(confs)}, Objective(), baseline="a", n_resamples=n, seed=seed)[
        "a"
    ].measured
    weights = np.random.default_rng(seed).multinomial(10, np.full(10, 0.1), size=n)
    drawn = [slowly(arrays.of_images(np.repeat(np.arange(10), row)), confs, Weighing()) for row in weights]
    for name in ("f1", "precision", "recall", "cost"):
        low, high = np.percentile([one[name] for one in drawn], [2.5, 97.5])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high)), name


def test_points_are_compared_on_the_same_resampled_images() -> None:
    # The better point finds one object more in every image: the difference in recall never varies.
    objects = [(i, 0) for i in range(20) for _ in range(2)]
    every = [(i, 0, 0.9, True) for i in range(20)] + [(i, 0, 0.5, True) for i in range(20)]
    ranking = Ranking.of(arrays_of(every, objects, n_images=20, n_classes=1))
    counts = {"low": ranking.image_counts([0.3]), "high": ranking.image_counts([0.7])}
    found = assess(counts, parse_objective("recall@0.5"), baseline="high")["low"].change
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_better_means_that_the_whole_interval_is_on_the_better_side() -> None:
    objects = [(i, 0) for i in range(30)]
    right = [(i, 0, 0.9, True) for i in range(30)]
    wrong = [(i, 0, 0.4, False) for i in range(30)]
    ranking = Ranking.of(arrays_of(right + wrong, objects, n_images=30, n_classes=1))
    counts = {"strict": ranking.image_counts([0.5]), "loose": ranking.image_counts([0.1])}
    for word in ("f1", "cost"):
        objective = parse_objective(word)
        found = assess(counts, objective, baseline="loose")
        assert found["strict"].is_better(objective)
        assert not found["loose"].is_better(objective)
        back = assess(counts, objective, baseline="strict")
        assert not back["loose"].is_better(objective)
        same = assess({"a": counts["loose"], "b": counts["loose"]}, objective, baseline="a")
        assert not same["b"].is_better(objective)


def test_nobody_is_counted_at_a_point_that_it_was_chosen_on() -> None:
    ranking = Ranking.of(random_arrays(np.random.default_rng(2), n_images=11))
    left_out: list[set[int]] = []

    def points(rest: Mapping[float, Ranking]) -> dict[str, tuple[float, list[float]]]:
        here = {*rest[0.7].image.tolist(), *rest[0.7].target_image.tolist()}
        left_out.append({*ranking.image.tolist(), *ranking.target_image.tolist()} - here)
        assert rest[0.7].n_images in (8, 9)
        return {"marked": (0.7, [len(left_out) / 10] * 4)}  # a threshold that says which fold it belongs to

    counts = cross_fit({0.7: ranking}, points=points)["marked"]
    assert sorted(image for fold in left_out for image in fold) == sorted(set().union(*left_out))
    assert len(left_out) == 5
    for fold, images in enumerate(left_out):
        expected = ranking.image_counts([(fold + 1) / 10] * 4)
        for name in ("tp", "seen", "objects"):
            ours, theirs = (getattr(one, name).toarray()[sorted(images)] for one in (counts, expected))
            np.testing.assert_array_equal(ours, theirs)


def test_cross_fitting_tells_luck_from_skill() -> None:
    """Scores say nothing, so the best threshold of many is luck: on other images it is worth less."""
    gains = []
    for seed in range(10):
        arrays = random_arrays(np.random.default_rng(seed), n_images=12, n_classes=2, n_detections=30, skill=0.0)
        ranking, objective = Ranking.of(arrays), Objective()

        def points(rest: Mapping[float, Ranking]) -> dict[str, tuple[float, list[float]]]:
            return {"best": (0.7, [choose_conf(rest[0.7], Objective(), conf=(0.001, 1.0)).conf] * 2)}

        fitted = assess(cross_fit({0.7: ranking}, points=points), objective, baseline="best", n_resamples=1)
        inside = choose_conf(ranking, objective, conf=(0.001, 1.0)).value
        gains.append(inside - fitted["best"].measured["f1"].value)
    assert min(gains) >= -1e-9
    assert np.mean(gains) > 0.01


def test_one_image_cannot_be_left_out() -> None:
    ranking = Ranking.of(arrays_of([(0, 0, 0.5, True)], [(0, 0)], n_images=1, n_classes=1))
    with pytest.raises(ArgumentError, match="1 image"):
        cross_fit({0.7: ranking}, points=lambda rest: {})
