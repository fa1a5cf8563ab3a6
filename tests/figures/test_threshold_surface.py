import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.threshold_surface import Heat, edges, threshold_surface

CONFS, IOUS = [0.1, 0.2, 0.4], [0.3, 0.5]
VALUES = np.array([[0.1, 0.2, 0.3], [0.4, np.nan, 0.6]])
HEATS = {
    "f1": Heat(VALUES, "F1"),
    "cost": Heat(VALUES, "cost/image", "low"),
    "detections": Heat(VALUES, "n", "neither"),
}


def draw(heats=HEATS, **changed):
    return threshold_surface(heats, **{"confs": CONFS, "ious": IOUS, "split": "val", "point": (0.15, 0.5), **changed})


def meshes(figure):
    return {one.get_gid(): one for axes in figure.axes for one in axes.collections if one.get_gid()}


def test_a_map_has_a_cell_for_every_threshold_with_its_value() -> None:
    figure = draw()
    assert list(meshes(figure)) == ["f1", "cost", "detections"]
    drawn = meshes(figure)["f1"].get_array()
    np.testing.assert_allclose(drawn.filled(np.nan).reshape(2, 3), VALUES)
    corners = meshes(figure)["f1"].get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.05, 0.15, 0.3, 0.5])
    np.testing.assert_allclose(corners[:, 0, 1], [0.2, 0.4, 0.6])


def test_light_is_good_and_grey_is_neither() -> None:
    drawn = meshes(draw())
    assert {name: mesh.get_cmap().name for name, mesh in drawn.items()} == {
        "f1": "viridis",
        "cost": "viridis_r",
        "detections": "Greys",
    }


def test_the_chosen_point_is_ringed_in_every_map() -> None:
    points = [line for axes in draw().axes for line in axes.lines if line.get_gid() == "point"]
    assert [tuple(line.get_xydata()[0]) for line in points] == [(0.15, 0.5)] * 3
    assert not [line for axes in draw(point=None).axes for line in axes.lines]


def test_cells_lie_around_their_values_however_far_apart() -> None:
    np.testing.assert_allclose(edges(np.array([0.1, 0.2, 0.6])), [0.05, 0.15, 0.4, 0.8])
    np.testing.assert_allclose(edges(np.array([0.5])), [0.475, 0.525])


def test_one_threshold_and_one_overlap_can_be_drawn() -> None:
    figure = draw({"f1": Heat([[0.5]], "F1")}, confs=[0.3], ious=[0.7])
    assert meshes(figure)["f1"].get_array().size == 1
    figure.canvas.draw()


def test_nothing_to_draw_says_so() -> None:
    assert "no thresholds" in draw({}).axes[0].texts[0].get_text()


def test_a_map_of_another_shape_is_an_error() -> None:
    with pytest.raises(ShapeError, match="f1"):
        draw({"f1": Heat(VALUES.T, "F1")})
