from math import nan

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.trial_history import TrialPoint, best_so_far, trial_history

POINTS = [
    TrialPoint(0, 0.4, default=True),
    TrialPoint(1, 0.3),
    TrialPoint(2, 0.9, "infeasible"),
    TrialPoint(3, 0.8, "pruned"),
    TrialPoint(4, nan, "failed"),
    TrialPoint(5, 0.6),
]


def line(figure: Figure, gid: str) -> np.ndarray:
    found = next(one for one in figure.axes[0].lines if one.get_gid() == gid)
    return np.stack([found.get_xdata(), found.get_ydata()], axis=1)


def test_the_best_so_far_is_of_finished_trials_that_keep_the_constraints() -> None:
    np.testing.assert_allclose(best_so_far(POINTS, maximize=True), [[0, 0.4], [1, 0.4], [5, 0.6]])
    np.testing.assert_allclose(best_so_far(POINTS, maximize=False), [[0, 0.4], [1, 0.3], [5, 0.3]])


def test_the_order_of_the_points_does_not_matter() -> None:
    np.testing.assert_array_equal(best_so_far(POINTS[::-1], maximize=True), best_so_far(POINTS, maximize=True))


def test_without_finished_trials_there_is_no_best() -> None:
    assert best_so_far([], maximize=True).shape == (0, 2)
    assert best_so_far(POINTS[2:5], maximize=True).shape == (0, 2)


def test_the_staircase_goes_on_to_the_last_trial() -> None:
    figure = trial_history([*POINTS, TrialPoint(6, 0.1, "pruned")], metric="final/mAP50-95")
    np.testing.assert_allclose(line(figure, "best"), [[0, 0.4], [1, 0.4], [5, 0.6], [6, 0.6]])


def test_every_kind_of_trial_has_its_markers_and_the_default_its_ring() -> None:
    figure = trial_history(POINTS, metric="m")
    np.testing.assert_allclose(line(figure, "kind:finished"), [[0, 0.4], [1, 0.3], [5, 0.6]])
    np.testing.assert_allclose(line(figure, "kind:infeasible"), [[2, 0.9]])
    np.testing.assert_allclose(line(figure, "kind:pruned"), [[3, 0.8]])
    np.testing.assert_allclose(line(figure, "default"), [[0, 0.4]])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[:2] == ["best so far", "finished (n=3)"]


def test_title_and_axes_name_what_is_drawn_and_what_is_not() -> None:
    figure = trial_history(POINTS, metric="size_mb", maximize=False)
    assert "size_mb of 5 trials" in figure.get_suptitle()
    assert figure.axes[0].get_ylabel() == "size_mb"
    assert figure.get_supxlabel() == "Lower is better. 1 without a value are not drawn."


@pytest.mark.parametrize("points", [[], [TrialPoint(0, nan, "failed")], [TrialPoint(7, 0.5, "pruned")], POINTS[:1]])
def test_few_or_no_values_are_drawn_without_a_warning(points: list[TrialPoint]) -> None:
    assert png_bytes(trial_history(points, metric="final/mAP50-95"), dpi=40)
