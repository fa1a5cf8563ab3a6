import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.latency_rounds import latency_rounds


def line(figure: Figure, gid: str):
    return next((found for found in figure.axes[0].lines if found.get_gid() == gid), None)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_every_round_is_a_dot_and_their_median_a_bar() -> None:
    figure = latency_rounds({"a": [10.0, 30.0, 11.0]}, machine="EPYC")
    np.testing.assert_allclose(line(figure, "rounds:a").get_xdata(), [10, 30, 11])
    assert (np.diff(line(figure, "rounds:a").get_ydata()) > 0).all(), "the first round is on top: the axis points down"
    np.testing.assert_allclose(line(figure, "median:a").get_xdata(), [11, 11])
    assert figure.axes[0].yaxis_inverted()


def test_the_fastest_is_at_the_top_and_what_failed_at_the_bottom() -> None:
    figure = latency_rounds({"slow": [20.0], "broken": [], "fast": [10.0]}, machine="EPYC")
    assert labels(figure) == ["fast", "slow", "broken"]
    assert "not measured" in [text.get_text() for text in figure.axes[0].texts]
    assert line(figure, "rounds:broken") is None


def test_linear_scales_begin_at_zero_and_far_values_are_logarithmic() -> None:
    assert latency_rounds({"a": [10.0], "b": [29.0]}, machine="EPYC").axes[0].get_xlim()[0] == 0
    assert latency_rounds({"a": [10.0], "b": [30.0]}, machine="EPYC").axes[0].get_xscale() == "log"


def test_the_reference_is_dotted_and_named() -> None:
    figure = latency_rounds({"a": [10.0, 12.0], "b": [9.0]}, machine="EPYC", reference="a")
    assert any(list(found.get_xdata()) == [11.0, 11.0] and found.get_gid() is None for found in figure.axes[0].lines)
    assert "Dotted: a." in figure.get_supxlabel()
    assert "Dotted" not in latency_rounds({"a": [], "b": [9.0]}, machine="EPYC", reference="a").get_supxlabel()


@pytest.mark.parametrize(
    "rounds", [{}, {"a": []}, {"a": [5.0]}, {f"variant {i}": np.full(10, 5.0 + i) for i in range(15)}]
)
def test_none_one_and_many_are_drawn(rounds) -> None:
    assert png_bytes(latency_rounds(rounds, machine="EPYC"), dpi=40)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 2\)"):
        latency_rounds({"a": [[1.0, 2.0]]}, machine="EPYC")
