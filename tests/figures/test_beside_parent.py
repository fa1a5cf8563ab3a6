import math

from mlflow_yolo.figures.beside_parent import Measure, beside_parent
from mlflow_yolo.figures.encode import png_bytes


def draw(*measures: Measure, parent: str | None = "old"):
    return beside_parent(measures, model="new", parent=parent, about="new: better", reading="Bar: median.")


def test_a_panel_holds_the_model_above_its_parent() -> None:
    figure = draw(Measure("latency [ms]", 5.0, 20.0), Measure("mAP", 0.4, 0.5, less_is_better=False))
    assert [[bar.get_width() for bar in axes.patches] for axes in figure.axes] == [[5.0, 20.0], [0.4, 0.5]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["new", "old"]
    assert figure.axes[0].yaxis_inverted()
    assert [axes.get_xlabel().split("(")[1] for axes in figure.axes] == ["less is better)", "more is better)"]


def test_a_whisker_leads_to_the_higher_value() -> None:
    (axes,) = draw(Measure("latency [ms]", 5.0, 20.0, 6.0, math.nan)).axes
    (line,) = axes.collections
    assert line.get_segments()[0].tolist() == [[5.0, 0.0], [6.0, 0.0]]


def test_one_without_parent_has_one_bar_and_an_unknown_parent_says_so() -> None:
    assert len(draw(Measure("size [MB]", 5.0), parent=None).axes[0].patches) == 1
    (axes,) = draw(Measure("size [MB]", 5.0)).axes
    assert "not known" in [text.get_text() for text in axes.texts]


def test_what_was_not_measured_has_no_panel() -> None:
    assert len(draw(Measure("size [MB]", 5.0), Measure("memory [MB]", math.nan)).axes) == 1
    assert png_bytes(draw(Measure("size [MB]", math.nan))).startswith(b"\x89PNG")


def test_a_measure_of_zero_is_drawn() -> None:
    assert png_bytes(draw(Measure("mAP", 0.0, 0.0))).startswith(b"\x89PNG")
