"""Maps as a user asks for them: shapes, frames, units, and every word, on the shipped checkpoint."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from ultralytics import YOLO

import mlflow_yolo
from mlflow_yolo import Map, checkpoints, explain
from mlflow_yolo.attribution.targets import BoxSide, ClassLogit
from mlflow_yolo.datasets.digits import compose_scene
from mlflow_yolo.exceptions import ArgumentError

Picture = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def model() -> YOLO:
    return YOLO(str(checkpoints.path()))


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Picture, Picture, list[int]]]:
    """Return pictures with the boxes and classes of their digits."""
    drawn = [compose_scene("digits", "test", i, imgsz=128)[0] for i in range(3)]
    return [
        (s.image, np.array([g.box for g in s.glyphs], dtype=float).reshape(-1, 4), [g.class_id for g in s.glyphs])
        for s in drawn
    ]


@pytest.fixture(scope="module")
def picture(scenes: list[tuple[Picture, Picture, list[int]]]) -> Picture:
    return scenes[0][0]


@pytest.fixture(scope="module")
def classifier() -> YOLO:
    torch.manual_seed(0)
    model = YOLO("yolo11n-cls.yaml")
    for module in model.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    model.model.model[-1].linear.weight.data.normal_(0, 1)
    model.model.names = {i: f"kind {i}" for i in range(1000)}
    return model


def test_every_detection_has_a_map_of_the_whole_picture(model: YOLO, picture: Picture) -> None:
    wide = np.ascontiguousarray(picture[32:96])
    expected = model.predict(wide[..., ::-1], verbose=False, device="cpu")[0].boxes
    maps = explain(model, wide)

    assert len(maps) == len(expected) > 1
    for found, box, conf, class_id in zip(maps, expected.xyxy, expected.conf, expected.cls, strict=True):
        assert isinstance(found, Map)
        np.testing.assert_allclose(found.box, box.numpy(), atol=1e-2)
        assert (found.conf, found.class_id) == (pytest.approx(float(conf), abs=1e-5), int(class_id))
        assert found.class_name == str(found.class_id)
        assert found.values.dtype == np.float32
        assert found.values.shape[1] == 2 * found.values.shape[0]
        assert (found.values >= 0).all()
        assert (found.image, found.method, found.unit, found.signed) == ("image0", "layercam", "relative", False)
        # The logit of the confidence: what is explained is what was predicted.
        assert found.score == pytest.approx(np.log(found.conf / (1 - found.conf)), abs=1e-3)


def test_a_map_lies_on_its_own_detection(model: YOLO, scenes: list[tuple[Picture, Picture, list[int]]]) -> None:
    maps = explain(model, [picture for picture, _, _ in scenes], conf=0.5)
    measured = [found.localisation for found in maps if found.localisation is not None]

    assert len(measured) == len(maps) > 5
    assert np.mean([one.energy_ratio for one in measured]) > 3
    for found in maps:
        assert found.box is not None
        x1, y1, x2, y2 = found.box
        heat = found.at_size(128, 128)
        inside = heat[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].sum() / heat.sum()
        assert found.localisation is not None
        assert inside == pytest.approx(found.localisation.energy, abs=0.2)


@pytest.mark.parametrize("method", ["layercam", "hirescam"])
def test_localisation_is_of_the_positive_part_on_the_box_in_the_picture(
    model: YOLO, picture: Picture, method: str
) -> None:
    large = np.asarray(Image.fromarray(picture[16:112]).resize((384, 288)))
    for found in explain(model, large, method=method, max_det=3):
        assert found.box is not None
        assert found.localisation is not None
        x1, y1, x2, y2 = found.box
        assert found.localisation.coverage == pytest.approx((x2 - x1) * (y2 - y1) / (384 * 288), rel=1e-3)
        h, w = found.values.shape
        pixels = np.zeros((h * 20, w * 20))  # the box drawn on a fine grid and averaged over each cell
        pixels[
            round(y1 / 288 * h * 20) : round(y2 / 288 * h * 20), round(x1 / 384 * w * 20) : round(x2 / 384 * w * 20)
        ] = 1
        mask = pixels.reshape(h, 20, w, 20).mean((1, 3))
        positive = np.maximum(found.values, 0)
        assert found.localisation.energy == pytest.approx((positive * mask).sum() / positive.sum(), abs=0.03)
    assert method == "layercam" or (found.values < 0).any()


def test_batches_sizes_and_order_do_not_change_maps(
    model: YOLO, scenes: list[tuple[Picture, Picture, list[int]]]
) -> None:
    pictures = [scenes[0][0], scenes[1][0][:96], scenes[2][0], scenes[1][0][:, :96]]
    together = explain(model, pictures, batch=4)
    alone = [found for i, p in enumerate(pictures) for found in ((m, i) for m in explain(model, p, batch=1))]

    assert len(together) == len(alone)
    for found, (single, i) in zip(together, alone, strict=True):
        assert found.image == f"image{i}"
        assert found.target == single.target
        np.testing.assert_allclose(found.values, single.values, atol=1e-4 * float(single.values.max()) + 1e-7)


def test_box_sides_are_explained_in_pixels(model: YOLO, picture: Picture) -> None:
    detections = explain(model, picture, max_det=2)
    sides = explain(model, picture, target="boxes", method="hirescam", max_det=2)

    assert [found.target.split()[0] for found in sides[:4]] == ["left", "top", "right", "bottom"]
    assert len(sides) == 4 * len(detections)
    for i, found in enumerate(detections):
        left, top, right, bottom = (side.score for side in sides[4 * i : 4 * i + 4])
        assert found.box is not None
        # The picture is as large as the input: the two distances add up to the box.
        assert left + right == pytest.approx(found.box[2] - found.box[0], abs=1.0)
        assert top + bottom == pytest.approx(found.box[3] - found.box[1], abs=1.0)
    assert {(side.unit, side.signed) for side in sides} == {("px", True)}


def test_classes_found_have_a_map_each_and_one_never_found_its_best_anchor(model: YOLO, picture: Picture) -> None:
    detections = explain(model, picture)
    present = sorted({found.class_id for found in detections if found.class_id is not None})
    absent = next(c for c in range(10) if c not in present)

    found = explain(model, picture, target="classes")
    assert [one.class_id for one in found] == present
    assert all(one.is_detected and one.localisation is not None for one in found)
    for one in found:
        own = [d.score for d in detections if d.class_id == one.class_id]
        assert one.score == pytest.approx(sum(own), abs=1e-3)

    (missing,) = explain(model, picture, target="classes", classes=str(absent))
    assert not missing.is_detected
    assert "not detected" in missing.target
    assert missing.conf is not None
    assert missing.conf <= 0.25
    assert missing.values.any()
    assert (missing.box, missing.localisation) == (None, None)


def test_classes_asked_for_are_the_only_ones_explained(model: YOLO, picture: Picture) -> None:
    every = explain(model, picture)
    wanted = every[0].class_name
    chosen = explain(model, picture, classes=wanted)
    assert [m.target for m in chosen] == [m.target for m in every if m.class_name == wanted]


def test_an_object_taken_for_another_class_has_three_maps_on_one_scale(
    model: YOLO, scenes: list[tuple[Picture, Picture, list[int]]]
) -> None:
    picture, boxes, classes = scenes[0]
    best = explain(model, picture)[0]
    # Said to be another digit than it is: the detection is then a confusion.
    at = int(np.argmin(np.abs(boxes - best.box).sum(1)))
    named = [(c + 1) % 10 if i == at else c for i, c in enumerate(classes)]
    maps = explain(model, picture, target="contrast", objects=[(boxes, named)])
    mine = [m for m in maps if m.box is not None and np.allclose(m.box, boxes[at])]
    true, predicted, difference = mine[:3]

    assert (true.class_id, predicted.class_id) == (named[at], best.class_id)
    assert {m.unit for m in mine} == {"logit"}
    assert {m.method for m in mine} == {"hirescam"}
    np.testing.assert_allclose(difference.values, true.values - predicted.values, atol=1e-4)
    assert difference.score == pytest.approx(true.score - predicted.score, abs=1e-4)
    assert (difference.values < 0).any()


def test_objects_that_nothing_found_are_explained_and_others_not(
    model: YOLO, scenes: list[tuple[Picture, Picture, list[int]]]
) -> None:
    picture, boxes, classes = scenes[0]
    empty = np.array([[2.0, 100.0, 20.0, 120.0]])
    assert explain(model, picture, target="missed", objects=[(boxes, classes)]) == []
    maps = explain(model, picture, target="missed", objects=[(np.concatenate([boxes, empty]), [*classes, 7])])

    (missed,) = maps
    assert (missed.class_id, missed.is_detected) == (7, False)
    np.testing.assert_allclose(missed.box, empty[0])
    assert missed.conf == pytest.approx(1 / (1 + np.exp(-missed.score)))
    everything = explain(model, picture, target="missed", objects=[(boxes, classes)], conf=0.999)
    assert len(everything) == len(classes)


def test_objects_and_targets_belong_to_their_own_image_in_every_batch(
    model: YOLO, scenes: list[tuple[Picture, Picture, list[int]]]
) -> None:
    pictures = [picture for picture, _, _ in scenes]
    objects = [(boxes, classes) for _, boxes, classes in scenes]
    maps = explain(model, pictures, target="missed", objects=objects, conf=0.999, batch=2)
    for i, (boxes, classes) in enumerate(objects):
        mine = {(m.class_id, *np.round(m.box, 3)) for m in maps if m.image == f"image{i}" and m.box is not None}
        assert mine == {(c, *np.round(box, 3)) for c, box in zip(classes, boxes, strict=True)}

    own = [[ClassLogit(i, i)] for i in range(3)]
    assert [m.class_id for m in explain(model, pictures, target=own, batch=2)] == [0, 1, 2]


def test_targets_of_the_users_own_are_explained(model: YOLO, picture: Picture) -> None:
    first, second = explain(model, picture, target=[[ClassLogit(3, 4), BoxSide(3, "top")]], method="hirescam")
    assert (first.class_id, first.unit) == (4, "logit")
    assert (second.class_id, second.class_name, second.unit) == (None, "", "px")
    assert second.target == "BoxSide(anchor=3, side='top')"


def test_an_image_without_detections_has_no_maps_and_a_note(
    model: YOLO, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        maps = explain(model, [np.full((96, 96, 3), 114, dtype=np.uint8), picture], conf=0.5)
    assert {found.image for found in maps} == {"image1"}
    assert [record.getMessage() for record in caplog.records] == [
        "image0: nothing to explain for target=detections at conf=0.5."
    ]


def test_grey_and_transparent_pictures_are_explained_as_colour(model: YOLO, picture: Picture, tmp_path: Path) -> None:
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    expected = explain(model, np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for given in (grey, grey[..., None], tmp_path / "grey.png"):
        found = explain(model, given)
        assert len(found) == len(expected) > 0
        np.testing.assert_array_equal(found[0].values, expected[0].values)
    clear = np.dstack([picture, np.full(picture.shape[:2], 9, dtype=np.uint8)])
    np.testing.assert_array_equal(explain(model, clear)[0].values, explain(model, picture)[0].values)


@pytest.mark.parametrize(
    "method", ["layercam", "HiResCAM", "grad_cam", "Grad-CAM++", "xgradcam", "eigencam", "eigengradcam"]
)
def test_every_method_gives_finite_maps(model: YOLO, picture: Picture, method: str) -> None:
    (found, *_) = explain(model, picture, method=method, max_det=1)
    assert np.isfinite(found.values).all()
    assert found.values.any()
    assert found.signed == (method == "HiResCAM")


def test_a_map_is_made_at_the_block_asked_for(model: YOLO, picture: Picture) -> None:
    (found, *_) = explain(model, picture, block=2, max_det=1)
    assert (found.blocks, found.values.shape) == ((2,), (32, 32))
    (several, *_) = explain(model, picture, block=[4, 6], max_det=1)
    assert (several.blocks, several.values.shape) == ((4, 6), (16, 16))


def test_maps_of_too_few_cells_are_made_at_a_finer_block(model: YOLO, picture: Picture) -> None:
    anchors = 16 + 4 + 1  # of an input of 32 pixels; the last is the one of stride 32, whose map would be one cell
    (found,) = explain(model, picture, target=[[ClassLogit(anchors - 1, 0)]], imgsz=32)
    assert (found.blocks, found.values.shape) == ((4,), (4, 4))
    assert found.values.any()


def test_a_map_over_its_picture(model: YOLO, picture: Picture) -> None:
    found = explain(model, picture, max_det=1)[0]
    drawn = found.overlay(picture)
    assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)
    peak = np.unravel_index(found.at_size(128, 128).argmax(), (128, 128))
    change = np.abs(drawn.astype(int) - picture).sum(2)
    assert change[peak] > 60
    np.testing.assert_array_equal(found.overlay(picture, strength=0.0), picture)
    assert found.overlay(picture[..., 0]).shape == picture.shape
    signed = explain(model, picture, method="hirescam", max_det=1)[0]
    assert signed.overlay(picture).shape == picture.shape


def test_another_size_of_a_map_keeps_corners_and_straight_lines() -> None:
    values = np.array([[0.0, 2.0], [4.0, 6.0]], dtype=np.float32)
    plain = Map("a", values, "", None, "", 0.0, None, None, "layercam", (4,), "relative", False, True, None)
    np.testing.assert_array_equal(plain.at_size(2, 2), values)
    # Cell centres lie at 1/4 and 3/4; what is beyond them keeps the nearest value.
    np.testing.assert_allclose(plain.at_size(1, 1), [[3.0]])
    np.testing.assert_allclose(plain.at_size(2, 4)[0], [0.0, 0.5, 1.5, 2.0])


def test_the_map_of_a_classifier_adds_up_to_the_logit(classifier: YOLO, picture: Picture) -> None:
    expected = classifier.predict(picture[..., ::-1], verbose=False, imgsz=160, device="cpu")[0].probs
    (found,) = explain(classifier, picture, imgsz=160)

    assert (found.class_id, found.method, found.unit) == (expected.top1, "cam", "logit")
    assert found.conf == pytest.approx(float(expected.top1conf), abs=1e-5)
    assert found.values.shape == (5, 5)
    bias = float(classifier.model.model[-1].linear.bias[found.class_id].detach())
    assert found.values.sum() + bias == pytest.approx(found.score, rel=1e-4)


def test_a_classifier_explains_the_classes_asked_for_and_a_contrast(classifier: YOLO, picture: Picture) -> None:
    (best,) = explain(classifier, picture, imgsz=160)
    first, second = explain(classifier, picture, imgsz=160, classes=["kind 3", 5])
    assert (first.class_id, second.class_id) == (3, 5)
    true, predicted, difference = explain(classifier, picture, imgsz=160, target="contrast", objects=["kind 3"])
    np.testing.assert_allclose(predicted.values, best.values, atol=1e-5)
    np.testing.assert_allclose(difference.values, true.values - predicted.values, atol=1e-5)
    assert explain(classifier, picture, imgsz=160, target="contrast", objects=[best.class_id]) == []


def test_a_classifier_of_small_pictures_has_a_map_of_an_earlier_block(classifier: YOLO, picture: Picture) -> None:
    (found,) = explain(classifier, picture, imgsz=32)
    assert found.method == "layercam"
    assert found.values.shape == (4, 4)
    assert found.blocks[0] < 9
    assert found.values.any()


def test_a_classifier_takes_another_method_and_block(classifier: YOLO, picture: Picture) -> None:
    (whole,) = explain(classifier, picture, imgsz=160)
    (asked,) = explain(classifier, picture, imgsz=160, method="gradcam", block=4)
    assert (asked.class_id, asked.score) == (whole.class_id, pytest.approx(whole.score, rel=1e-4))
    assert (asked.method, asked.blocks, asked.values.shape) == ("gradcam", (4,), (20, 20))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("detect", {"target": "mask"}, "target=mask.*detections"),
        ("detect", {"target": "masks"}, "target=masks needs a model for segment"),
        ("detect", {"target": "predicted"}, "target=predicted"),
        ("detect", {"target": "missed"}, "target=missed needs objects"),
        ("detect", {"target": "missed", "objects": []}, "objects has 0 entries for 1 images"),
        ("detect", {"target": "missed", "objects": [([[0, 0, 1, 1]], [1, 2])]}, "1, 4.*2 classes"),
        ("detect", {"target": "missed", "objects": [3]}, "objects needs for each image a pair"),
        ("detect", {"target": [[], []]}, "target has 2 entries for 1 images"),
        ("detect", {"method": "scorecam"}, "method=scorecam.*layercam"),
        ("detect", {"block": 99}, "block=99.*block=4"),
        ("detect", {"block": 22, "target": [[ClassLogit(0, 0)]]}, "block=22 has no influence.*Use block=4"),
        ("detect", {"classes": "cat"}, "class cat does not exist"),
        ("detect", {"conf": 1.5}, r"conf=1\.5"),
        ("detect", {"branch": "one2one"}, "branch=one2one"),
        ("detect", {"imgsz": 8}, "imgsz=8"),
        ("classify", {"target": "detections"}, "target=detections.*predicted"),
        ("classify", {"target": "classes"}, "target=classes needs classes"),
        ("classify", {"target": "contrast"}, "needs objects.*the true class"),
    ],
)
def test_what_cannot_be_explained_is_named(
    model: YOLO, classifier: YOLO, picture: Picture, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        explain({"detect": model, "classify": classifier}[name], picture, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("yolo11n-seg.yaml", "auto"),
        ("yolo11n-pose.yaml", "auto"),
        ("yolo11n-obb.yaml", "auto"),
        ("yolo26n-seg.yaml", "one2many"),
        ("yolo26n-seg.yaml", "one2one"),
    ],
)
def test_every_task_and_branch_has_maps(lively: Callable[..., YOLO], picture: Picture, name: str, branch: str) -> None:
    model = lively(name)
    for word in ("detections", "classes", "boxes", *(["masks"] if "seg" in name else [])):
        maps = explain(model, picture[:64], target=word, conf=0.3, max_det=2, imgsz=96, branch=branch)
        assert len(maps) >= (8 if word == "boxes" else 1)
        for found in maps:
            assert np.isfinite(found.values).all()
            assert found.values.any()
            assert found.values.shape[1] == 2 * found.values.shape[0]
            assert found.localisation is not None
            assert found.localisation.coverage > 0


def test_the_public_function_is_this_one() -> None:
    from mlflow_yolo.explanation.explain import explain as own

    assert mlflow_yolo.explain is own
