from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.figures.confusion_matrix import confusion_matrix
from mlflow_yolo.figures.encode import png_bytes, rgb_array

MATRIX = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])


def panel(figure: Figure) -> tuple[Axes, AxesImage]:
    return next((axes, image) for axes in figure.axes for image in axes.images if image.get_gid() == "confusion")


def named(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def labels(figure: Figure, which: str = "y") -> list[str]:
    axes, _ = panel(figure)
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def test_cells_are_shares_of_the_true_class_a_row_each() -> None:
    axes, image = panel(confusion_matrix(MATRIX, ["a", "b", "c"], split="val"))
    np.testing.assert_allclose(image.get_array().filled(-1), [[0.75, 0.25, 0], [-1, -1, -1], [0.25, 0, 0.75]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): ".75", (1, 0): ".25", (0, 2): ".25", (2, 2): ".75"}  # (x, y): column, row
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_the_convention_is_written_on_it() -> None:
    figure = confusion_matrix(MATRIX, ["a", "b", "c"], split="val", conf=0.31, iou=0.5)
    assert "on val" in figure.get_suptitle()
    assert "conf 0.31, IoU 0.5" in figure.get_suptitle().replace("\n", " ")
    reading = figure.get_supxlabel().replace("\n", " ")
    assert "Rows: true class; columns: predicted class" in reading
    assert "Grey: no images" in reading
    assert "background" not in labels(figure)


def test_few_classes_have_their_number_of_images_beside_the_name() -> None:
    figure = confusion_matrix(MATRIX, ["a", "b", "c"], split="val")
    assert labels(figure) == ["a (8)", "b", "c (4)"]
    assert labels(figure, "x") == ["a", "b", "c"]


def test_the_order_moves_rows_and_columns_alike() -> None:
    _, image = panel(confusion_matrix(MATRIX, ["a", "b", "c"], split="val", order=[2, 0, 1]))
    np.testing.assert_allclose(image.get_array().filled(-1), [[0.75, 0.25, 0], [0, 0.75, 0.25], [-1, -1, -1]])


def test_a_part_of_the_classes_keeps_the_shares_of_the_whole() -> None:
    figure = confusion_matrix(MATRIX, ["a", "b", "c"], split="val", order=[0, 2])
    np.testing.assert_allclose(panel(figure)[1].get_array().filled(-1), [[0.75, 0], [0.25, 0.75]])
    assert "2 of 3 classes" in figure.get_supxlabel()
    assert "side by side" not in figure.get_supxlabel()  # that is said of all classes in the order of clusters only


def test_the_background_is_last_whatever_the_order() -> None:
    matrix = np.array([[4, 0, 4], [1, 2, 1], [3, 1, 0]])
    figure = confusion_matrix(matrix, ["a", "b"], split="val", background=True, order=[1, 0])
    assert labels(figure) == ["b (4)", "a (8)", "background"]
    expected = [[0.5, 0.25, 0.25], [0, 0.5, 0.5], [0.25, 0.75, 0]]
    np.testing.assert_allclose(panel(figure)[1].get_array().filled(-1), expected)
    assert "Last column: missed" in figure.get_supxlabel().replace("\n", " ")


def test_a_hundred_classes_are_all_named_and_one_percent_can_be_seen() -> None:
    matrix = np.diag([100] * 100)
    matrix[10, 80] = 1
    figure = confusion_matrix(matrix, named(100), split="val", order=np.arange(100))
    assert labels(figure) == named(100)
    assert "side by side" in figure.get_supxlabel()
    axes, image = panel(figure)
    assert isinstance(image.norm, PowerNorm)
    assert not axes.texts
    error, right = (np.array(image.to_rgba(np.array([value])))[0, :3] for value in (1 / 101, 0.0))
    assert np.abs(error - right).max() > 0.05  # 0.008 on a linear scale


def test_names_of_a_hundred_classes_do_not_overlap() -> None:
    figure = confusion_matrix(np.diag([9] * 100), ["a name that is rather long"] * 100, split="val")
    rgb_array(figure)  # lays it out
    axes, _ = panel(figure)
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(boxes))


def test_of_a_thousand_classes_a_cell_shows_the_largest_share_of_its_block() -> None:
    matrix = np.diag([10] * 1000)
    matrix[801, 203] = 30
    matrix[4:8] = 0
    figure = confusion_matrix(matrix, named(1000), split="val")
    axes, image = panel(figure)
    cells = image.get_array()
    assert cells.shape == (250, 250)
    assert cells[200, 50] == 0.75
    assert cells.mask[1].all()
    assert not cells.mask[2].any()
    assert labels(figure) == [str(i) for i in range(0, 1000, 100)]
    np.testing.assert_allclose(axes.get_yticks(), [i / 4 - 0.375 for i in range(0, 1000, 100)])
    assert "4 by 4 classes" in figure.get_supxlabel()


def test_the_background_of_a_thousand_classes_has_a_row_of_its_own() -> None:
    matrix = np.zeros((1002, 1002), dtype=np.int64)
    matrix[1000, 1001], matrix[1001, 3] = 5, 5
    figure = confusion_matrix(matrix, named(1001), split="val", background=True)
    axes, image = panel(figure)
    cells = image.get_array()
    assert cells.shape == (202, 202)  # 5 classes a cell: 200 cells and one of a single class, then the background
    assert (cells[200, 201], cells[201, 0]) == (1, 1)
    assert (labels(figure)[-1], axes.get_yticks()[-1]) == ("background", 201)
    assert {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1} == {200.5}


@pytest.mark.parametrize(("matrix", "names"), [(np.zeros((0, 0)), []), ([[0]], ["<a>$x$"]), ([[3]], ["漢" * 40])])
def test_no_classes_and_one_are_drawn(matrix: list, names: list[str]) -> None:
    assert png_bytes(confusion_matrix(matrix, names, split="val"), dpi=40)


def test_a_matrix_that_does_not_fit_the_names_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 3\) for 3 class names. Pass \(4, 4\)"):
        confusion_matrix(MATRIX, ["a", "b", "c"], split="val", background=True)


@pytest.mark.parametrize("order", [[0, 0], [3], [-1]])
def test_an_order_of_other_classes_is_refused(order: list[int]) -> None:
    with pytest.raises(ArgumentError, match="3 classes"):
        confusion_matrix(MATRIX, ["a", "b", "c"], split="val", order=order)
