import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.side_by_side import ImageBoxes, side_by_side

IMAGE = np.full((60, 80, 3), 200, dtype=np.uint8)
TRUE = ImageBoxes([[10, 20, 30, 40]], [0])
NONE = ImageBoxes([], [], [])


def axes_by_gid(figure: Figure) -> dict[str, Axes]:
    return {axes.get_gid(): axes for axes in figure.axes}


def boxes(axes: Axes) -> list[tuple[float, ...]]:
    marked = [patch for patch in axes.patches if patch.get_gid()]
    return [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in marked]


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_ground_truth_comes_first_then_the_configurations_baseline_first() -> None:
    figure = side_by_side([IMAGE], [TRUE], {"10": [NONE], "0": [NONE]}, names=["cell"], split="test", baseline="0")
    assert list(axes_by_gid(figure)) == ["0:ground truth", "0:0", "0:10"]


def test_images_and_boxes_are_drawn_in_pixels_with_name_and_confidence() -> None:
    found = ImageBoxes([[1.0, 30.0, 21.0, 50.0]], [1], [0.876])
    axes = axes_by_gid(side_by_side([IMAGE], [TRUE], {"0": [found]}, names=["cell", "<b>$"], split="test"))
    np.testing.assert_array_equal(axes["0:0"].images[0].get_array(), IMAGE)
    assert boxes(axes["0:ground truth"]) == [(10, 20, 30, 40)]
    assert labels(axes["0:ground truth"]) == ["cell"]
    assert boxes(axes["0:0"]) == [(1, 30, 21, 50)]
    assert labels(axes["0:0"]) == ["<b>$ 0.88"]


def test_a_label_that_would_cover_another_is_left_out_and_its_box_stays() -> None:
    crowd = ImageBoxes(np.tile([[10.0, 20.0, 30.0, 40.0]], (30, 1)), np.zeros(30), np.linspace(0.3, 0.9, 30))
    axes = axes_by_gid(side_by_side([IMAGE], [NONE], {"0": [crowd]}, names=["cell"], split="test"))["0:0"]
    assert len(boxes(axes)) == 30
    assert labels(axes)[0] == "cell 0.90"  # the most confident is placed first
    axes.figure.canvas.draw()
    extents = [text.get_window_extent() for text in axes.texts]
    assert 1 < len(extents) < 30
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])


def test_at_most_six_images_are_drawn_and_the_rest_is_counted() -> None:
    figure = side_by_side([IMAGE] * 8, [NONE] * 8, {"0": [NONE] * 8}, names=[], split="test")
    assert len(figure.axes) == 12
    assert "6 of 8 images" in figure.get_supxlabel()


def test_no_images_no_configurations_and_unknown_classes_are_drawn() -> None:
    assert png_bytes(side_by_side([], [], {"0": []}, names=[], split="test"), dpi=40)
    figure = side_by_side(
        [IMAGE], [ImageBoxes([[0, 0, np.nan, 9], [1, 1, 9, 9]], [0, 7])], {}, names=["a"], split="test"
    )
    assert labels(figure.axes[0]) == ["7"]  # a box that is not finite is left out, an id without a name is written
    assert png_bytes(figure, dpi=40)


def test_columns_images_and_boxes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="'0' has 2 entries for 1"):
        side_by_side([IMAGE], [TRUE], {"0": [NONE, NONE]}, names=["a"], split="test")
    with pytest.raises(ShapeError, match="float64"):
        side_by_side([IMAGE / 255], [TRUE], {}, names=["a"], split="test")
    with pytest.raises(ShapeError, match="2 classes"):
        side_by_side([IMAGE], [ImageBoxes([[0, 0, 1, 1]], [0, 1])], {}, names=["a"], split="test")
