import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.histogram_ridges import histogram_ridges, signed_shares


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_gid(): axes for axes in figure.axes if axes.get_visible()}


def counts(n_epochs: int, n_blocks: int) -> np.ndarray:
    return np.zeros((n_epochs, n_blocks, 2, 64))


def test_signs_and_powers_stand_on_their_sides_of_the_middle() -> None:
    table = counts(1, 1)
    table[0, 0, 0, 40] = 1  # one value in (-2, -1]
    table[0, 0, 1, 40] = 2  # two in [1, 2)
    table[0, 0, 1, 38] = 1  # one in [1/4, 1/2)
    axes = panels(histogram_ridges(table, blocks=["00-Conv"]))["block:00-Conv"]
    (ridge,) = axes.lines
    heights = dict(zip(ridge.get_xdata(), ridge.get_ydata(), strict=True))
    assert {x for x, y in heights.items() if y > 0} == {-3, 3, 1}  # bin 37, one below the lowest, is the middle
    assert heights[3] == pytest.approx(2 * heights[-3])
    assert heights[1] == pytest.approx(heights[-3])
    ticks = dict(zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels()), strict=True))
    assert ticks[0] == "0"
    assert ticks[4] == "2¹"


def test_magnitudes_too_small_for_the_axis_are_gathered_in_the_middle() -> None:
    table = counts(1, 1)
    table[0, 0, :, 40] = 40
    table[0, 0, :, 0] = 10  # the lowest bin, which would stretch the axis to 2^-40
    (ridge,) = panels(histogram_ridges(table, blocks=["a"]))["block:a"].lines
    heights = dict(zip(ridge.get_xdata(), ridge.get_ydata(), strict=True))
    assert len(heights) < 10
    assert heights[0] == pytest.approx(heights[1] / 2)  # 20 of both signs against 40 of one


def test_heights_are_shares_so_that_the_number_of_values_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    table = counts(3, 2)
    table[..., 30:40] = rng.integers(1, 9, (3, 2, 2, 10))
    small, large = (panels(histogram_ridges(t, blocks=["a", "b"]))["block:b"].lines for t in (table, table * 1000))
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(one.get_ydata(), other.get_ydata())


def test_at_most_ten_epochs_are_drawn_the_first_and_last_among_them() -> None:
    table = counts(57, 1)
    table[..., 35] = 1
    ridges = panels(histogram_ridges(table, blocks=["a"], epochs=range(3, 60)))["block:a"].lines
    gids = [ridge.get_gid() for ridge in ridges]
    assert len(gids) == 10
    assert (gids[0], gids[-1]) == ("epoch:3", "epoch:59")
    assert ridges[0].get_ydata()[0] > ridges[-1].get_ydata()[0]  # the first at the back, that is higher up


def test_blocks_without_values_are_left_out_and_many_blocks_are_those_that_changed() -> None:
    table = counts(2, 30)
    table[:, 1:, :, 35] = 1
    table[1, 6:, :, 36] = 1  # blocks 6 to 29 change
    figure = histogram_ridges(table, blocks=[f"b{i}" for i in range(30)])
    assert list(panels(figure)) == [f"block:b{i}" for i in range(6, 30)]
    assert "24 of 29 blocks" in figure.get_supxlabel()


@pytest.mark.parametrize("table", [counts(0, 1), counts(1, 0), counts(2, 2), np.full((1, 1, 2, 64), np.nan)])
def test_nothing_to_draw_is_said(table: np.ndarray) -> None:
    figure = histogram_ridges(table, blocks=["a"] * table.shape[1])
    assert png_bytes(figure, dpi=40)
    assert "no weights" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("bin_", [0, 1, 63])
def test_values_in_the_outermost_bins_alone_are_drawn(bin_: int) -> None:
    table = counts(1, 1)
    table[..., bin_] = 1
    figure = histogram_ridges(table, blocks=["a"])
    assert png_bytes(figure, dpi=40)
    assert max(panels(figure)["block:a"].lines[0].get_ydata()) > 0


def test_counts_that_do_not_fit_the_blocks_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 blocks"):
        histogram_ridges(counts(1, 3), blocks=["a", "b"])
    with pytest.raises(ShapeError, match="2 epochs"):
        histogram_ridges(counts(1, 1), blocks=["a"], epochs=[1, 2])


def test_shares_of_several_histograms_stand_on_one_axis() -> None:
    table = counts(1, 2)
    table[0, 0, 1, 41] = 3  # three in [2, 4)
    table[0, 1, 0, 39] = 1  # one in (-1, -1/2]
    table[0, 1, 1, 0] = 1  # one too small to count
    shares, lowest, highest = signed_shares(table)
    assert (lowest, highest) == (-2, 2)
    assert shares[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert shares[0, 1].tolist() == [0, 0, 0, 0.5, 0.5, 0, 0, 0, 0]


def test_blocks_without_values_because_they_were_frozen_are_named() -> None:
    table = counts(1, 1)
    table[..., 35] = 1
    few = histogram_ridges(table, blocks=["a"], frozen=["00-Conv", "01-C3k2"])
    assert "Frozen, not drawn: 00-Conv, 01-C3k2." in " ".join(few.get_supxlabel().split())
    many = histogram_ridges(table, blocks=["a"], frozen=[f"{i:02d}-Conv" for i in range(10)])
    assert "02-Conv and 7 more." in " ".join(many.get_supxlabel().split())
    assert "Frozen" not in histogram_ridges(table, blocks=["a"]).get_supxlabel()
