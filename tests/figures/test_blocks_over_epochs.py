import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.blocks_over_epochs import blocks_over_epochs
from mlflow_yolo.figures.encode import png_bytes


def image(figure: Figure) -> AxesImage:
    return next(found for axes in figure.axes for found in axes.images if found.get_gid() == "values")


def frozen_cells(figure: Figure) -> dict[str, tuple[float, float]]:
    return {p.get_gid(): (p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches}


def test_rows_are_blocks_and_columns_epochs_from_one() -> None:
    values = [[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]]
    figure = blocks_over_epochs(values, blocks=["00-Conv", "01-C3k2"], statistic="weight std", unit="1")
    np.testing.assert_array_equal(image(figure).get_array().filled(-1), [[1, 2, 3], [4, -1, 6]])
    assert image(figure).get_extent() == [0.5, 3.5, 1.5, -0.5]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["00-Conv", "01-C3k2"]
    assert "Light grey: not measured." in figure.get_supxlabel()


def test_a_frozen_block_is_hatched_masked_and_labelled() -> None:
    figure = blocks_over_epochs([[1.0, 2.0], [3.0, 4.0]], blocks=["a", "b"], statistic="s", frozen=[True, False])
    assert frozen_cells(figure) == {"frozen:a": (0.5, 2.5)}
    assert image(figure).get_array().mask.tolist() == [[True, True], [False, False]]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "a · frozen"
    assert figure.axes[0].patches[0].get_hatch()


def test_a_block_frozen_in_some_epochs_is_hatched_there_only() -> None:
    frozen = [[True, False, False]]
    figure = blocks_over_epochs([[1.0, 2.0, 3.0]], blocks=["a"], statistic="s", frozen=frozen, first_epoch=5)
    assert frozen_cells(figure) == {"frozen:a": (4.5, 5.5)}
    assert figure.axes[0].get_yticklabels()[0].get_text() == "a"


def test_several_columns_to_an_epoch_share_its_place_on_the_axis() -> None:
    figure = blocks_over_epochs(
        np.ones((1, 6)), blocks=["a"], statistic="s", first_epoch=4, per_epoch=3, frozen=[[True] * 3 + [False] * 3]
    )
    assert image(figure).get_extent() == [3.5, 5.5, 0.5, -0.5]
    assert frozen_cells(figure) == {"frozen:a": (3.5, 4.5)}
    assert figure.get_suptitle() == "s by block and step"


def test_a_share_that_is_zero_everywhere_is_drawn_on_a_scale_from_zero() -> None:
    norm = image(blocks_over_epochs([[0.0, 0.0]], blocks=["a"], statistic="s")).norm
    assert (norm.vmin, norm.vmax) == (0, 1)


def test_logarithmic_colours_span_the_positive_values_and_zero_takes_the_lowest() -> None:
    figure = blocks_over_epochs([[0.0, 0.01, 10.0]], blocks=["a"], statistic="s", log10=True)
    norm = image(figure).norm
    assert isinstance(norm, LogNorm)
    assert (norm.vmin, norm.vmax) == (0.01, 10.0)
    assert image(figure).get_array().tolist() == [[0.01, 0.01, 10.0]]
    assert "lowest positive" in figure.get_supxlabel()


def test_the_title_names_statistic_unit_and_subject() -> None:
    title = blocks_over_epochs([[1.0]], blocks=["a"], statistic="time", unit="ms", subject="seed 0").get_suptitle()
    assert title == "time by block and epoch [ms]: seed 0"


@pytest.mark.parametrize("log10", [False, True])
@pytest.mark.parametrize("values", [np.empty((0, 0)), np.empty((1, 0)), [[0.0]], [[np.nan]], [[2.0]], [[-1.0]]])
def test_degenerate_tables_are_drawn(values: np.ndarray, log10: bool) -> None:
    figure = blocks_over_epochs(values, blocks=["a"] * len(values), statistic="s", log10=log10)
    assert png_bytes(figure, dpi=40)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 rows for 1"):
        blocks_over_epochs(np.zeros((2, 3)), blocks=["a"], statistic="s")
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        blocks_over_epochs(np.zeros((2, 4)), blocks=["a", "b"], statistic="s", frozen=[True] * 3)
