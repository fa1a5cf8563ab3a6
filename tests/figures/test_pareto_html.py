import json
import re

import numpy as np
import pytest

from mlflow_yolo.figures.pareto import Point
from mlflow_yolo.figures.pareto_html import HEIGHT, WIDTH, pareto_html, pareto_plot

SETTING = {"metric": "mAP50-95", "split": "test", "machine": "EPYC, 1 thread"}
POINTS = [
    Point("a & <b>", 20.0, 0.42, 10.0, "ONNX Runtime"),
    Point("</script><script>alert(1)</script>", 10.0, 0.40, 5.0, "OpenVINO"),
    Point("slow", 80.0, 0.41, float("nan"), "OpenVINO"),
    Point("broken", float("nan"), 0.4),
]


@pytest.fixture(scope="module")
def page() -> str:
    return pareto_html(POINTS, **SETTING, reference="a & <b>")


def test_the_page_needs_no_network_and_sends_nothing(page: str) -> None:
    assert len(page) > 1_000_000, "plotly's script is inside"
    assert not re.search(r"<script[^>]*\ssrc=", page)
    assert "<link" not in page
    config = json.loads(re.search(r'\{"[^{}]*"displaylogo"[^{}]*\}|\{[^{}]*"displaylogo"[^{}]*\}', page)[0])
    assert config["showSendToCloud"] is False
    assert not config.get("plotlyServerURL")


def test_names_are_text_and_not_markup(page: str) -> None:
    assert "alert(1)</script>" not in page
    assert page.count("</script>") == len(re.findall(r"<script", page))
    texts = [note.text for note in pareto_plot(POINTS, **SETTING).layout.annotations]
    assert "a &amp; &lt;b&gt;" in texts


def test_every_variant_has_its_values_to_hover_over() -> None:
    figure = pareto_plot(POINTS, **SETTING)
    shown = {text: (x, y) for t in figure.data if t.text for text, x, y in zip(t.text, t.x, t.y, strict=True)}
    assert set(shown.values()) == {(20.0, 0.42), (10.0, 0.40), (80.0, 0.41)}
    assert any("0.4200<br>20 ms<br>10 MB" in text for text in shown)
    assert any("0.4100<br>80 ms" in text and "MB" not in text for text in shown)
    assert "Not measured: broken." in figure.layout.annotations[0].text


def test_the_front_is_a_trace_of_its_own() -> None:
    front = pareto_plot(POINTS, **SETTING).data[0]
    assert front.name == "Pareto front"
    np.testing.assert_allclose(front.x, [10, 20, 20])
    np.testing.assert_allclose(front.y, [0.40, 0.40, 0.42])


def test_marker_areas_are_in_proportion_to_sizes() -> None:
    data = pareto_plot(POINTS, **SETTING).data
    diameters = {trace.text[0].split("<")[1][2:]: trace.marker.size[0] for trace in data if trace.text}
    assert diameters["a &amp; &lt;b&gt;"] ** 2 == pytest.approx(2 * data[4].marker.size[0] ** 2)


def test_names_stay_in_the_page() -> None:
    figure = pareto_plot(POINTS, **SETTING)
    assert (figure.layout.width, figure.layout.height) == (WIDTH, HEIGHT)
    names = [note for note in figure.layout.annotations if note.showarrow]
    assert len(names) == 3
    assert all(abs(note.ax) < WIDTH / 2 and abs(note.ay) < HEIGHT / 2 for note in names)


def test_nothing_to_draw_says_so() -> None:
    assert "No variant has" in pareto_plot([], **SETTING).layout.annotations[-1].text
