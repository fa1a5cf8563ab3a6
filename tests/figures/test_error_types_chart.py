import math

from matplotlib.figure import Figure

from mlflow_yolo.detection.error_types import ERROR_TYPES, SPECIAL_TYPES
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.error_types_chart import LABELS, OVERLAPPING, error_types_chart

GAINS = {"miss": 0.2, "false_positive": 0.3, "cls": 0.01, "loc": math.nan, "mine": 0.1}


def bars(figure: Figure) -> dict[str, float]:
    return {bar.get_gid(): bar.get_width() for bar in figure.axes[0].patches}


def test_the_names_are_those_that_detection_gives_its_types() -> None:
    assert list(LABELS) == [*ERROR_TYPES, *SPECIAL_TYPES]
    assert tuple(SPECIAL_TYPES) == OVERLAPPING


def test_types_stand_in_tides_order_and_others_last() -> None:
    drawn = bars(error_types_chart(GAINS, split="test"))
    assert list(drawn) == ["delta:cls", "delta:loc", "delta:miss", "delta:false_positive", "delta:mine"]
    assert (drawn["delta:miss"], drawn["delta:cls"]) == (0.2, 0.01)


def test_gains_are_written_beside_their_bars_and_a_missing_one_is_a_dash() -> None:
    texts = [text.get_text() for text in error_types_chart(GAINS, split="test").axes[0].texts]
    assert texts == ["+0.010", "\N{EN DASH}", "+0.200", "+0.300", "+0.100"]


def test_types_that_overlap_the_others_are_grey() -> None:
    figure = error_types_chart(GAINS, split="test")
    colors = {bar.get_gid(): bar.get_facecolor() for bar in figure.axes[0].patches}
    assert colors["delta:false_positive"] != colors["delta:miss"] == colors["delta:cls"]


def test_counts_and_the_present_ap_are_written() -> None:
    figure = error_types_chart(GAINS, split="test", counts={"miss": 40}, ap=0.63)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[2] == "Miss: not found (40)"
    assert "(" not in labels[0]
    assert "AP50 now 0.630" in figure.get_suptitle().replace("\n", " ")


def test_a_loss_is_drawn_to_the_left() -> None:
    figure = error_types_chart({"cls": -0.02, "loc": 0.1}, split="test")
    assert figure.axes[0].get_xlim()[0] < -0.02
    assert [text.get_text() for text in figure.axes[0].texts] == ["\N{MINUS SIGN}0.020", "+0.100"]


def test_nothing_and_nothing_measured_are_drawn() -> None:
    assert "no errors" in error_types_chart({}, split="test").axes[0].texts[0].get_text()
    assert png_bytes(error_types_chart(dict.fromkeys(LABELS, math.nan), split="test", ap=math.nan), dpi=40)
