"""Where a good map would lie, in the frame of the original image: by hand."""

import numpy as np
import pytest
import torch

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.explanation.choices import Region, predicted_mask
from mlflow_yolo.explanation.detections import Detections

FRAME = Frame.letterbox((40, 80), (160, 160))
"""A picture of 40 x 80 pixels doubled to 80 x 160, with 40 rows of padding above and below."""

LEFT_HALF = np.array([[0.0, 40.0, 80.0, 120.0]])


def test_boxes_polygons_and_masks_of_one_place_cover_the_same_cells() -> None:
    expected = np.tile([1.0, 1.0, 0.0, 0.0], (2, 1))
    polygon = np.array([[[0.0, 40.0], [80.0, 40.0], [80.0, 120.0], [0.0, 120.0]]])
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, :20] = True

    np.testing.assert_allclose(Region(LEFT_HALF).coverage(FRAME, (2, 4)), expected)
    np.testing.assert_allclose(Region(LEFT_HALF, polygon).coverage(FRAME, (2, 4)), expected, atol=1e-9)
    # A mask is sampled between the centres of its cells: its edge is spread over one of them.
    np.testing.assert_allclose(Region(LEFT_HALF, polygon, mask).coverage(FRAME, (2, 4)), expected, atol=0.06)


def test_a_predicted_mask_is_cut_to_its_box() -> None:
    outputs = DetectionOutputs(
        logits=torch.zeros(1, 2, 4),
        sides=torch.zeros(1, 4, 4),
        sizes=((2, 2),),
        strides=(8.0,),
        coefficients=torch.ones(1, 1, 4),
        prototypes=torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])[None, None],
    )
    zero = np.zeros(1)
    found = Detections(np.array([[0.0, 0.0, 8.0, 8.0]]), zero, zero.astype(np.int64), zero.astype(np.int64))

    expected = np.zeros((4, 4), dtype=bool)
    expected[0, :2] = expected[1, 0] = True
    np.testing.assert_array_equal(predicted_mask(outputs, 0, found, 0), expected)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5)])
def test_no_boxes_cover_nothing(grid: tuple[int, int]) -> None:
    assert not Region(np.zeros((0, 4))).coverage(FRAME, grid).any()
