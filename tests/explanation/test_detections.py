"""Detections with their anchors are those of Ultralytics, for every head and both branches."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics import YOLO

from mlflow_yolo import checkpoints
from mlflow_yolo.attribution.capture import Pass, forward
from mlflow_yolo.datasets.digits import compose_scene, generate
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.detections import Detections, suppressed
from mlflow_yolo.explanation.inputs import network_input, read_images
from mlflow_yolo.explanation.network import ExplainedModel, open_model, predicting_with
from mlflow_yolo.models.validators import RecordingDetectionValidator

PICTURES = [np.random.default_rng(seed).integers(0, 255, (70 + 20 * seed, 96, 3), dtype=np.uint8) for seed in range(2)]


def predicted(model: YOLO, picture: np.ndarray[Any, Any], **arguments: Any) -> tuple[Any, Tensor]:
    """Return Ultralytics' result for a picture in RGB, and the tensor it gave to its suppression."""
    seen: list[Tensor] = []

    def watch(predictor: Any) -> None:
        inner = predictor.postprocess

        def postprocess(preds: Any, *rest: Any, **named: Any) -> Any:
            decoded = preds[0][0] if isinstance(preds[0], tuple) else preds[0]
            seen.append(decoded.clone())
            return inner(preds, *rest, **named)

        predictor.postprocess = postprocess

    model.predictor = None
    model.callbacks["on_predict_start"] = [watch]
    return model.predict(picture[..., ::-1], verbose=False, save=False, device="cpu", **arguments)[0], seen[0]


def passed(model: ExplainedModel, images: Sequence[Tensor]) -> Pass:
    with forward(model.network, torch.stack(list(images)), [model.layers.by_level[0]], needs_gradient=False) as run:
        return run


def of_picture(
    model: ExplainedModel, picture: np.ndarray[Any, Any], imgsz: int, **arguments: Any
) -> tuple[Detections, np.ndarray[Any, Any], Pass]:
    """Return the detections, their boxes in the picture, and the pass."""
    image, frame = network_input(picture, model, imgsz, square=False)
    run = passed(model, [image])
    found = suppressed(model, run, **arguments)[0]
    sides = np.array([picture.shape[1], picture.shape[0]] * 2)
    return found, np.clip(frame.to_original(found.boxes), 0, sides), run


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray[Any, Any]]:
    whole = [compose_scene("digits", "test", i, imgsz=160)[0].image for i in range(4)]
    return [whole[0], whole[1][:, :131], whole[2][:97], whole[3][20:, :150]]


@pytest.mark.parametrize("conf", [0.25, 0.01])
def test_detections_of_a_trained_model_are_those_of_predict(scenes: list[np.ndarray[Any, Any]], conf: float) -> None:
    model = YOLO(str(checkpoints.path()))
    for picture in scenes:
        expected = predicted(model, picture, conf=conf, iou=0.6)[0].boxes
        found, boxes, _ = of_picture(open_model(model), picture, 128, conf=conf, iou=0.6)

        assert len(found) == len(expected) > 0
        np.testing.assert_array_equal(found.classes, expected.cls.numpy())
        np.testing.assert_allclose(found.conf, expected.conf.numpy(), atol=1e-5)
        np.testing.assert_allclose(boxes, expected.xyxy.numpy(), atol=1e-2)


def test_detections_of_several_classes_a_box_are_those_of_val(tmp_path: Path) -> None:
    data = generate("digits", cache_dir=tmp_path, n_train=1, n_val=6, n_test=1)
    model = YOLO(str(checkpoints.path()))
    kept: list[Any] = []

    class Validator(RecordingDetectionValidator):
        def get_stats(self) -> Any:
            kept.extend(self.samples)
            return super().get_stats()

    model.val(validator=Validator, data=str(data), imgsz=128, rect=False, plots=False, workers=0, device="cpu", batch=4)
    assert len(kept) == 6
    ours = open_model(model)
    for sample in kept:
        picture = next(read_images(data.parent / sample.image))[1]
        image, frame = network_input(picture, ours, 128)
        found = suppressed(ours, passed(ours, [image]), 0.001, 0.7, 300, multi_label=True)[0]
        boxes = np.clip(frame.to_original(found.boxes), 0, 128)

        # Confidences near the threshold, and ties among them, fall either way with the rounding of a fused model.
        sure = {True: found.conf > 0.01, False: sample.scores > 0.01}
        np.testing.assert_array_equal(found.classes[sure[True]], sample.classes[sure[False]])
        np.testing.assert_allclose(found.conf[sure[True]], sample.scores[sure[False]], atol=1e-5)
        np.testing.assert_allclose(boxes[sure[True]], sample.boxes[sure[False]], atol=1e-2)


HEADS = ["yolov8n.yaml", "yolo26n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml"]


@pytest.mark.parametrize("name", HEADS)
def test_suppression_of_the_same_predictions_gives_the_same_rows_in_order(
    name: str, lively: Callable[..., YOLO]
) -> None:
    model = lively(name)
    for picture in PICTURES:
        result, decoded = predicted(model, picture, conf=0.3, imgsz=96)
        expected = result.boxes if result.obb is None else result.obb
        ours = open_model(model)
        found, _, run = of_picture(ours, picture, 96, conf=0.3)
        same = suppressed(ours, Pass(run.outputs, decoded, {}), conf=0.3)[0]

        assert len(same) == len(expected) > 3
        np.testing.assert_array_equal(same.classes, expected.cls.numpy())
        np.testing.assert_array_equal(same.conf.astype(np.float32), expected.conf.numpy())
        rows = run.decoded[0] if isinstance(run.decoded, tuple) else run.decoded
        np.testing.assert_allclose(rows.numpy(), decoded.numpy(), atol=1e-3)
        _check_anchors(found, run)


def _check_anchors(found: Detections, run: Pass, image: int = 0) -> None:
    """Check each anchor against the logits: one that is off by one would have another probability."""
    probabilities = run.outputs.logits[image].sigmoid().numpy()
    np.testing.assert_allclose(probabilities[found.classes, found.anchors], found.conf, atol=1e-6)


@pytest.mark.parametrize("name", ["yolo26n.yaml", "yolo26n-obb.yaml"])
def test_the_one_to_one_head_gives_what_predict_gives_with_nms_false(name: str, lively: Callable[..., YOLO]) -> None:
    model = lively(name)
    expected, _ = predicted(model, PICTURES[0], conf=0.3, imgsz=96, nms=False)
    kept = expected.boxes if expected.obb is None else expected.obb
    with predicting_with(open_model(model), "one2one") as ours:
        found, boxes, run = of_picture(ours, PICTURES[0], 96, conf=0.3)

    assert len(found) == len(kept) > 3
    np.testing.assert_allclose(np.sort(found.conf), np.sort(kept.conf.numpy()), atol=1e-5)
    assert sorted(found.classes) == sorted(kept.cls.numpy())
    if expected.obb is None:
        for row, box in enumerate(boxes):
            assert np.abs(kept.xyxy.numpy() - box).max(1).min() < 1e-2, row
        anchors = run.outputs.boxes[0].T.numpy()[found.anchors]
        np.testing.assert_allclose(anchors, found.boxes, atol=1e-3)
    _check_anchors(found, run)


def test_a_fused_end_to_end_model_keeps_its_one_branch(lively: Callable[..., YOLO]) -> None:
    model = lively("yolo26n.yaml", end_to_end=True)
    fused = deepcopy(model.model).fuse(verbose=False)
    whole, _, _ = of_picture(open_model(model), PICTURES[0], 96, conf=0.3)
    found, _, run = of_picture(open_model(fused), PICTURES[0], 96, conf=0.3)

    np.testing.assert_allclose(np.sort(found.conf), np.sort(whole.conf), atol=1e-5)
    _check_anchors(found, run)
    with pytest.raises(ArgumentError, match="one2many"), predicting_with(open_model(fused), "one2many"):
        pass


def test_rotated_boxes_have_corners_and_what_encloses_them(lively: Callable[..., YOLO]) -> None:
    model = lively("yolo11n-obb.yaml")
    result, decoded = predicted(model, PICTURES[1], conf=0.3, imgsz=96)
    ours = open_model(model)
    image, frame = network_input(PICTURES[1], ours, 96, square=False)
    found = suppressed(ours, Pass(passed(ours, [image]).outputs, decoded, {}), conf=0.3)[0]

    assert found.polygons is not None
    assert found.polygons.shape == (len(found), 4, 2)
    corners = frame.to_original(found.polygons.reshape(-1, 4)).reshape(-1, 4, 2)
    theirs = result.obb.xyxyxyxy.numpy()
    for mine, expected in zip(corners, theirs, strict=True):  # a rectangle's corners can begin anywhere
        assert np.abs(mine[:, None] - expected[None]).max(2).min(1).max() < 0.1
    np.testing.assert_allclose(found.boxes[:, :2], found.polygons.min(1))
    np.testing.assert_allclose(found.boxes[:, 2:], found.polygons.max(1))


def test_images_of_a_batch_do_not_mix(scenes: list[np.ndarray[Any, Any]]) -> None:
    ours = open_model("digits", device="cpu")
    images = [network_input(picture, ours, 128)[0] for picture in scenes[:3]]
    together = suppressed(ours, passed(ours, images))
    for image, found in zip(images, together, strict=True):
        alone = suppressed(ours, passed(ours, [image]))[0]
        np.testing.assert_array_equal(found.anchors, alone.anchors)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)


def test_the_pass_is_not_changed(scenes: list[np.ndarray[Any, Any]]) -> None:
    ours = open_model("digits", device="cpu")
    run = passed(ours, [network_input(scenes[0], ours, 128)[0]])
    decoded, logits = run.decoded.clone(), run.outputs.logits.clone()
    assert len(suppressed(ours, run, conf=0.01, multi_label=True)[0]) > 1
    assert torch.equal(run.decoded, decoded)
    assert torch.equal(run.outputs.logits, logits)


def test_nothing_found_has_the_shapes_of_no_boxes(lively: Callable[..., YOLO]) -> None:
    for ours in (open_model("digits", device="cpu"), open_model(lively("yolo11n-obb.yaml"))):
        (found,) = suppressed(ours, passed(ours, [torch.zeros(3, 128, 128)]), conf=1.0)
        assert (len(found), found.boxes.shape, found.anchors.dtype) == (0, (0, 4), np.int64)
        assert ours.task != "obb" or found.polygons is not None


@pytest.mark.parametrize(("options", "n"), [({"max_det": 2}, 2), ({"classes": []}, 0)])
def test_most_detections_and_classes_are_kept_to(
    scenes: list[np.ndarray[Any, Any]], options: dict[str, Any], n: int
) -> None:
    ours = open_model("digits", device="cpu")
    assert len(of_picture(ours, scenes[0], 128, conf=0.01, **options)[0]) == n


def test_what_cannot_be_suppressed_is_named(lively: Callable[..., YOLO]) -> None:
    ours = open_model("digits", device="cpu")
    run = passed(ours, [torch.zeros(3, 64, 64)])
    with pytest.raises(ArgumentError, match="conf=2"):
        suppressed(ours, run, conf=2)
    both = open_model(lively("yolo26n.yaml"))
    many = passed(both, [torch.zeros(3, 64, 64)])
    with predicting_with(both, "one2one") as single, pytest.raises(ArgumentError, match="another branch"):
        suppressed(single, many)
    classifier = open_model(YOLO("yolo11n-cls.yaml"))
    with pytest.raises(ArgumentError, match="classifier"):
        suppressed(classifier, passed(classifier, [torch.zeros(3, 64, 64)]))
