"""TIDE against tidecv 1.0.1.

`tidecv_expected.json` holds random images and what tidecv says about them. It was made once, outside of this project:
moved copies of random objects (noise of 0, 4, 15 or 30 % of the size, three in ten with a random class) and boxes
anywhere, every sixth image without objects, every eighth without detections, were given to `tidecv.Data`, and
`TIDE(pos_threshold, background_threshold).evaluate(gt, pred)` gave the counts (`run.error_dict`), the mean AP, the
delta AP (`get_main_errors`, `get_special_errors`) and, by class, `run.fix_errors(...)`. Its IoU came from
faster-coco-eval in place of pycocotools; its plots were stubbed. Seeds with a count of objects that ten divides were
passed over: there a recall can hit one of the ten hundredths where COCO's recall points differ from tidecv's by one
rounding.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.detection.error_types import ERROR_TYPES, SPECIAL_TYPES, error_types
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError

CASES = json.loads((Path(__file__).parent / "tidecv_expected.json").read_text())
OBJECT, OTHER, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (400, 400, 480, 480)


def _samples(images):
    def array(image, key, shape, kind):
        return np.array(image[key], dtype=kind).reshape(shape)

    return [
        Sample(
            image=f"{index}.jpg",
            height=400,
            width=400,
            gt_boxes=array(image, "gt_boxes", (-1, 4), float),
            gt_classes=array(image, "gt_classes", -1, np.int64),
            boxes=array(image, "boxes", (-1, 4), float),
            scores=array(image, "scores", -1, float),
            classes=array(image, "classes", -1, np.int64),
        )
        for index, image in enumerate(images)
    ]


def _floats(values):
    return np.array([np.nan if value is None else value for value in values])


@pytest.fixture(params=CASES)
def case(request):
    case = CASES[request.param]
    errors = error_types(_samples(case["images"]), n_classes=case["n_classes"], **case["options"])
    return errors, case["expected"]


def test_counts_of_each_type_equal_tidecv(case):
    ours, expected = case
    assert ours.totals == expected["counts"]


def test_ap_of_each_class_with_each_type_corrected_equals_tidecv(case):
    ours, expected = case
    present = ours.n_objects > 0
    np.testing.assert_allclose(ours.ap_per_class[present], _floats(expected["ap_per_class"])[present], atol=1e-12)
    assert list(ours.corrected_ap_per_class) == [*ERROR_TYPES, *SPECIAL_TYPES]
    for name, values in ours.corrected_ap_per_class.items():
        theirs = _floats(expected["corrected_ap_per_class"][name])
        np.testing.assert_allclose(values[present], theirs[present], atol=1e-12)
        assert np.isnan(values[~present]).all()


def test_delta_ap_equals_tidecv_where_every_class_has_objects(case):
    ours, expected = case
    if np.all(ours.n_objects > 0):
        assert ours.ap == pytest.approx(expected["ap"], abs=1e-12)
        assert ours.delta_ap == pytest.approx(expected["delta_ap"], abs=1e-12)
    else:
        assert ours.ap == pytest.approx(np.nanmean(_floats(expected["ap_per_class"])[ours.n_objects > 0]), abs=1e-12)
        assert ours.ap > expected["ap"]  # tidecv averages a 0 of the class without objects into it


def test_order_of_images_and_scale_do_not_matter(random_samples):
    samples = random_samples(6, 40)
    changed = [dataclasses.replace(s, gt_boxes=s.gt_boxes * 3, boxes=s.boxes * 3) for s in reversed(samples)]
    before, after = (error_types(s, n_classes=3) for s in (samples, changed))
    assert after.delta_ap == pytest.approx(before.delta_ap, abs=1e-12)
    np.testing.assert_array_equal(after.counts, before.counts)


def test_delta_ap_of_a_background_and_a_missed_object_by_hand(one_image):
    sample = one_image([(OBJECT, 0), (OTHER, 0)], [(FAR, 0.9, 0), (OBJECT, 0.8, 0)])
    errors = error_types([sample], n_classes=1)
    # precision 1/2 up to recall 1/2: 51 of 101 points
    half = 51 / 101
    assert errors.ap == pytest.approx(half / 2)
    assert errors.delta_ap == pytest.approx(
        {
            "cls": 0,
            "loc": 0,
            "both": 0,
            "dupe": 0,
            "bkg": half / 2,
            "miss": 0.5 - half / 2,
            "false_positive": half / 2,
            "false_negative": 0.5 - half / 2,
        }
    )


def test_of_two_misplaced_detections_the_surer_is_corrected_and_the_other_dropped(one_image):
    near = [((0, 0, 100, 40), 0.9, 0), ((0, 0, 100, 45), 0.8, 0)]
    errors = error_types([one_image([(OBJECT, 0)], near)], n_classes=1)
    assert errors.totals == {"cls": 0, "loc": 2, "both": 0, "dupe": 0, "bkg": 0, "miss": 0}
    assert (errors.ap, errors.delta_ap["loc"], errors.delta_ap["bkg"]) == (0, 1, 0)


def test_a_wrong_class_becomes_right_for_the_class_of_the_object(one_image):
    sample = one_image([(OBJECT, 1), (OTHER, 0)], [(OBJECT, 0.9, 0), (OTHER, 0.8, 0)])
    errors = error_types([sample], n_classes=2)
    np.testing.assert_allclose(errors.ap_per_class, [0.5, 0])
    np.testing.assert_allclose(errors.corrected_ap_per_class["cls"], [1, 1])
    assert errors.delta_ap["cls"] == pytest.approx(0.75)
    np.testing.assert_array_equal(errors.counts[:, 0], [1, 0])  # counted for the class it names


def test_a_class_without_objects_does_not_count(one_image):
    sample = one_image([(OBJECT, 0)], [(OBJECT, 0.9, 0), (FAR, 0.8, 1)])
    errors = error_types([sample], n_classes=3)
    np.testing.assert_array_equal(errors.ap_per_class, [1, np.nan, np.nan])
    assert (errors.ap, errors.delta_ap["bkg"], errors.totals["bkg"]) == (1, 0, 1)


def test_ap_is_that_of_the_evaluation(random_samples):
    samples = random_samples(5, 40)
    errors, evaluation = error_types(samples, n_classes=3), evaluate(samples, n_classes=3)
    assert errors.ap == pytest.approx(evaluation.map50, abs=1e-12)
    np.testing.assert_allclose(errors.ap_per_class, evaluation.ap[:, 0], atol=1e-12)
    assert errors.n_right.sum() + errors.counts[:, :5].sum() == sum(len(s.scores) for s in samples)


def test_nothing_detected_is_all_missed_and_no_object_is_nan(one_image):
    errors = error_types([one_image([(OBJECT, 0)], [])], n_classes=1)
    assert (errors.ap, errors.totals["miss"], errors.delta_ap["bkg"]) == (0, 1, 0)
    assert np.isnan(errors.delta_ap["miss"])  # neither an object nor a detection stays
    empty = error_types([one_image([], [(OBJECT, 0.9, 0)])], n_classes=1)
    assert empty.totals["bkg"] == 1
    assert np.isnan([empty.ap, *empty.delta_ap.values()]).all()
    assert error_types([], n_classes=2).counts.sum() == 0


@pytest.mark.parametrize(("detections", "gain"), [([], 0.5), ([(FAR, 0.5, 0)], 0)])
def test_a_class_wholly_missed_leaves_the_mean_only_if_it_has_no_detection_either(one_image, detections, gain):
    sample = one_image([(OBJECT, 0), (OTHER, 1)], [(OTHER, 0.9, 1), *detections])
    errors = error_types([sample], n_classes=2)
    assert (errors.ap, errors.delta_ap["miss"]) == (0.5, gain)


def test_detections_below_conf_do_not_count(one_image):
    sample = one_image([(OBJECT, 0)], [(OBJECT, 0.9, 0), (FAR, 0.2, 0)])
    assert error_types([sample], n_classes=1, conf=0.3).totals["bkg"] == 0


def test_a_class_that_does_not_exist_raises(one_image):
    with pytest.raises(ArgumentError, match="class 2"):
        error_types([one_image([(OBJECT, 2)], [])], n_classes=2)
