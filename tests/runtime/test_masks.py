import numpy as np
import pytest
import torch
from ultralytics.utils import ops

from mlflow_yolo.runtime.masks import input_masks, original_masks


def scene(seed: int, n: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return smooth prototypes (8, h/4, w/4), coefficients (n, 8) and boxes (n, 4) that also leave the input."""
    rng = np.random.default_rng(seed)
    height, width = shape[0] // 4, shape[1] // 4
    coarse = torch.from_numpy(rng.normal(size=(1, 8, 5, 5)).astype(np.float32))
    prototypes = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].numpy()
    corner = rng.uniform(-20, shape[1], (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 90, (n, 2))], axis=1)
    return prototypes, rng.normal(size=(n, 8)).astype(np.float32), boxes.astype(np.float32)


def test_a_mask_is_where_the_weighted_sum_of_prototypes_is_positive_within_the_box() -> None:
    prototypes = np.stack([np.ones((2, 2)), np.full((2, 2), -1.0)]).astype(np.float32)
    boxes = np.array([[1, 2, 3.5, 4], [0, 0, 8, 8], [1, 1, 1, 1]], dtype=np.float32)
    coefficients = np.array([[2, 1], [1, 2], [2, 1]], dtype=np.float32)  # sums of 1, -1 and 1
    masks = input_masks(prototypes, coefficients, boxes, (8, 8))
    expected = np.zeros((3, 8, 8), dtype=bool)
    expected[0, 2:4, 1:4] = True  # pixels 1, 2, 3 start before 3.5; row 4 does not start before 4
    assert np.array_equal(masks, expected)


def test_no_detections_have_no_masks() -> None:
    prototypes, coefficients, boxes = scene(0, 0, (32, 48))
    assert input_masks(prototypes, coefficients, boxes, (32, 48)).shape == (0, 32, 48)
    assert original_masks(prototypes, coefficients, boxes, (99, 77)).shape == (0, 99, 77)


def test_a_box_that_is_no_number_is_empty() -> None:
    prototypes, coefficients, _ = scene(0, 1, (32, 32))
    boxes = np.full((1, 4), np.nan, dtype=np.float32)
    assert not input_masks(prototypes, coefficients, boxes, (32, 32)).any()


@pytest.mark.parametrize("shape", [(64, 64), (96, 128)])
def test_masks_of_the_input_are_those_of_ultralytics(shape: tuple[int, int]) -> None:
    arrays = scene(1, 40, shape)
    expected = ops.process_mask(*map(torch.from_numpy, arrays), shape, upsample=True).numpy().astype(bool)
    made = input_masks(*arrays, shape)
    assert made.any()
    assert (made != expected).mean() < 1e-5  # the sum's last digit, where it is all but 0


@pytest.mark.parametrize("shape", [(64, 64), (128, 96), (37, 211), (300, 200), (24, 32), (97, 131), (480, 640)])
def test_masks_of_the_original_are_those_of_ultralytics(shape: tuple[int, int]) -> None:
    prototypes, coefficients, boxes = scene(2, 40, (96, 128))
    boxes *= np.float32(shape[1] / 128)
    tensors = map(torch.from_numpy, (prototypes, coefficients, boxes))
    expected = ops.process_mask_native(*tensors, shape).numpy().astype(bool)
    made = original_masks(prototypes, coefficients, boxes, shape)
    assert made.any()
    assert (made != expected).mean() < 1e-5
