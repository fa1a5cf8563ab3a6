import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.data.augment import LetterBox, classify_transforms
from ultralytics.utils.ops import scale_boxes

from mlflow_yolo.attribution.frame import Frame

SIZES = [(480, 640), (641, 479), (37, 101), (1, 300), (333, 1), (320, 320), (501, 333), (33, 57)]
INPUTS = [(320, 320), (96, 160), (64, 64)]


def placed(shape: tuple[int, int], letterboxed: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a white image on the grey of a letterbox."""
    inside = np.argwhere(letterboxed[..., 0] == 255)
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    return int(top), int(bottom), int(left), int(right)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("original", SIZES)
def test_a_letterboxed_image_lies_where_ultralytics_puts_it(original: tuple[int, int], input: tuple[int, int]) -> None:
    white = np.full((*original, 3), 255, np.uint8)
    top, bottom, left, right = placed(original, LetterBox(input, auto=False)(image=white))
    height, width = original
    corners = Frame.letterbox(original, input).to_input(np.array([[0, 0, width, height]]))
    np.testing.assert_allclose(corners, [[left, top, right, bottom]], atol=1e-9)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("original", SIZES)
def test_boxes_go_back_as_ultralytics_scales_them(original: tuple[int, int], input: tuple[int, int]) -> None:
    frame, (height, width) = Frame.letterbox(original, input), original
    boxes = np.random.default_rng(0).random((20, 4)) * [width, height, width, height]
    inside = frame.to_input(boxes)
    np.testing.assert_allclose(frame.to_original(inside), boxes, atol=1e-9)
    np.testing.assert_allclose(scale_boxes(input, torch.from_numpy(inside), original), boxes, atol=1e-9)


@pytest.mark.parametrize("input", [(224, 224), (64, 64), (33, 33), (64, 96)])
@pytest.mark.parametrize("original", [(480, 640), (641, 479), (37, 101), (100, 37), (64, 64), (501, 333)])
def test_a_classified_image_lies_where_the_transforms_of_ultralytics_put_it(
    original: tuple[int, int], input: tuple[int, int]
) -> None:
    height, width = original
    y, x = np.mgrid[:height, :width] + 0.5
    frame = Frame.centre_crop(original, input)
    for axis, positions in enumerate((y / height, x / width)):
        ramp = Image.fromarray(positions.astype(np.float32), mode="F")
        resize, crop = classify_transforms(input if input[0] != input[1] else input[0]).transforms[:2]
        seen = np.asarray(crop(resize(ramp)))  # where in the image each pixel of the input comes from, 0 to 1
        centres = (np.arange(input[axis]) + 0.5 - frame.pad[axis]) / frame.scale[axis] / original[axis]
        lines = seen.mean(1 - axis)
        middle = slice(4, -4)  # resizing bends a ramp at its ends
        pixel = 1 / (frame.scale[axis] * original[axis])
        np.testing.assert_allclose(lines[middle], centres[middle], atol=0.1 * pixel, rtol=0)
        assert seen.shape == input


def test_a_map_of_an_image_without_padding_is_cut_to_itself() -> None:
    values = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    for original in ((160, 160), (40, 40)):
        np.testing.assert_allclose(Frame.letterbox(original, (160, 160)).cut(values), values, rtol=1e-6)


def test_the_padding_is_cut_off_a_map() -> None:
    values = np.zeros((8, 8), np.float32)
    values[2:6] = np.arange(1, 33).reshape(4, 8)
    values[:2], values[6:] = 100.0, 100.0  # what a model saw in the padding
    cut = Frame.letterbox((320, 640), (64, 64)).cut(values)  # rows 16 to 48 of the input: cells 2 to 5
    np.testing.assert_allclose(cut, np.arange(1, 33).reshape(4, 8), rtol=1e-6)


def test_padding_that_ends_inside_a_cell_is_cut_by_interpolation() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None].repeat(8, 1)  # a map that rises by 1 a cell of 8 pixels
    frame = Frame.letterbox((400, 640), (64, 64))  # 40 rows of 64 from row 12 on: cells 1.5 to 6.5
    np.testing.assert_allclose(frame.cut(rows), (1.5 + np.arange(5))[:, None].repeat(8, 1), rtol=1e-6)


def test_what_was_cropped_away_has_no_attention() -> None:
    frame = Frame.centre_crop((64, 128), (64, 64))
    cut = frame.cut(np.full((4, 4), 3.0, np.float32))
    assert cut.shape == (4, 8)
    np.testing.assert_array_equal(cut, [[0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0]] * 4)


@pytest.mark.parametrize("original", [(1, 300), (300, 1), (3, 4000)])
def test_a_thin_image_has_a_map_of_one_line(original: tuple[int, int]) -> None:
    cut = Frame.letterbox(original, (64, 64)).cut(np.full((8, 8), 2.0, np.float32))
    assert min(cut.shape) == 1
    assert max(cut.shape) == 8
    np.testing.assert_allclose(cut, 2.0)
    assert cut.dtype == np.float32


def test_a_map_of_one_cell_can_be_cut() -> None:
    frame = Frame.letterbox((320, 640), (64, 64))
    np.testing.assert_array_equal(frame.cut(np.array([[7.0]])), [[7.0]])
