from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.ops import process_mask

from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.outputs import ClassificationOutputs, DetectionOutputs
from mlflow_yolo.attribution.targets import (
    BoxSide,
    ClassInImage,
    ClassLogit,
    Contrast,
    ImageLogit,
    Object,
    PredictedMask,
    Target,
    Terms,
    anchors_inside,
)
from mlflow_yolo.exceptions import ArgumentError

# A 32 pixel input: 16 cells of 8 pixels, then 4 of 16. The logit of class c at anchor a of image i: 100 i + 50 c + a.
ANCHORS = 20
DETECTION = DetectionOutputs(
    logits=(100.0 * torch.arange(2)[:, None, None] + 50.0 * torch.arange(2)[:, None] + torch.arange(20.0)),
    sides=torch.arange(2 * 4 * 20.0).reshape(2, 4, 20) / torch.tensor([8.0] * 16 + [16.0] * 4),  # 0, 1, … pixels
    sizes=((4, 4), (2, 2)),
    strides=(8.0, 16.0),
)
CLASSIFICATION = ClassificationOutputs(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]))


def found(terms: Terms) -> list[tuple[float, int]]:
    return list(zip(terms.values.tolist(), terms.levels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (ClassLogit(3, 1), [(153.0, 0)]),
        (ClassLogit(17, 0), [(117.0, 1)]),
        (ClassInImage(0, (2, 16, 5)), [(102.0, 0), (116.0, 1), (105.0, 0)]),
        (ClassInImage(1), [(169.0, 1)]),  # nowhere detected: its highest logit is at the last anchor
        (Object((0.0, 0.0, 15.0, 15.0), 0), [(116.0, 1)]),  # centres inside: anchors 0, 1, 4, 5 and 16
        (Object((0.0, 0.0, 7.0, 7.0), 0), [(100.0, 0)]),
        (Object((29.0, 29.0, 30.0, 30.0), 0), [(115.0, 0)]),  # smaller than a cell: the nearest centre, (28, 28)
        (Contrast(4, 1, 0), [(50.0, 0)]),
        (Contrast(18, 0, 1), [(-50.0, 1)]),
        (BoxSide(19, "left"), [(99.0, 1)]),
        (BoxSide(0, "bottom"), [(140.0, 0)]),
    ],
)
def test_terms_of_the_second_image_of_a_batch(target: Target, expected: list[tuple[float, int]]) -> None:
    assert found(target.terms(DETECTION, 1)) == expected


def test_the_nearest_anchor_to_a_missed_object_is_the_best_of_any_level() -> None:
    logits = DETECTION.logits.clone()
    logits[0, 1, [5, 16]] = torch.tensor([900.0, 800.0])
    logits[0, 1, 15] = 1000.0  # outside the box
    outputs = DetectionOutputs(logits, DETECTION.sides, DETECTION.sizes, DETECTION.strides)
    assert found(Object((0.0, 0.0, 15.0, 15.0), 1).terms(outputs, 0)) == [(900.0, 0)]


def test_anchors_inside_counts_centres_on_the_edge() -> None:
    assert anchors_inside(DETECTION, (4.0, 4.0, 12.0, 12.0)).tolist() == [0, 1, 4, 5, 16]
    assert anchors_inside(DETECTION, (4.1, 4.0, 12.0, 12.0)).tolist() == [1, 5, 16]
    assert anchors_inside(DETECTION, (500.0, 500.0, 600.0, 600.0)).tolist() == [15]  # outside the input altogether


@pytest.mark.parametrize(
    ("target", "value"), [(ImageLogit(2), 32.0), (ImageLogit(2, against=0), 24.0), (ImageLogit(0, against=1), -8.0)]
)
def test_a_logit_of_a_classifier_alone_and_against_another(target: Target, value: float) -> None:
    assert found(target.terms(CLASSIFICATION, 1)) == [(value, 0)]


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (ClassLogit(20, 0), "anchor 20"),
        (ClassLogit(-1, 0), "anchor -1"),
        (ClassLogit(0, 2), "class 2"),
        (ClassInImage(-1), "class -1"),
        (ClassInImage(0, (3, 40)), "anchor 40"),
        (Contrast(0, 1, 1), "class 1 against itself"),
        (BoxSide(0, "middle"), "side=middle"),
        (BoxSide(20, "left"), "anchor 20"),
        (PredictedMask(0), "no masks"),
        (PredictedMask(99), "anchor 99"),
        (ImageLogit(0), "detector"),
    ],
)
def test_a_target_that_a_detector_has_not_is_an_error_that_names_it(target: Target, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        target.terms(DETECTION, 0)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (ImageLogit(3), "class 3"),
        (ImageLogit(1, against=3), "class 3"),
        (ImageLogit(1, against=1), "class 1 against itself"),
        (ClassLogit(0, 0), "no anchors"),
        (ClassInImage(0), "no anchors"),
        (Object((0, 0, 1, 1), 0), "no anchors"),
        (PredictedMask(0), "no anchors"),
        (BoxSide(0, "left"), "no anchors"),
    ],
)
def test_a_target_that_a_classifier_has_not_is_an_error_that_names_it(target: Target, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        target.terms(CLASSIFICATION, 0)


def masked(mask: Tensor, distances: list[float]) -> DetectionOutputs:
    """Return one anchor at (16, 16) of a 32 pixel input with a mask (16, 16) of 2 pixels a cell."""
    return DetectionOutputs(
        logits=torch.zeros(1, 1, 1),
        sides=torch.tensor(distances)[None, :, None] / 32.0,
        sizes=((1, 1),),
        strides=(32.0,),
        coefficients=torch.ones(1, 1, 1),
        prototypes=mask[None, None],
    )


def test_a_mask_is_averaged_where_it_is_positive_and_inside_its_box() -> None:
    mask = torch.full((16, 16), -1.0)
    mask[4:6, 4:12] = 3.0
    mask[6, 6] = 8.0
    mask[0, :] = 1000.0  # above the box
    outputs = masked(mask, [8.0, 12.0, 8.0, 8.0])  # box 8, 4, 24, 24: columns 4 to 11, rows 2 to 11
    assert found(PredictedMask(0).terms(outputs, 0)) == [(pytest.approx((16 * 3 + 8) / 17), 0)]


def test_an_empty_mask_is_averaged_over_its_box_and_without_a_box_over_the_picture() -> None:
    mask = torch.full((16, 16), -1.0)
    mask[4, 4] = -5.0
    assert found(PredictedMask(0).terms(masked(mask, [8.0, 8.0, -4.0, -4.0]), 0)) == [(pytest.approx(-2.0), 0)]
    assert found(PredictedMask(0).terms(masked(mask, [-8.0] * 4), 0)) == [(pytest.approx(-1.0 - 4 / 256), 0)]


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo26n-seg"])
def test_the_pixels_of_a_mask_are_those_that_ultralytics_predicts(
    name: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    cut = 0
    with forward(build(name, end_to_end=False if "26" in name else None), pictures(1), [0]) as run:
        outputs: Any = run.outputs
        for anchor in range(0, outputs.logits.shape[2], 3):
            box = outputs.boxes[0, :, anchor].detach()
            logits = outputs.mask_logits(0, anchor)
            arguments = outputs.prototypes[0].detach(), outputs.coefficients[0, :, anchor][None].detach()
            mask = process_mask(*arguments, box[None], (64, 64))[0].bool()
            if mask.any():
                value = PredictedMask(anchor).terms(outputs, 0).values
                torch.testing.assert_close(value, logits[mask].mean()[None])
                cut += bool(mask.sum() < (logits > 0).sum())
    assert cut  # else the box would not have mattered
