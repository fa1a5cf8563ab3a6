import numpy as np
import pytest

from mlflow_yolo.detection.boxes import iou
from mlflow_yolo.detection.matching import AREAS, IOU_THRESHOLDS, match
from mlflow_yolo.exceptions import ArgumentError

OBJECT = (0, 0, 100, 100)


def test_the_higher_score_takes_the_object_though_the_other_overlaps_more(one_image):
    sample = one_image([(OBJECT, 0)], [((0, 0, 100, 100), 0.4, 0), ((0, 0, 100, 62), 0.9, 0)])
    matches = match([sample], n_classes=1, max_det=100)
    np.testing.assert_array_equal(matches.score, [0.9, 0.4])
    # IoU .62 reaches .5, .55, .6; from .65 on the object is free for the lower score
    np.testing.assert_array_equal(matches.tp[0], [[True] * 3 + [False] * 7, [False] * 3 + [True] * 7])


def test_a_detection_takes_its_second_object_when_the_first_is_taken(one_image):
    objects = [((0, 0, 100, 100), 0), ((0, 20, 100, 120), 0)]
    sample = one_image(objects, [((0, 0, 100, 100), 0.9, 0), ((0, 5, 100, 105), 0.8, 0)])
    # The second overlaps the objects by 95/105 = .90 and 85/115 = .74
    expected = [[True] * 10, [True] * 5 + [False] * 5]
    np.testing.assert_array_equal(match([sample], n_classes=1, max_det=100).tp[0], expected)


def test_classes_and_images_do_not_meet(one_image):
    samples = [
        one_image([(OBJECT, 0)], [(OBJECT, 0.9, 1)]),
        one_image([], [(OBJECT, 0.8, 0)]),
        one_image([(OBJECT, 1)], []),
    ]
    matches = match(samples, n_classes=2, max_det=100)
    assert not matches.tp.any()
    np.testing.assert_array_equal(matches.image, [1, 0])  # sorted by class
    np.testing.assert_array_equal(matches.gt_class, [0, 1])


def test_only_the_best_detections_of_an_image_and_class_are_kept(one_image):
    detections = [(OBJECT, score, class_id) for class_id in (0, 1) for score in (0.1, 0.3, 0.2)]
    matches = match([one_image([], detections)], n_classes=2, max_det=2)
    np.testing.assert_array_equal(matches.score, [0.3, 0.2, 0.3, 0.2])


def test_small_objects_are_ignored_among_the_large(one_image):
    small = (200, 200, 210, 210)
    sample = one_image([(OBJECT, 0), (small, 0)], [(OBJECT, 0.9, 0), (small, 0.8, 0), ((300, 300, 309, 309), 0.7, 0)])
    matches = match([sample], n_classes=1, max_det=100)
    large, all_sizes = list(AREAS).index("large"), list(AREAS).index("all")
    np.testing.assert_array_equal(matches.gt_counted[large], [True, False])
    np.testing.assert_array_equal(matches.ignored[large].all(axis=1), [False, True, True])
    np.testing.assert_array_equal(matches.tp[large].all(axis=1), [True, False, False])
    assert not matches.ignored[all_sizes].any()


def test_an_object_of_32_by_32_is_small_and_medium_as_in_coco(one_image):
    matches = match([one_image([((0, 0, 32, 32), 0)], [])], n_classes=1, max_det=100)
    assert dict(zip(matches.area_names, matches.gt_counted[:, 0], strict=True)) == {
        "all": True,
        "small": True,
        "medium": True,
        "large": False,
    }


def _greedy(sample, class_id, threshold):
    """Return {score: right} of one image and class, one pair at a time."""
    objects = sample.gt_boxes[sample.gt_classes == class_id]
    boxes, scores = (array[sample.classes == class_id] for array in (sample.boxes, sample.scores))
    free, verdicts = list(range(len(objects))), {}
    for index in np.argsort(-scores):
        overlaps = {g: float(iou(boxes[[index]], objects[[g]])[0, 0]) for g in free}
        best = max(overlaps, key=overlaps.get, default=None)
        verdicts[scores[index]] = best is not None and overlaps[best] >= threshold
        if verdicts[scores[index]]:
            free.remove(best)
    return verdicts


def test_all_groups_together_match_as_each_alone(random_samples):
    samples = random_samples(3, 12, n_objects=12, n_detections=60)
    matches = match(samples, n_classes=3, max_det=100)
    assert 0 < matches.tp[0].mean() < 1
    for image, sample in enumerate(samples):
        for class_id in range(3):
            here = (matches.image == image) & (matches.class_id == class_id)
            for index, threshold in enumerate(IOU_THRESHOLDS):
                found = dict(zip(matches.score[here], matches.tp[0, here, index], strict=True))
                assert found == _greedy(sample, class_id, threshold)


def test_no_images_and_no_boxes_give_empty_arrays(one_image):
    for samples in ([], [one_image([], [])]):
        matches = match(samples, n_classes=2, max_det=100)
        assert matches.tp.shape == (4, 0, 10)
        assert matches.slices() == [slice(0, 0), slice(0, 0)]


@pytest.mark.parametrize("class_id", [-1, 2])
def test_a_class_that_does_not_exist_raises(one_image, class_id):
    with pytest.raises(ArgumentError, match=f"class {class_id} .*n_classes=2"):
        match([one_image([], [(OBJECT, 0.9, class_id)])], n_classes=2, max_det=100)
