import dataclasses
import math

import numpy as np
import pytest

from mlflow_yolo.detection.bootstrap import bootstrap_map, bootstrap_mean
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError


def _with_noise(samples, seed, noise):
    """Return another model's detections of the same images: the same boxes, moved, with other scores."""
    rng = np.random.default_rng(seed)
    changed = []
    for s in samples:
        boxes = s.boxes + rng.normal(0, noise, s.boxes.shape) * np.tile(s.boxes[:, 2:] - s.boxes[:, :2], 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        changed.append(dataclasses.replace(s, boxes=boxes, scores=rng.random(len(s.scores))))
    return changed


@pytest.fixture
def groups(random_samples):
    """Return two configurations with two seeds, and a third, worse one with one."""
    samples = random_samples(0, 20)
    # One class on one image only: a third of the resamples does not have it.
    samples[0] = dataclasses.replace(
        samples[0], gt_classes=np.full_like(samples[0].gt_classes, 3), classes=np.full_like(samples[0].classes, 3)
    )
    return {
        "0": [_with_noise(samples, 1, 0.02), _with_noise(samples, 2, 0.02)],
        "3": [_with_noise(samples, 3, 0.03), _with_noise(samples, 4, 0.03)],
        "10": [_with_noise(samples, 5, 0.3)],
    }


@pytest.mark.parametrize(("metric", "attribute"), [("mAP50-95", "map50_95"), ("mAP50", "map50")])
def test_difference_is_that_of_the_evaluations_averaged_over_seeds(groups, metric, attribute):
    result = bootstrap_map(groups, baseline="0", n_classes=4, metric=metric, n_resamples=10)
    means = {
        name: np.mean([getattr(evaluate(child, n_classes=4), attribute) for child in children])
        for name, children in groups.items()
    }
    assert list(result) == ["3", "10"]
    for name, difference in result.items():
        assert difference.difference == pytest.approx(means[name] - means["0"], abs=1e-12)
        assert (difference.n_images, difference.n_resamples) == (20, 10)


def _repeated(samples, counts):
    return [sample for sample, count in zip(samples, counts, strict=True) for _ in range(count)]


def test_interval_and_p_equal_evaluating_repeated_images(groups):
    n_resamples = 120  # more than are taken at once
    groups = {"0": groups["0"], "3": groups["3"][:1]}
    result = bootstrap_map(groups, baseline="0", n_classes=4, n_resamples=n_resamples, seed=11)
    counts = np.random.default_rng(11).multinomial(20, np.full(20, 1 / 20), size=n_resamples)
    drawn = [
        evaluate(_repeated(groups["3"][0], row), n_classes=4).map50_95
        - np.mean([evaluate(_repeated(child, row), n_classes=4).map50_95 for child in groups["0"]])
        for row in counts
    ]
    np.testing.assert_allclose([result["3"].low, result["3"].high], np.percentile(drawn, [2.5, 97.5]), atol=1e-12)
    rarer = min(np.sum(np.array(drawn) <= 0), np.sum(np.array(drawn) >= 0))
    assert 0 < rarer < n_resamples / 2
    assert result["3"].p == pytest.approx(2 * (1 + rarer) / (n_resamples + 1))


def test_a_much_worse_model_is_significant_and_its_own_copy_is_not(groups):
    result = bootstrap_map({**groups, "copy": groups["0"]}, baseline="0", n_classes=4, n_resamples=400)
    assert result["10"].high < 0
    assert result["10"].p == pytest.approx(2 / 401)
    assert dataclasses.astuple(result["copy"])[:4] == (0, 0, 0, 1)


def test_order_of_seeds_and_a_monotone_change_of_scores_do_not_matter(groups):
    before = bootstrap_map(groups, baseline="0", n_classes=4, n_resamples=50)
    changed = {
        name: [[dataclasses.replace(s, scores=s.scores**2) for s in child] for child in reversed(children)]
        for name, children in groups.items()
    }
    after = bootstrap_map(changed, baseline="0", n_classes=4, n_resamples=50)
    for name in before:
        np.testing.assert_allclose(dataclasses.astuple(after[name]), dataclasses.astuple(before[name]), atol=1e-12)


def test_resamples_without_any_object_are_left_out(one_image):
    box = (0, 0, 100, 100)
    good = [one_image([(box, 0)], [(box, 0.9, 0)], "a.jpg"), one_image([], [], "b.jpg")]
    bad = [one_image([(box, 0)], [], "a.jpg"), one_image([], [], "b.jpg")]
    result = bootstrap_map({"bad": [bad], "good": [good]}, baseline="bad", n_classes=1, n_resamples=200)["good"]
    assert (result.difference, result.low, result.high) == (1, 1, 1)
    assert 100 < result.n_resamples < 200  # a quarter of the resamples draws the empty image twice


def test_bootstrap_mean_of_a_known_difference():
    ours, base = np.array([1, 1, 1, 0] * 25), np.array([1, 0, 1, 0] * 25)
    result = bootstrap_mean({"base": [base], "ours": [ours, ours]}, baseline="base", n_resamples=4000)["ours"]
    assert result.difference == pytest.approx(0.25)
    # the differences are 1 on a quarter of the images: a binomial of 100 draws
    error = math.sqrt(0.25 * 0.75 / 100)
    assert (result.low, result.high) == (
        pytest.approx(0.25 - 1.96 * error, abs=0.015),
        pytest.approx(0.25 + 1.96 * error, abs=0.015),
    )
    assert result.p == pytest.approx(2 / 4001)


def test_false_positives_of_the_bootstrap_under_the_null_are_near_five_percent():
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(400):
        ours, base = rng.random((2, 60)) < 0.7
        values = {"base": [base.astype(float)], "ours": [ours.astype(float)]}
        p_values.append(bootstrap_mean(values, baseline="base", n_resamples=200, seed=seed)["ours"].p)
    # 400 draws of probability .05 lie within .02 and .09 but once in a thousand
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_images_that_differ_are_named(groups, one_image):
    other = {**groups, "3": [groups["3"][0], [*groups["3"][1][1:], groups["3"][1][0]]]}
    with pytest.raises(InputError, match=r"'3' has '1\.jpg' where '0' has '0\.jpg'"):
        bootstrap_map(other, baseline="0", n_classes=4)
    with pytest.raises(InputError, match="'3' has 19 images and '0' 20"):
        bootstrap_map({**groups, "3": [groups["3"][0][:-1]]}, baseline="0", n_classes=4)


def test_groups_that_cannot_be_compared_raise(groups, one_image):
    with pytest.raises(InputError, match=r"'7' is not among .* 0, 3, 10"):
        bootstrap_map(groups, baseline="7", n_classes=4)
    with pytest.raises(InputError, match="'3' has no training seed"):
        bootstrap_map({**groups, "3": []}, baseline="0", n_classes=4)
    with pytest.raises(InputError, match="'3' has no images"):
        bootstrap_map({**groups, "3": [[]]}, baseline="0", n_classes=4)
    with pytest.raises(InputError, match="no image has ground truth"):
        bootstrap_map({"0": [[one_image([], [])]]}, baseline="0", n_classes=4)
    with pytest.raises(ArgumentError, match="mAP75"):
        bootstrap_map(groups, baseline="0", n_classes=4, metric="mAP75")
    with pytest.raises(ArgumentError, match="n_resamples=0"):
        bootstrap_map(groups, baseline="0", n_classes=4, n_resamples=0)
    with pytest.raises(ShapeError, match=r"'b' has values of shape \(3,\), expected \(4,\)"):
        bootstrap_mean({"a": [np.zeros(4)], "b": [np.zeros(3)]}, baseline="a")
