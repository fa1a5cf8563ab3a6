"""One pass over a split: what is kept of it is what the model saw and said, and each image goes through once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import YOLO

from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.explanation.batches import as_input, branch_of
from mlflow_yolo.explanation.detected import anchor_of
from mlflow_yolo.explanation.detections import suppressed
from mlflow_yolo.explanation.instances import input_box
from mlflow_yolo.explanation.network import ExplainedModel, open_model, predicting_with
from mlflow_yolo.explanation.split import ClassifiedSplit, DetectedSplit, classify_split
from mlflow_yolo.models.data import localise
from tests.explanation.classifiers import fitted_classifier, stripes
from tests.explanation.conftest import detect, make_lively
from tests.training.task_data import SUFFIXES, narrow_model, task_data

pytestmark = pytest.mark.slow


def anchors_found(split: DetectedSplit, model: ExplainedModel, index: int, least: float) -> list[int]:
    """Return the anchors that stored detections are looked up at."""
    sample = split.samples[index]
    with forward(
        model.network, as_input(split.input(index))[None], [], branch=branch_of(model), needs_gradient=False
    ) as run:
        return [
            anchor_of(run.outputs, 0, box=input_box(box, split.frames[index]), conf=float(conf), class_id=int(class_id))
            for box, conf, class_id in zip(sample.boxes, sample.scores, sample.classes, strict=True)
            if conf >= least
        ]


def anchors_kept(split: DetectedSplit, model: ExplainedModel, index: int, least: float) -> list[int]:
    """Return the anchors that the suppression itself has kept, with the settings of a validation."""
    with predicting_with(model, branch_of(model)) as opened:
        image = as_input(split.input(index))[None]
        with forward(model.network, image, [], branch=branch_of(model), needs_gradient=False) as run:
            (kept,) = suppressed(opened, run, 0.001, 0.7, 300, multi_label=True)
    return kept.anchors[kept.conf >= least].tolist()


def test_a_stored_detection_is_found_at_the_anchor_that_the_suppression_kept(
    found: DetectedSplit, digits_model: ExplainedModel
) -> None:
    kept = [anchors_kept(found, digits_model, index, 0.05) for index in range(4)]
    assert [anchors_found(found, digits_model, index, 0.05) for index in range(4)] == kept
    assert min(map(len, kept)) > 2


@pytest.mark.parametrize(("version", "task"), [("yolo26n", "detect"), ("yolov8n", "segment"), ("yolo11n", "obb")])
def test_so_it_is_for_other_heads(tmp_path: Path, version: str, task: str) -> None:
    data = task_data(task, tmp_path / "data")
    weights = tmp_path / f"{version}{SUFFIXES[task]}.pt"
    make_lively(str(narrow_model(version, task, data, tmp_path))).save(weights)
    split, model = detect(weights, data, tmp_path, imgsz=64), open_model(weights, device="cpu")
    n = 0
    for index, sample in enumerate(split.samples):
        found, kept = (anchors(split, model, index, 0.3) for anchors in (anchors_found, anchors_kept))
        # Untrained, an eighth of the anchors have exactly the confidence of others and boxes as large as the picture.
        assert (Counter(found) & Counter(kept)).total() >= 0.85 * len(kept)
        n += len(found)
        assert len(found) == (sample.scores >= 0.3).sum() == len(kept)
    assert n > 4


def test_the_frame_turns_boxes_of_the_image_into_those_of_the_input(found: DetectedSplit) -> None:
    for index, sample in enumerate(found.samples):
        item = found.images[index]
        centre, size = item["bboxes"][:, :2].numpy(), item["bboxes"][:, 2:].numpy()
        height, width = found.input(index).shape[1:]
        expected = np.hstack([(centre - size / 2) * (width, height), (centre + size / 2) * (width, height)])
        np.testing.assert_allclose(found.frames[index].to_input(sample.gt_boxes), expected, atol=0.01)


def test_pictures_are_those_of_the_files_in_the_order_of_the_samples(found: DetectedSplit, few_digits: Path) -> None:
    for index in (0, len(found.samples) - 1):
        with Image.open(few_digits.parent / found.samples[index].image) as file:
            pixels = np.asarray(file.convert("RGB"))
        frame = found.frames[index]
        assert frame.original == pixels.shape[:2]
        x1, y1, x2, y2 = frame.to_input(np.array([[0, 0, *pixels.shape[1::-1]]]))[0].astype(int)
        inside = found.rgb(index)[y1:y2, x1:x2]
        assert inside.shape == pixels.shape  # 128 pixels: not scaled
        np.testing.assert_array_equal(inside, pixels)


def test_of_labelled_outlines_the_mask_is_their_area_and_not_that_of_their_boxes(tmp_path: Path) -> None:
    data = task_data("segment", tmp_path / "data")
    weights = tmp_path / "yolo11n-seg.pt"
    make_lively(str(narrow_model("yolo11n", "segment", data, tmp_path))).save(weights)
    split = detect(weights, data, tmp_path, imgsz=64)
    sample = split.samples[0]
    label = (data.parent / "labels" / "test" / Path(sample.image).name).with_suffix(".txt").read_text().splitlines()
    outlines = [np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (64, 64) for line in label]

    assert len(label) > 1
    for row, box in enumerate(sample.gt_boxes):
        (outline,) = (one for one in outlines if np.allclose([*one.min(0), *one.max(0)], box, atol=0.8))
        x, y = outline.T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        mask = split.mask(0, [row], (64, 64))
        assert mask.sum() == pytest.approx(area, rel=0.05)
        assert mask.sum() < (box[2] - box[0]) * (box[3] - box[1])
        x1, y1, x2, y2 = np.round(box).astype(int)
        assert mask[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2].sum() == pytest.approx(mask.sum())


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifiedSplit, YOLO, int]:
    """Return what a classifier made of 12 images, the classifier, and how many images went through it meanwhile."""
    folder = tmp_path_factory.mktemp("classified")
    data = stripes(folder / "data", n_classes=4, n_images=3, side=48)
    weights = fitted_classifier(data, folder / "stripes.pt", imgsz=128)
    seen: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        # Ultralytics counts operations on a few empty pictures of other sizes.
        if type(module).__name__ == "Classify" and inputs[0].shape[2:] == (4, 4):
            seen.append(len(inputs[0]))

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        split = classify_split(
            str(weights),
            localise(load_dataset(str(data), task="classify"), folder),
            split="val",
            progress=lambda done, total: None,
            imgsz=128,
            batch=5,
            device="cpu",
            directory=folder / "measured",
        )
    finally:
        handle.remove()
    return split, YOLO(weights), sum(seen)


def test_every_image_of_a_classifier_goes_through_it_exactly_once(
    classified: tuple[ClassifiedSplit, YOLO, int],
) -> None:
    split, _, n_seen = classified
    assert n_seen == len(split.files) == 12


def test_probabilities_and_maps_are_those_of_the_network_for_the_same_files(
    classified: tuple[ClassifiedSplit, YOLO, int],
) -> None:
    split, model, _ = classified
    head = model.model.float().model[-1]
    for index in (0, 7, 11):
        with torch.no_grad():
            probabilities, logits = model.model(split.input(index)[None])
            bias = head.linear.bias.tolist()
        np.testing.assert_allclose(split.probabilities[index], probabilities[0], atol=1e-4)
        assert split.files[index].parent.name == model.names[split.true[index]]
        classes = (int(split.true[index]), int(probabilities[0].argmax()))
        for values, class_id in zip(split.maps[index], classes, strict=True):
            expected = float(logits[0, class_id]) - bias[class_id]
            assert values.sum() == pytest.approx(expected, abs=2e-2)


def test_the_maps_of_two_classes_differ_by_their_logits(classified: tuple[ClassifiedSplit, YOLO, int]) -> None:
    split, model, _ = classified
    bias = model.model.float().model[-1].linear.bias.detach().numpy()
    wrong = [i for i in range(12) if split.probabilities[i].argmax() != split.true[i]]
    assert wrong
    for index in wrong:
        true, predicted = int(split.true[index]), int(split.probabilities[index].argmax())
        p = split.probabilities[index]
        # The difference of two logits is that of the logarithms of their probabilities.
        expected = np.log(p[true]) - np.log(p[predicted]) - (bias[true] - bias[predicted])
        assert (split.maps[index, 0] - split.maps[index, 1]).sum() == pytest.approx(expected, abs=2e-2)
