"""Strips: where panels, boxes and text stand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.figures.example import MARK_COLORS, Example, MapLayer, Mark, example_strip, grey, grid
from mlflow_yolo.figures.heat_map import overlay, signed_overlay

Pixels = npt.NDArray[np.uint8]
SIZE = 80
GAP = 6
TOP = 30  # title and the panels' names
LINE = 15


def picture(height: int = SIZE, width: int = SIZE) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def panel(strip: Pixels, i: int, *, top: int = TOP, width: int = SIZE, height: int = SIZE) -> Pixels:
    left = i * (width + GAP)
    return strip[top : top + height, left : left + width]


def rgb(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def is_color(pixels: Pixels, color: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (pixels == rgb(color)).all(axis=-1)
    return found


def test_the_picture_stands_first_and_every_map_beside_it_over_the_grey_picture() -> None:
    image, values = picture(), np.random.default_rng(1).normal(size=(5, 5))
    layers = (MapLayer("a", np.abs(values), limit=3.0), MapLayer("a less b", values, signed=True, limit=3.0))
    strip = example_strip(Example("title", "caption", image, layers), size=SIZE, strength=0.6)
    assert strip.shape == (TOP + SIZE + LINE, 3 * SIZE + 2 * GAP, 3)
    assert strip.dtype == np.uint8
    np.testing.assert_array_equal(panel(strip, 0), image)
    np.testing.assert_array_equal(panel(strip, 1), overlay(grey(image), np.abs(values), largest=3.0, strength=0.6))
    np.testing.assert_array_equal(panel(strip, 2), signed_overlay(grey(image), values, limit=3.0, strength=0.6))


def test_without_maps_and_caption_there_is_only_the_picture_below_the_title() -> None:
    strip = example_strip(Example("t", "", picture()), size=SIZE)
    assert strip.shape == (LINE + SIZE, SIZE, 3)
    np.testing.assert_array_equal(panel(strip, 0, top=LINE), picture())


def test_grey_has_equal_channels_of_the_same_luminance() -> None:
    shades = grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], dtype=np.uint8))
    np.testing.assert_allclose(shades[0, :, 0], [0.299 * 255, 0.587 * 255, 0.114 * 255, 90], atol=1)
    assert (shades == shades[..., :1]).all()


@pytest.mark.parametrize(("height", "width", "expected"), [(200, 100, (80, 40)), (30, 60, (40, 80)), (1, 500, (1, 80))])
def test_panels_keep_the_picture_s_proportions(height: int, width: int, expected: tuple[int, int]) -> None:
    strip = example_strip(Example("t", "", picture(height, width), (MapLayer("m", np.ones((3, 3))),)), size=SIZE)
    assert strip.shape[:2] == (TOP + expected[0], 2 * expected[1] + GAP)


def test_a_true_box_is_a_whole_line_a_predicted_one_dashed_in_every_panel() -> None:
    marks = (Mark((0.25, 0.5, 0.75, 0.9), "", "true"), Mark(np.array([0.1, 0.1, 0.4, 0.3]), "", "predicted"))
    layers = (MapLayer("m", np.zeros((2, 2))),)
    strip = example_strip(Example("t", "", np.full((SIZE, SIZE, 3), 80, np.uint8), layers, marks), size=SIZE)
    for i in (0, 1):
        shown = panel(strip, i)
        row = is_color(shown[round(0.5 * 79)], MARK_COLORS["true"])
        assert row[round(0.25 * 79) : round(0.75 * 79) + 1].all()
        assert row.sum() == round(0.75 * 79) - round(0.25 * 79) + 1
        dashed = is_color(shown[round(0.1 * 79)], MARK_COLORS["predicted"])[round(0.1 * 79) : round(0.4 * 79) + 1]
        assert 0.5 < dashed.mean() < 0.9
        column = is_color(shown[:, round(0.1 * 79)], MARK_COLORS["predicted"])[round(0.1 * 79) : round(0.3 * 79) + 1]
        assert 0.5 < column.mean() < 0.9


def test_a_box_beyond_the_picture_is_cut_to_it() -> None:
    plain, marked = Example("t", "", picture()), Example("t", "", picture(), marks=(Mark((-1, -1, 2, 2), "", "true"),))
    strip = example_strip(marked, size=SIZE)
    assert strip.shape == example_strip(plain, size=SIZE).shape
    assert is_color(strip[LINE, :], MARK_COLORS["true"]).all()
    assert is_color(strip[LINE:, -1], MARK_COLORS["true"]).all()


def test_labels_stand_in_the_first_panel_only_and_inside_it() -> None:
    long = "a very long name of a class " * 4
    marks = (Mark((0.5, 0.0, 1.0, 0.5), long, "true"), Mark((0.6, 0.6, 1.0, 1.0), "dog 92 %", "predicted"))
    image = np.full((SIZE, SIZE, 3), 80, np.uint8)
    bare = Example("t", "", image, (MapLayer("m", np.zeros((2, 2))),), tuple(Mark(m.box, "", m.kind) for m in marks))
    labelled = Example("t", "", image, (MapLayer("m", np.zeros((2, 2))),), marks)
    differs = (example_strip(labelled, size=SIZE) != example_strip(bare, size=SIZE)).any(axis=2)
    assert differs[TOP : TOP + SIZE, :SIZE].any(axis=1).sum() >= 2 * 10  # two lines of text
    differs[TOP : TOP + SIZE, :SIZE] = False
    assert not differs.any()


def test_text_that_does_not_fit_is_cut_in_its_place() -> None:
    def strip(words: str) -> Pixels:
        layers = tuple(MapLayer(words, np.ones((2, 2))) for _ in range(2))
        return example_strip(Example(words, words, picture(), layers), size=SIZE)

    short, long = strip("m"), strip("many words " * 50)
    assert long.shape == short.shape
    gap = slice(2 * SIZE + GAP, 2 * SIZE + 2 * GAP)  # between the two maps
    assert (long[LINE:TOP, gap] == 255).all()
    assert (long[LINE:TOP, gap.start - 20 : gap.start] < 200).any()  # the cut name ends just before it
    np.testing.assert_array_equal(long[TOP : TOP + SIZE], short[TOP : TOP + SIZE])


def test_names_of_any_script_and_with_line_breaks_can_be_drawn() -> None:
    strip = example_strip(Example("漢字 <b>\n\x00 मराठी", "\U0001f600", picture()), size=SIZE)
    assert (strip[:LINE] < 128).any()


def test_a_map_without_any_value_leaves_its_panel_grey() -> None:
    strip = example_strip(Example("t", "", picture(), (MapLayer("m", np.zeros((4, 4))),)), size=SIZE)
    np.testing.assert_array_equal(panel(strip, 1), grey(picture()))


def test_the_scale_of_a_layer_is_its_limit_or_its_largest_value() -> None:
    values = np.array([[-4.0, 1.0, np.nan]])
    assert MapLayer("m", values).scale() == 1.0
    assert MapLayer("m", values, signed=True).scale() == 4.0
    assert MapLayer("m", values, limit=7.0).scale() == 7.0
    assert MapLayer("m", np.zeros((2, 2))).scale() == 0.0


def test_a_grid_puts_strips_side_by_side_in_their_order() -> None:
    examples = [Example("t", "", np.full((SIZE, SIZE, 3), shade, np.uint8)) for shade in (10, 20, 30)]
    sheet = grid(examples, 2, size=SIZE)
    cell = (LINE + SIZE + 2 * GAP, SIZE + 2 * GAP)
    assert sheet.shape == (2 * cell[0], 2 * cell[1], 3)
    middle = (LINE + SIZE // 2 + GAP, SIZE // 2 + GAP)
    shades = [[int(sheet[i * cell[0] + middle[0], j * cell[1] + middle[1], 0]) for j in (0, 1)] for i in (0, 1)]
    assert shades == [[10, 20], [30, 255]]


def test_a_grid_of_strips_of_unlike_size_holds_the_largest() -> None:
    wide = Example("t", "c", picture(), tuple(MapLayer("m", np.ones((2, 2))) for _ in range(3)))
    sheet = grid([Example("t", "", picture(40, 80)), wide], size=SIZE)
    assert sheet.shape[1] == 4 * SIZE + 3 * GAP + 2 * GAP
    assert sheet.shape[0] == (LINE + 40 + 2 * GAP) + (TOP + SIZE + LINE + 2 * GAP)


def test_a_grid_of_nothing_is_a_white_pixel() -> None:
    np.testing.assert_array_equal(grid([]), np.full((1, 1, 3), 255))
    with pytest.raises(ArgumentError, match="columns=0"):
        grid([], 0)


@pytest.mark.parametrize("box", [(0, 0, 1), np.zeros((1, 4)), (0, 0, float("nan"), 1)])
def test_what_is_no_box_is_named(box: Any) -> None:
    with pytest.raises(ShapeError, match="x1, y1, x2, y2"):
        Mark(box, "")


def test_a_box_inside_out_and_an_unknown_kind_are_named() -> None:
    with pytest.raises(ArgumentError, match="inside out"):
        Mark((0.5, 0, 0.4, 1), "")
    with pytest.raises(ArgumentError, match="'wrong'"):
        Mark((0, 0, 1, 1), "", "wrong")  # type: ignore[arg-type]


def test_what_is_no_picture_or_map_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        Example("t", "", np.zeros((4, 4), np.uint8))
    with pytest.raises(ShapeError, match=r"\(3, 4, 4\)"):
        MapLayer("m", np.zeros((3, 4, 4)))
