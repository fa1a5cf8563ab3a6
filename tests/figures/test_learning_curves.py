import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.learning_curves import learning_curves


def line(figure: Figure, gid: str):
    return next(found for found in figure.axes[0].lines if found.get_gid() == gid)


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_line_is_the_mean_over_seeds_from_epoch_one() -> None:
    figure = learning_curves({"0": [[0.1, 0.4], [0.3, 0.2]]}, metric="mAP50-95", split="val")
    np.testing.assert_allclose(line(figure, "mean:0").get_xdata(), [1, 2])
    np.testing.assert_allclose(line(figure, "mean:0").get_ydata(), [0.2, 0.3])


def test_the_band_spans_lowest_to_highest_seed() -> None:
    figure = learning_curves({"0": [[0.1, 0.4], [0.3, 0.2]]}, metric="mAP50-95", split="val")
    vertices = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(np.round(v, 6)) for v in vertices} == {(1, 0.1), (1, 0.3), (2, 0.2), (2, 0.4)}


def test_a_seed_that_ended_early_is_left_out_of_the_mean() -> None:
    figure = learning_curves({"0": [[0.2, np.nan], [0.4, 0.6]]}, metric="m", split="val")
    np.testing.assert_allclose(line(figure, "mean:0").get_ydata(), [0.3, 0.6])
    assert legend_texts(figure) == ["0 (n=2)"]


@pytest.mark.parametrize(
    "curves", [{}, {"0": [[0.5]]}, {"0": np.empty((0, 3))}, {"0": np.full((2, 4), np.nan)}, {"0": np.empty((1, 0))}]
)
def test_single_epochs_and_missing_values_are_drawn_without_a_warning(curves: dict) -> None:
    assert png_bytes(learning_curves(curves, metric="m", split="val"), dpi=40)


def test_title_and_axes_name_metric_split_and_unit() -> None:
    figure = learning_curves({"0": [[1.0]]}, metric="box loss", split="train", unit="nats")
    assert "box loss on train" in figure.get_suptitle()
    assert figure.axes[0].get_ylabel() == "box loss [nats]"
    assert figure.axes[0].get_xlabel() == "epoch"


def test_names_that_look_like_mathtext_or_start_with_an_underscore_stay() -> None:
    figure = learning_curves({"_a": [[1.0]], r"$\x$": [[2.0]]}, metric="m", split="val")
    assert png_bytes(figure, dpi=40)
    assert legend_texts(figure) == ["_a (n=1)", r"$\x$ (n=1)"]


def test_one_dimension_is_refused() -> None:
    with pytest.raises(ShapeError, match="'10'"):
        learning_curves({"10": [0.1, 0.2]}, metric="m", split="val")
