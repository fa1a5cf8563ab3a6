import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.confusion_grid import confusion_grid
from mlflow_yolo.figures.encode import png_bytes

MATRIX = np.array([[0.75, 0.0, 0.25], [np.nan, np.nan, np.nan], [1.0, 0.0, 0.0]])


def panels(figure: Figure) -> dict:
    return {image.get_gid(): axes for axes in figure.axes for image in axes.images if image.get_gid()}


def test_each_configuration_has_a_panel_with_its_matrix_baseline_first() -> None:
    figure = confusion_grid({"10": MATRIX, "0": np.eye(3)}, names=["a", "b"], split="test", baseline="0")
    assert list(panels(figure)) == ["confusion:0", "confusion:10"]
    drawn = panels(figure)["confusion:10"].images[0].get_array()
    np.testing.assert_array_equal(drawn.filled(-1), np.nan_to_num(MATRIX, nan=-1))
    assert panels(figure)["confusion:10"].images[0].get_clim() == (0, 1)


def test_cells_hold_their_shares_at_row_true_and_column_predicted() -> None:
    axes = panels(confusion_grid({"0": MATRIX}, names=["a", "b"], split="test"))["confusion:0"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): ".75", (2, 0): ".25", (0, 2): "1"}  # (x, y): column, row
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "background"]


def test_thirteen_classes_have_no_numbers() -> None:
    axes = panels(confusion_grid({"0": np.eye(14)}, names=list("abcdefghijklm"), split="test"))["confusion:0"]
    assert not axes.texts


def test_a_hundred_classes_are_named_by_index_and_the_background_by_name() -> None:
    figure = confusion_grid({"0": np.eye(101)}, names=[f"class {i}" for i in range(100)], split="test")
    labels = [label.get_text() for label in panels(figure)["confusion:0"].get_yticklabels()]
    assert labels[:2] == ["0", "10"]
    assert labels[-1] == "background"


def test_the_convention_and_thresholds_are_written_on_it() -> None:
    figure = confusion_grid({"0": MATRIX}, names=["a", "b"], split="test", conf=0.31, iou=0.5)
    assert "conf 0.31, IoU 0.5" in figure.get_suptitle().replace("\n", " ")
    assert "Rows: true class" in figure.get_supxlabel()


@pytest.mark.parametrize(("matrices", "names"), [({}, ["a"]), ({"0": [[np.nan]]}, []), ({"0": np.eye(2)}, ["<a>$"])])
def test_nothing_and_no_classes_and_one_class_are_drawn(matrices: dict, names: list[str]) -> None:
    assert png_bytes(confusion_grid(matrices, names=names, split="test"), dpi=40)


def test_a_matrix_without_background_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        confusion_grid({"0": np.eye(2)}, names=["a", "b"], split="test")
