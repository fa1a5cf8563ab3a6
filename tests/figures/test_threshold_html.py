import json
import re

import numpy as np
import pytest

from mlflow_yolo.figures.threshold_html import threshold_html, threshold_plot
from mlflow_yolo.figures.threshold_surface import Heat

VALUES = np.array([[0.1, 0.2], [0.3, np.nan]])
HEATS = {"f1": Heat(VALUES, "F1 <b>"), "cost": Heat(VALUES + 5, "cost/image", "low")}
SETTING = {"confs": [0.2, 0.4], "ious": [0.5, 0.7], "split": "val of </script><script>alert(1)</script>"}


@pytest.fixture(scope="module")
def page() -> str:
    return threshold_html(HEATS, **SETTING, point=(0.33, 0.7))


def test_the_page_needs_no_network_and_sends_nothing(page: str) -> None:
    assert len(page) > 1_000_000, "plotly's script is inside"
    assert not re.search(r"<script[^>]*\ssrc=", page)
    assert "<link" not in page
    config = json.loads(re.search(r'\{"[^{}]*"showSendToCloud"[^{}]*\}|\{[^{}]*"showSendToCloud"[^{}]*\}', page)[0])
    assert config["showSendToCloud"] is False


def test_names_are_text_and_not_markup(page: str) -> None:
    assert "alert(1)</script>" not in page
    labels = [button.label for button in threshold_plot(HEATS, **SETTING).layout.updatemenus[0].buttons]
    assert labels == ["F1 &lt;b&gt;", "cost/image"]


def test_one_map_is_seen_and_its_button_shows_another_with_the_point() -> None:
    figure = threshold_plot(HEATS, **SETTING, point=(0.33, 0.7), first="cost")
    assert [trace.visible for trace in figure.data] == [False, True, None]
    assert figure.layout.updatemenus[0].active == 1
    assert figure.layout.updatemenus[0].buttons[0].args[0]["visible"] == [True, False, True]
    assert (figure.data[2].x, figure.data[2].y) == ((0.33,), (0.7,))


def test_hovering_tells_every_measure_of_a_cell() -> None:
    heat = threshold_plot(HEATS, **SETTING).data[0]
    np.testing.assert_allclose(np.array(heat.z, dtype=float), VALUES)
    np.testing.assert_allclose(np.array(heat.customdata, dtype=float)[0, 1], [0.2, 5.2])
    assert "%{customdata[1]:.4g}" in heat.hovertemplate


def test_low_costs_are_light() -> None:
    assert [trace.reversescale for trace in threshold_plot(HEATS, **SETTING).data] == [False, True]


def test_nothing_to_draw_says_so() -> None:
    assert "no thresholds" in threshold_plot({}, **SETTING).layout.annotations[-1].text
