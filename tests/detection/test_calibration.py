import dataclasses
import math

import numpy as np
import pytest

from mlflow_yolo.detection.calibration import (
    calibration_error,
    confidence_histogram,
    high_confidence_errors,
    reliability,
)
from mlflow_yolo.detection.matching import match
from mlflow_yolo.detection.worst_predictions import cases_of
from mlflow_yolo.exceptions import ArgumentError, ShapeError

OBJECT, FAR = (0, 0, 100, 100), (300, 300, 400, 400)


def test_bins_hold_the_mean_confidence_and_the_share_that_is_right():
    conf = np.array([0.1] * 5 + [0.15] * 5 + [0.3] * 10 + [0.9] * 20)
    right = np.array([False] * 10 + [True, False] * 5 + [True] * 15 + [False] * 5)
    bins = reliability(conf, right, n_bins=5)
    np.testing.assert_allclose(bins.edges, [0, 0.2, 0.4, 1])  # empty bins join the one above them
    np.testing.assert_allclose(bins.mean_conf, [0.125, 0.3, 0.9])
    np.testing.assert_allclose(bins.precision, [0, 0.5, 0.75])
    np.testing.assert_array_equal(bins.n, [10, 10, 20])
    assert bins.error == pytest.approx((10 * 0.125 + 10 * 0.2 + 20 * 0.15) / 40)


@pytest.mark.parametrize(
    ("counts", "merged", "edges"),
    [
        ([0, 9, 1, 30, 0], [10, 30], [0.2, 0.6, 0.8]),  # the ends are cut off
        ([10, 9, 0, 0, 9], [10, 18], [0, 0.2, 1]),
        ([10, 10, 9, 0, 0], [10, 19], [0, 0.2, 0.6]),  # the last joins the one below
        ([3, 0, 4, 0, 0], [7], [0, 0.6]),  # all together less than ten
        ([10, 10, 10, 10, 10], [10] * 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_small_bins_are_merged(counts, merged, edges):
    conf = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], counts)
    bins = reliability(conf, conf > 2, n_bins=5)
    assert bins.n.tolist() == merged
    np.testing.assert_allclose(bins.edges, edges)


def test_a_confidence_on_an_edge_belongs_to_the_bin_above_and_one_to_the_last():
    edges = np.arange(101) / 100
    bins = reliability(edges, edges > 2, n_bins=100, least=1)
    assert bins.n.tolist() == [1] * 99 + [2]


def test_with_iou_precision_is_that_times_the_mean_overlap_of_what_is_right():
    conf, right = np.full(4, 0.8), np.array([True, True, False, False])
    bins = reliability(conf, right, iou=np.array([0.6, 1.0, 0.4, 0.3]))
    assert bins.precision[0] == pytest.approx(0.5 * 0.8)


def test_confidences_that_are_the_precision_have_no_error():
    rng = np.random.default_rng(0)
    conf = rng.random(200_000)
    right = rng.random(200_000) < conf
    # 25 bins of 8000: a share is off by .0056 at most on average
    assert reliability(conf, right).error < 0.006
    assert reliability(np.sqrt(conf), right).error == pytest.approx(2 / 3 - 1 / 2, abs=0.006)


def test_no_detection_has_no_bins_and_no_error():
    bins = reliability(np.zeros(0), np.zeros(0, dtype=bool))
    assert (len(bins.edges), len(bins.n)) == (1, 0)
    assert math.isnan(bins.error)


def test_wrong_input_raises_with_its_value():
    with pytest.raises(ShapeError, match="2 confidences with 3"):
        reliability(np.zeros(2), np.zeros(3, dtype=bool))
    with pytest.raises(ShapeError, match="2 confidences"):
        reliability(np.zeros(2), np.zeros(2, dtype=bool), iou=np.zeros(1))
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(ArgumentError, match=str(value)):
            reliability(np.array([0.5, value]), np.zeros(2, dtype=bool))
    with pytest.raises(ArgumentError, match="n_bins=0"):
        reliability(np.zeros(2), np.zeros(2, dtype=bool), n_bins=0)


def _by_hand(rows, n_bins, *, overlap):
    """Return the error of rows (conf, right, iou), bin by bin, merged from below; the definition written out."""
    bins = [[row for row in rows if math.floor(row[0] * n_bins) == index] for index in range(n_bins)]
    while bins and not bins[-1]:
        bins.pop()
    groups, held = [], []
    for rows_of_bin in bins:
        held += rows_of_bin
        if len(held) >= 10:
            groups.append(held)
            held = []
    if held:
        groups = [*groups[:-1], groups[-1] + held] if groups else [held]
    total = 0.0
    for group in groups:
        right = [row for row in group if row[1]]
        precision = len(right) / len(group)
        if overlap:
            precision *= np.mean([row[2] for row in right]) if right else 0.0
        total += len(group) / len(rows) * abs(np.mean([row[0] for row in group]) - precision)
    return total


def test_d_ece_and_la_ece_equal_their_definitions(random_samples, one_image):
    samples = random_samples(7, 80)
    conf = 0.35
    errors = calibration_error(samples, n_classes=4, conf=conf, n_bins=10)
    matches = match(samples, n_classes=4, max_det=1000)
    best = {}  # (image, conf): overlap with the object it takes, found one class and image at a time
    for index, s in enumerate(samples):
        free = set(range(len(s.gt_boxes)))
        for d in np.argsort(-s.scores):
            overlaps = {g: _iou(s.boxes[d], s.gt_boxes[g]) for g in free if s.gt_classes[g] == s.classes[d]}
            g = max(overlaps, key=overlaps.get, default=None)
            if g is not None and overlaps[g] >= 0.5:
                best[index, s.scores[d]] = overlaps[g]
                free.remove(g)
    rows = [
        (score, right, best.get((image, score), 0.0), class_id)
        for image, score, right, class_id in zip(
            matches.image, matches.score, matches.tp[0, :, 0], matches.class_id, strict=True
        )
        if score >= conf
    ]
    assert all(right == (overlap > 0) for _, right, overlap, _ in rows)
    assert errors.d_ece == pytest.approx(_by_hand(rows, 10, overlap=False))
    of_class = [[row for row in rows if row[3] == class_id] for class_id in range(3)]
    la_ece = [_by_hand(part, 10, overlap=True) for part in of_class]
    np.testing.assert_allclose(errors.la_ece_per_class, [*la_ece, np.nan])
    np.testing.assert_allclose(
        errors.d_ece_per_class, [*(_by_hand(part, 10, overlap=False) for part in of_class), np.nan]
    )
    assert errors.la_ece == pytest.approx(np.mean(la_ece))
    assert errors.n_per_class.tolist() == [len(part) for part in of_class] + [0]
    assert errors.reliability.error == errors.d_ece


def _iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def test_one_detection_by_hand_and_none(one_image):
    half = (0, 0, 100, 60)
    errors = calibration_error([one_image([(OBJECT, 0)], [(half, 0.9, 0), (FAR, 0.2, 1)])], n_classes=2, conf=0.5)
    assert errors.d_ece == pytest.approx(0.1)
    assert errors.la_ece == pytest.approx(0.3)  # .9 promised, 1 x .6 held
    assert errors.n_per_class.tolist() == [1, 0]
    empty = calibration_error([one_image([(OBJECT, 0)], [])], n_classes=2, conf=0.5)
    assert math.isnan(empty.d_ece)
    assert math.isnan(empty.la_ece)


def test_order_of_images_does_not_matter(random_samples):
    samples = random_samples(8, 30)
    before, after = (calibration_error(s, n_classes=3, conf=0.3) for s in (samples, samples[::-1]))
    assert (after.d_ece, after.la_ece) == (pytest.approx(before.d_ece), pytest.approx(before.la_ece))


def test_histogram_counts_right_and_wrong_by_confidence(one_image):
    detections = [(OBJECT, 0.95, 0), (OBJECT, 0.5, 0), (FAR, 1.0, 0), (FAR, 0.1, 0)]
    histogram = confidence_histogram([one_image([(OBJECT, 0)], detections)], n_classes=1, conf=0.2, n_bins=4)
    np.testing.assert_allclose(histogram.edges, [0, 0.25, 0.5, 0.75, 1])
    assert histogram.right.tolist() == [0, 0, 0, 1]
    assert histogram.wrong.tolist() == [0, 0, 1, 1]
    assert confidence_histogram([], n_classes=1, n_bins=4).wrong.tolist() == [0, 0, 0, 0]


def test_high_confidence_errors_are_the_wrong_ones_above_the_surest_first(one_image):
    detections = [(OBJECT, 0.99, 0), (FAR, 0.92, 0), ((200, 0, 250, 50), 0.97, 1), (OBJECT, 0.9, 0)]
    samples = [one_image([(OBJECT, 0)], detections[3:]), one_image([(OBJECT, 0), (FAR, 1)], detections)]
    cases = cases_of(high_confidence_errors(samples, n_classes=2))
    assert [(case.image, case.detection, case.subtype, case.conf) for case in cases] == [
        (1, 2, "background", 0.97),
        (1, 1, "confusion", 0.92),
    ]
    assert high_confidence_errors(samples, n_classes=2, above=0.97).empty


def test_a_score_that_is_no_probability_raises(one_image):
    sample = dataclasses.replace(one_image([], [(OBJECT, 0.5, 0)]), scores=np.array([7.0]))
    with pytest.raises(ArgumentError, match=r"7\.0"):
        calibration_error([sample], n_classes=1, conf=0.3)
