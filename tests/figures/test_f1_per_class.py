import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.f1_per_class import f1_per_class


def dots(figure: Figure, name: str):
    return next(line for line in figure.axes[0].lines if line.get_gid() == f"mean:{name}")


def classes(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_classes_run_from_the_highest_mean_to_the_lowest_those_without_value_last() -> None:
    figure = f1_per_class(
        {"0": [[0.2, np.nan, 0.8, 0.5]], "10": [[0.4, np.nan, 0.6, 0.5]]}, names=["a", "b", "c", "d"], split="test"
    )
    assert classes(figure) == ["c", "d", "a", "b"]
    np.testing.assert_allclose(dots(figure, "0").get_xdata(), [0.8, 0.5, 0.2, np.nan])


def test_dots_are_means_and_bars_span_the_seeds() -> None:
    figure = f1_per_class({"0": [[0.2], [0.6]]}, names=["a"], split="test")
    np.testing.assert_allclose(dots(figure, "0").get_xdata(), [0.4])
    (bar,) = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(bar[:, 0], [0.2, 0.6])


def test_dots_of_configurations_stand_apart_within_their_class() -> None:
    figure = f1_per_class({str(i): [[0.5, 0.5]] for i in range(10)}, names=["a", "b"], split="test")
    places = np.array([dots(figure, str(i)).get_ydata() for i in range(10)])
    assert (np.diff(places, axis=0) > 0).all()
    assert (np.abs(places - [0, 1]) < 0.5).all()


def test_of_many_classes_the_forty_with_the_largest_spread_are_drawn() -> None:
    base = np.full(100, 0.5)
    other = base.copy()
    other[60:] += 0.1  # exactly the last 40 differ
    figure = f1_per_class({"0": [base], "10": [other]}, names=[f"class {i}" for i in range(100)], split="test")
    assert set(classes(figure)) == {f"class {i}" for i in range(60, 100)}
    assert "40 of 100 classes" in figure.get_supxlabel()


def test_true_objects_are_written_beside_the_name() -> None:
    assert classes(f1_per_class({"0": [[0.5]]}, names=["a"], split="test", n_objects=[12])) == ["a (12)"]


@pytest.mark.parametrize("scores", [{}, {"0": np.empty((1, 0))}])
def test_no_classes_or_configurations_are_said(scores: dict) -> None:
    figure = f1_per_class(scores, names=[], split="test")
    assert png_bytes(figure, dpi=40)
    assert "no classes" in figure.axes[0].texts[0].get_text()


def test_scores_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 classes for 2 names"):
        f1_per_class({"0": np.zeros((1, 3))}, names=["a", "b"], split="test")
    with pytest.raises(ShapeError, match="n_objects"):
        f1_per_class({"0": np.zeros((1, 2))}, names=["a", "b"], split="test", n_objects=[1])
