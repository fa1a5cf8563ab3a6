"""The chosen trial against the default on new seeds: hand arithmetic, and words that only significance allows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mlflow_yolo.detection.samples import save_samples
from mlflow_yolo.studies.freeze.analysis import Child
from mlflow_yolo.studies.tuning.confirmation import Confirmation, Retrained, confirm

MakeChild = Callable[..., Child]


def retrained(make_child: MakeChild, word: str, values: Sequence[float], **changed: object) -> list[Retrained]:
    """Return trainings on the seeds 1, 2, … with these values on the last split."""
    children = [make_child(word, seed, value, **changed) for seed, value in enumerate(values, start=1)]
    return [Retrained(child.seed, child.directory, child.result) for child in children]


def compared(
    make_child: MakeChild, default: Sequence[float], best: Sequence[float], *, right: tuple[int, int] | None = None, **c
) -> Confirmation:
    """Return the confirmation of hand-made trainings; `right` of 20 images are found by default and chosen one."""
    first, second = (None, None) if right is None else right
    found = confirm(
        retrained(make_child, "0", default, n_right=first, **c),
        retrained(make_child, "10", best, n_right=second, **c),
        n_resamples=200,
    )
    assert found is not None
    return found


def test_means_and_difference_are_over_the_new_seeds_on_test(make_child: MakeChild) -> None:
    found = compared(make_child, [0.50, 0.54], [0.60, 0.62])

    assert (found.metric, found.split, found.n_images, found.seeds) == ("mAP50-95", "test", 20, (1, 2))
    assert (found.default, found.best) == ((0.50, 0.54), (0.60, 0.62))
    assert found.difference == pytest.approx((0.10 + 0.08) / 2)


def test_two_seeds_alone_never_make_it_better(make_child: MakeChild) -> None:
    found = compared(make_child, [0.10, 0.11], [0.90, 0.92])

    assert found.verdict.text == "no difference shown (n=2)"
    assert "better" not in found.sentence("trial 5")


def test_the_interval_over_two_seeds_is_students(make_child: MakeChild) -> None:
    found = compared(make_child, [0.50, 0.54], [0.60, 0.62])

    half = stats.t.ppf(0.975, 1) * math.sqrt(((0.10 - 0.09) ** 2 + (0.08 - 0.09) ** 2) / 1) / math.sqrt(2)
    low, high, source = found.interval
    assert (low, high, source) == (pytest.approx(0.09 - half), pytest.approx(0.09 + half), "seeds")


def test_images_can_show_that_it_is_better(make_child: MakeChild) -> None:
    found = compared(make_child, [0.4, 0.4], [0.8, 0.9], right=(6, 18))

    assert found.over_images is not None
    low, high, source = found.interval
    assert (low, high, source) == (found.over_images.low, found.over_images.high, "images")
    assert low > 0
    assert found.sentence("trial 5") == (
        "Trained again on seeds 1 and 2, trial 5 is better than the default, shown over images, on the test split "
        f"(20 images): mAP50-95 0.850 against 0.400, +0.450 [{low:+.3f}, {high:+.3f}] (95 % over images)."
    )


def test_images_can_show_that_it_is_worse(make_child: MakeChild) -> None:
    found = compared(make_child, [0.8, 0.9], [0.4, 0.4], right=(18, 6))

    assert "is worse than the default, shown over images, on" in found.sentence("trial 5")


def test_the_same_detections_show_no_difference(make_child: MakeChild) -> None:
    found = compared(make_child, [0.5, 0.5], [0.5, 0.5], right=(9, 9))

    assert found.over_images is not None
    assert found.over_images.p == 1.0
    assert found.sentence("trial 5") == (
        "Trained again on seeds 1 and 2, trial 5 shows no difference to the default (n=2) on the test split "
        "(20 images): mAP50-95 0.500 against 0.500, +0.000 [+0.000, +0.000] (95 % over images)."
    )


def test_only_seeds_that_both_have_are_compared_in_their_order(make_child: MakeChild) -> None:
    default = retrained(make_child, "0", [0.1, 0.2, 0.3])[::-1]
    best = retrained(make_child, "10", [0.5, 0.6, 0.8])

    found = confirm(default[:2], best)
    assert found is not None
    assert (found.seeds, found.default, found.best) == ((2, 3), (0.2, 0.3), (0.6, 0.8))


def test_a_single_seed_has_no_interval_without_predictions(make_child: MakeChild) -> None:
    found = compared(make_child, [0.5], [0.6])

    assert math.isnan(found.interval[0])
    assert found.sentence("trial 5") == (
        "Trained again on seed 1, trial 5 shows no difference to the default (n=1) on the test split (20 images): "
        "mAP50-95 0.600 against 0.500, +0.100."
    )


def test_seeds_without_a_value_are_left_out(make_child: MakeChild) -> None:
    default, best = retrained(make_child, "0", [0.5, math.nan]), retrained(make_child, "10", [0.6, 0.7])

    found = confirm(default, best)
    assert found is not None
    assert found.seeds == (1,)


def test_nothing_in_common_confirms_nothing(make_child: MakeChild) -> None:
    default, best = retrained(make_child, "0", [0.5, 0.5]), retrained(make_child, "10", [0.6, 0.6])

    assert confirm(default[:1], best[1:]) is None
    assert confirm([], best) is None
    assert confirm(default, []) is None


def test_without_a_test_split_it_says_that_the_search_chose_there_too(make_child: MakeChild) -> None:
    found = compared(make_child, [0.5, 0.5], [0.6, 0.7], splits=("val",))

    assert found.split == "val"
    assert found.sentence("trial 5").endswith("; the search chose on val too, which flatters the chosen one.")


def test_a_classifier_is_compared_by_the_images_it_names_right(make_child: MakeChild) -> None:
    found = compared(make_child, [0.3, 0.3], [0.9, 0.9], right=(6, 18), task="classify")

    assert found.metric == "top1"
    assert found.over_images is not None
    assert found.over_images.difference == pytest.approx(12 / 20)


def test_another_metric_of_the_boxes_can_be_asked_for_and_others_fall_back(make_child: MakeChild) -> None:
    measured = {"test": {"values": {"mAP50-95": 0.5, "mAP50": 0.75}, "n_images": 20}}
    default = retrained(make_child, "0", [0.5, 0.5], measured=measured, n_right=9)
    best = retrained(make_child, "10", [0.5, 0.5], measured=measured, n_right=9)

    for asked, used in (("mAP50", "mAP50"), ("latency_p95_ms", "mAP50-95"), (None, "mAP50-95")):
        found = confirm(default, best, metric=asked, n_resamples=20)
        assert found is not None
        assert found.metric == used
    assert found.default == (0.5, 0.5)


def test_the_bootstrap_is_of_the_metric_that_is_compared(make_child: MakeChild) -> None:
    measured = {"test": {"values": {"mAP50-95": 0.3, "mAP50": 1.0}, "n_images": 20}}
    default = retrained(make_child, "0", [0.0], measured=measured, n_right=0)
    best = retrained(make_child, "10", [0.3], measured=measured, n_right=20)
    # 7 of 32 pixels aside: IoU 800 / 1248 = 0.64, right at 3 of the 10 thresholds.
    aside = [replace(sample, boxes=sample.boxes + np.array([7.0, 0.0, 7.0, 0.0])) for sample in best[0].samples("test")]
    save_samples(best[0].directory / "predictions" / "test.npz", aside)

    differences = {}
    for metric in ("mAP50", "mAP50-95"):
        found = confirm(default, best, metric=metric, n_resamples=20)
        assert found is not None
        assert found.over_images is not None
        differences[metric] = found.over_images.difference
    assert differences == pytest.approx({"mAP50": 1.0, "mAP50-95": 0.3})
