import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.confused_pairs_chart import confused_pairs_chart
from mlflow_yolo.figures.encode import png_bytes

COLUMNS = ["true", "predicted", "count", "n_true", "rate", "low", "high"]


def pairs(rows: list[list]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


TABLE = pairs([["cat", "dog", 6, 20, 0.3, 0.14, 0.52], ["owl", "cat", 6, 40, 0.15, 0.07, 0.29]])


def labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_pairs_stand_in_the_tables_order_with_their_rate_and_interval() -> None:
    figure = confused_pairs_chart(TABLE, split="val")
    assert labels(figure) == ["cat → dog (6 of 20)", "owl → cat (6 of 40)"]
    (points,) = [line for line in figure.axes[0].lines if line.get_gid() == "rate"]
    assert points.get_xydata().tolist() == [[0.3, 0], [0.15, 1]]
    segments = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(segments, [[[0.14, 0], [0.52, 0]], [[0.07, 1], [0.29, 1]]])
    assert figure.axes[0].yaxis_inverted()
    assert figure.axes[0].get_xlim() == pytest.approx((0, 0.5512))


def test_only_the_first_pairs_are_drawn_and_the_others_counted() -> None:
    figure = confused_pairs_chart(TABLE, split="val", most=1)
    assert labels(figure) == ["cat → dog (6 of 20)"]
    assert "1 of 2 pairs" in figure.get_supxlabel()
    assert "pairs." not in confused_pairs_chart(TABLE, split="val").get_supxlabel()


def test_long_and_strange_names_are_drawn() -> None:
    table = pairs([["a very long name of a class <0>", "$x$\n", 3, 3, 1.0, 0.4, 1.0]])
    figure = confused_pairs_chart(table, split="val")
    assert png_bytes(figure, dpi=40)
    assert len(labels(figure)[0]) < 50
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1.02)


def test_no_pairs_are_said() -> None:
    figure = confused_pairs_chart(pairs([]), split="val")
    assert png_bytes(figure, dpi=40)
    assert "No pair" in figure.axes[0].texts[0].get_text()


def test_a_table_without_a_column_is_refused() -> None:
    with pytest.raises(ShapeError, match="'rate'"):
        confused_pairs_chart(TABLE.drop(columns="rate"), split="val")
