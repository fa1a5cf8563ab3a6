from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mlflow_yolo.detection.agreement import Agreement, agreement
from mlflow_yolo.detection.boxes import iou
from mlflow_yolo.exceptions import ArgumentError, InputError

A, B, FAR = (0, 0, 10, 10), (100, 100, 110, 110), (300, 300, 310, 310)


def test_the_same_detections_agree_wholly(random_samples) -> None:
    samples = random_samples(0, 20)
    n = sum(int((sample.scores >= 0.25).sum()) for sample in samples)
    assert agreement(samples, samples, conf=0.25) == Agreement(1.0, n, n, n)


def test_f1_is_twice_the_matched_over_all(one_image) -> None:
    reference = [one_image([], [(A, 0.9, 0), (B, 0.8, 1), (FAR, 0.7, 0)])]
    other = [one_image([], [(A, 0.6, 0), (B, 0.5, 0)])]  # the second has another class
    assert agreement(reference, other, conf=0.25) == Agreement(2 * 1 / 5, 3, 2, 1)


def test_a_detection_below_the_confidence_does_not_count(one_image) -> None:
    reference, other = [one_image([], [(A, 0.30, 0)])], [one_image([], [(A, 0.24, 0)])]
    assert agreement(reference, other, conf=0.25) == Agreement(0.0, 1, 0, 0)
    assert agreement(reference, other, conf=0.24) == Agreement(1.0, 1, 1, 1)


def test_overlap_decides_and_equality_is_enough(one_image) -> None:
    half = (0, 0, 10, 5)  # IoU .5 with A
    reference, other = [one_image([], [(A, 0.9, 0)])], [one_image([], [(half, 0.9, 0)])]
    assert agreement(reference, other, conf=0.1, iou=0.5).n_matched == 1
    assert agreement(reference, other, conf=0.1, iou=0.51).n_matched == 0


def test_each_detection_is_matched_once_and_the_nearest_pair_first(one_image) -> None:
    # Overlaps: 1 with the second, .43 with the first; .54 with the first, .18 with the second.
    reference = [one_image([], [((0, 0, 10, 10), 0.9, 0), ((4, 0, 14, 10), 0.8, 0)])]
    other = [one_image([], [((4, 0, 14, 10), 0.9, 0), ((-3, 0, 7, 10), 0.1, 0)])]
    assert agreement(reference, other, conf=0.1, iou=0.3) == Agreement(1.0, 2, 2, 2)
    again = [one_image([], [((4, 0, 14, 10), 0.9, 0)] * 3)]
    assert agreement(reference, again, conf=0.1, iou=0.5) == Agreement(0.4, 2, 3, 1)


def test_images_do_not_mix(one_image) -> None:
    reference = [one_image([], [(A, 0.9, 0)], "a.jpg"), one_image([], [], "b.jpg")]
    other = [one_image([], [], "a.jpg"), one_image([], [(A, 0.9, 0)], "b.jpg")]
    assert agreement(reference, other, conf=0.1) == Agreement(0.0, 1, 1, 0)


def test_it_does_not_matter_which_model_is_the_reference(random_samples) -> None:
    one, rng = random_samples(1, 15, n_detections=40), np.random.default_rng(2)
    other = [replace(s, boxes=s.boxes + rng.normal(0, 15, s.boxes.shape)) for s in one]
    there, back = agreement(one, other, conf=0.2, iou=0.2), agreement(other, one, conf=0.2, iou=0.2)
    assert (there.f1, there.n_matched, there.n_reference) == (back.f1, back.n_matched, back.n_other)
    assert 50 < there.n_matched < there.n_reference


def test_order_of_detections_does_not_matter(random_samples) -> None:
    samples = random_samples(3, 12)
    rng = np.random.default_rng(0)
    moved = []
    for sample in samples:
        order = rng.permutation(len(sample.boxes))
        boxes = sample.boxes[order] + rng.normal(0, 3, (len(order), 4))
        moved.append(replace(sample, boxes=boxes, scores=sample.scores[order], classes=sample.classes[order]))
    rising = [np.argsort(sample.scores) for sample in moved]
    sorted_ones = [
        replace(s, boxes=s.boxes[order], scores=s.scores[order], classes=s.classes[order])
        for s, order in zip(moved, rising, strict=True)
    ]
    assert agreement(samples, moved, conf=0.2) == agreement(samples, sorted_ones, conf=0.2)
    assert agreement(samples, moved, conf=0.2).n_matched > 20


def test_it_is_near_the_best_possible_matching(random_samples) -> None:
    # Greedy by overlap finds at most as many pairs as the assignment problem's optimum, and hardly ever fewer.
    one, other = random_samples(4, 30, n_detections=30), random_samples(4, 30, n_detections=30)
    rng = np.random.default_rng(1)
    other = [replace(s, boxes=s.boxes + rng.normal(0, 6, s.boxes.shape)) for s in other]
    best = 0
    for a, b in zip(one, other, strict=True):
        fits = (iou(a.boxes, b.boxes) >= 0.5) & (a.classes[:, None] == b.classes[None])
        rows, columns = linear_sum_assignment(-fits.astype(float))
        best += int(fits[rows, columns].sum())
    found = agreement(one, other, conf=0.0).n_matched
    assert 0.97 * best <= found <= best


def test_two_models_that_detect_nothing_agree(one_image) -> None:
    nothing = [one_image([(A, 0)], [])]
    assert agreement(nothing, nothing, conf=0.25) == Agreement(1.0, 0, 0, 0)
    assert agreement([], [], conf=0.25) == Agreement(1.0, 0, 0, 0)


def test_a_model_without_numbers_agrees_with_none(one_image) -> None:
    nan = float("nan")
    broken = [one_image([], [((nan, nan, nan, nan), 0.9, 0), (A, nan, 0)])]
    assert agreement([one_image([], [(A, 0.9, 0)])], broken, conf=0.25) == Agreement(0.0, 1, 1, 0)


def test_many_classes_stay_apart(one_image) -> None:
    hundred = one_image([], [(A, 0.9, c) for c in range(100)])
    assert agreement([hundred], [hundred], conf=0.5) == Agreement(1.0, 100, 100, 100)


def test_bad_input_is_refused(one_image) -> None:
    image, another = one_image([], [], "a.jpg"), one_image([], [], "b.jpg")
    with pytest.raises(InputError, match="1 and 2 images"):
        agreement([image], [image, another], conf=0.5)
    with pytest.raises(InputError, match=r"'a\.jpg' where the other saw 'b\.jpg'"):
        agreement([image], [another], conf=0.5)
    with pytest.raises(ArgumentError, match="conf=25"):
        agreement([image], [image], conf=25)
    with pytest.raises(ArgumentError, match="iou=0"):
        agreement([image], [image], conf=0.5, iou=0)
