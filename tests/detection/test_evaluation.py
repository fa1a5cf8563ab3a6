import dataclasses

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.exceptions import ArgumentError

OBJECT, OTHER, ELSEWHERE = (0, 0, 100, 100), (200, 200, 300, 300), (400, 400, 480, 480)


def _xywh(box):
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def _coco(samples, n_classes):
    """Return faster-coco-eval's precision [10, 101, C, 4 areas] (-1 where there is no object) and its summary."""
    objects, detections = [], []
    for index, sample in enumerate(samples):
        for box, class_id in zip(sample.gt_boxes, sample.gt_classes, strict=True):
            x, y, w, h = _xywh(box)
            place = {"id": len(objects) + 1, "image_id": index + 1, "category_id": int(class_id)}
            objects.append({**place, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
        for box, score, class_id in zip(sample.boxes, sample.scores, sample.classes, strict=True):
            place = {"image_id": index + 1, "category_id": int(class_id)}
            detections.append({**place, "bbox": _xywh(box), "score": float(score)})
    images = [{"id": i + 1, "height": s.height, "width": s.width} for i, s in enumerate(samples)]
    truth = COCO({"images": images, "categories": [{"id": c} for c in range(n_classes)], "annotations": objects})
    evaluator = COCOeval_faster(truth, truth.loadRes(detections), "bbox", print_function=lambda *_: None)
    evaluator.run()
    return evaluator.eval["precision"][..., -1], evaluator.stats


def _assert_equal_to_coco(samples, n_classes):
    precision, stats = _coco(samples, n_classes)
    result = evaluate(samples, n_classes=n_classes)
    present = precision[0, 0, :, 0] > -1
    expected = np.where(present[:, None], precision[..., 0].mean(axis=1).T, np.nan)
    np.testing.assert_allclose(result.ap, expected, atol=1e-6)
    np.testing.assert_allclose(result.pr_curve, precision[0][:, present, 0].mean(axis=1), atol=1e-6)
    sizes = [-1 if ap is None else ap for ap in (result.ap_small, result.ap_medium, result.ap_large)]
    np.testing.assert_allclose([result.map50_95, result.map50, *sizes], stats[[0, 1, 3, 4, 5]], atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_faster_coco_eval(random_samples, seed):
    # class 3 has detections and no objects; every fifth image has no objects, every seventh no detections
    samples = random_samples(seed, 40, n_classes=3)
    rng = np.random.default_rng(seed)
    extra = [rng.random(len(s.classes)) < 0.1 for s in samples]
    samples = [dataclasses.replace(s, classes=np.where(e, 3, s.classes)) for s, e in zip(samples, extra, strict=True)]
    assert 0.05 < evaluate(samples, n_classes=5).map50_95 < 0.95
    _assert_equal_to_coco(samples, n_classes=5)


def test_average_precision_equals_faster_coco_eval_beyond_100_detections(random_samples):
    samples = random_samples(7, 8, n_classes=1, n_objects=40, n_detections=250)
    assert evaluate(samples, n_classes=1).map50 != evaluate(samples, n_classes=1, max_det=250).map50
    _assert_equal_to_coco(samples, n_classes=1)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_faster_coco_eval_with_equal_overlaps_and_areas_on_the_limits(random_samples, seed):
    samples = random_samples(seed, 30, n_objects=15, n_detections=60, whole=True)
    rng = np.random.default_rng(seed)
    for sample in samples:  # objects of exactly 32x32 and 96x96
        exact = np.where(rng.random(len(sample.gt_boxes)) < 0.5, 32.0, 96.0)[:, None]
        sample.gt_boxes[:, 2:] = np.where(
            rng.random((len(exact), 1)) < 0.4, sample.gt_boxes[:, :2] + exact, sample.gt_boxes[:, 2:]
        )
    _assert_equal_to_coco(samples, n_classes=3)


def test_of_two_objects_that_overlap_equally_the_later_is_taken_as_in_coco(one_image):
    objects = [((0, 0, 100, 100), 0), ((20, 0, 120, 100), 0)]
    # The first overlaps both by 90/110 = .82; the second the earlier by 78/122 = .64, the later by 98/102 = .96
    sample = one_image(objects, [((10, 0, 110, 100), 0.9, 0), ((22, 0, 122, 100), 0.8, 0)])
    ap = evaluate([sample], n_classes=1).ap[0]
    one_of_two = 51 / 101
    np.testing.assert_allclose(ap, [1.0] * 3 + [one_of_two] * 4 + [51 / 202] * 2 + [51 / 202], atol=1e-12)
    _assert_equal_to_coco([sample], n_classes=1)


def test_an_object_of_the_size_is_preferred_to_one_of_another_size_that_fits_better(one_image):
    small, medium = (0, 0, 31, 33), (0, 0, 32, 40)
    sample = one_image([(small, 0), (medium, 0)], [(small, 0.9, 0)])
    result = evaluate([sample], n_classes=1)
    # Among the medium it is right up to its IoU of 1023/1280 = .799 and ignored above
    assert result.ap_medium == pytest.approx(0.6)
    _assert_equal_to_coco([sample], n_classes=1)


def test_right_wrong_right_by_hand(one_image):
    detections = [(OBJECT, 0.9, 0), (ELSEWHERE, 0.8, 0), (OTHER, 0.7, 0)]
    result = evaluate([one_image([(OBJECT, 0), (OTHER, 0)], detections)], n_classes=1)
    expected = (51 + 50 * 2 / 3) / 101
    np.testing.assert_allclose(result.ap, np.full((1, 10), expected), atol=1e-15)
    assert result.map50_95 == pytest.approx(expected, abs=1e-15)
    np.testing.assert_allclose(result.pr_curve, [1.0] * 51 + [2 / 3] * 50, atol=1e-15)
    # F1 is 2/3, 1/2 and 4/5 from the scores .9, .8 and .7
    assert (result.conf, result.f1) == (0.7, pytest.approx(0.8))
    assert (result.precision, result.recall) == (pytest.approx(2 / 3), 1.0)
    assert (result.n_images, result.n_objects) == (1, 2)


def _f1_by_counting(samples, n_classes, conf):
    """Return the mean F1, precision, recall at IoU .5, from the Matches that `evaluate` does not see."""
    rows = []
    for class_id in range(n_classes):
        tp = n_found = n_objects = 0
        for sample in samples:
            objects = [tuple(b) for b, c in zip(sample.gt_boxes, sample.gt_classes, strict=True) if c == class_id]
            n_objects += len(objects)
            kept = [
                (s, tuple(b))
                for b, s, c in zip(sample.boxes, sample.scores, sample.classes, strict=True)
                if c == class_id and s >= conf
            ]
            n_found += len(kept)
            for _, (x1, y1, x2, y2) in sorted(kept, reverse=True):
                overlaps = []
                for a1, b1, a2, b2 in objects:
                    shared = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
                    overlaps.append((shared / union, (a1, b1, a2, b2)))
                best = max(overlaps, default=(0, None))
                if best[0] >= 0.5:
                    tp += 1
                    objects.remove(best[1])
        if n_objects:
            rows.append((2 * tp / (n_found + n_objects), tp / n_found if n_found else 0.0, tp / n_objects))
    return np.mean(rows, axis=0)


def test_no_confidence_has_a_better_f1_than_the_one_given(random_samples):
    samples = random_samples(5, 12)
    result = evaluate(samples, n_classes=4)
    at_conf = _f1_by_counting(samples, 4, result.conf)
    np.testing.assert_allclose([result.f1, result.precision, result.recall], at_conf, atol=1e-12)
    scores = np.concatenate([s.scores for s in samples])
    assert max(_f1_by_counting(samples, 4, conf)[0] for conf in scores) == pytest.approx(result.f1, abs=1e-12)
    assert np.nanmean(result.f1_per_class) == pytest.approx(result.f1)
    assert np.isnan(result.f1_per_class[3])


def _assert_same(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), atol=1e-12)


def test_order_of_images_and_boxes_does_not_matter(random_samples):
    samples = random_samples(1, 20)
    shuffled = [
        dataclasses.replace(s, boxes=s.boxes[::-1], scores=s.scores[::-1], classes=s.classes[::-1])
        for s in samples[::-1]
    ]
    _assert_same(evaluate(samples, n_classes=3), evaluate(shuffled, n_classes=3))


def test_scale_of_the_boxes_matters_to_the_sizes_only(random_samples):
    samples = random_samples(1, 20)
    scaled = [dataclasses.replace(s, gt_boxes=s.gt_boxes * 50, boxes=s.boxes * 50) for s in samples]
    before, after = evaluate(samples, n_classes=3), evaluate(scaled, n_classes=3)
    np.testing.assert_allclose(after.ap, before.ap, atol=1e-12)
    assert (after.ap_small, after.ap_medium) == (None, None)
    assert after.ap_large == pytest.approx(after.map50_95)
    assert before.ap_small is not None


def test_a_monotone_change_of_the_scores_changes_only_the_confidence(random_samples):
    samples = random_samples(2, 20)
    before = evaluate(samples, n_classes=3)
    after = evaluate([dataclasses.replace(s, scores=s.scores**2 / 2) for s in samples], n_classes=3)
    _assert_same(dataclasses.replace(after, conf=0.0), dataclasses.replace(before, conf=0.0))
    assert after.conf == pytest.approx(before.conf**2 / 2)


def test_objects_without_any_detection_score_zero(one_image):
    result = evaluate([one_image([(OBJECT, 0)], [])], n_classes=2)
    assert (result.map50_95, result.map50, result.ap_large, result.f1) == (0, 0, 0, 0)
    assert (result.ap_small, result.ap_medium) == (None, None)
    assert (result.precision, result.recall, result.conf) == (0, 0, 0)
    np.testing.assert_array_equal(result.f1_per_class, [0, np.nan])
    assert not result.pr_curve.any()


def test_without_ground_truth_every_score_is_nan(one_image):
    for samples in ([], [one_image([], [(OBJECT, 0.9, 0)])]):
        result = evaluate(samples, n_classes=2)
        scores = [result.map50, result.map50_95, result.precision, result.recall, result.f1, *result.pr_curve]
        assert np.isnan(scores).all()
        assert np.isnan(result.ap).all()
        assert (result.ap_small, result.ap_medium, result.ap_large) == (None, None, None)
        assert (result.n_images, result.n_objects) == (len(samples), 0)


def test_a_class_beyond_the_last_raises(one_image):
    with pytest.raises(ArgumentError, match="class 5"):
        evaluate([one_image([(OBJECT, 5)], [])], n_classes=5)
