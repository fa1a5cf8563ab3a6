import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.widths import widths


def test_bars_are_the_widths_before_and_after() -> None:
    figure = widths(["00-Conv", "11-Upsample", "23-Detect"], [100, 0, 40], [70, 0, 40], title="Pruned")
    before, after = figure.axes[0].containers
    assert [bar.get_width() for bar in before] == [100, 40]
    assert [bar.get_width() for bar in after] == [70, 40]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["00-Conv", "23-Detect"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["70 (\N{MINUS SIGN}30 %)", "40 (unchanged)"]
    assert figure.get_suptitle().startswith("Pruned: 140 channels to 110 (\N{MINUS SIGN}21 %)")


def test_a_block_that_is_gone_is_drawn() -> None:
    figure = widths(["a"], [10], [0], title="Pruned")
    assert figure.axes[0].texts[0].get_text() == "0 (\N{MINUS SIGN}100 %)"


def test_nothing_is_drawn_as_nothing() -> None:
    assert png_bytes(widths([], [], [], title="Pruned"), dpi=40)
    assert png_bytes(widths(["Concat"], [0], [0], title="Pruned"), dpi=40)


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 blocks, 1 and 2 widths"):
        widths(["a", "b"], [1], [1, 2], title="Pruned")
