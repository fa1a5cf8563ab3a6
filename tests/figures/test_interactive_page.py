import re

import plotly.graph_objects as plotly

from mlflow_yolo.figures.interactive_page import HEIGHT, interactive_page


def scatter(name: str = "values", **layout: object) -> plotly.Figure:
    return plotly.Figure(plotly.Scatter(x=[0, 1], y=[0.25, 0.75], name=name), layout=layout)


def test_the_library_is_in_the_page_once_whatever_the_number_of_plots() -> None:
    one, three = (interactive_page("t", {f"p{i}": scatter() for i in range(n)}) for n in (1, 3))
    assert len(one) > 3e6  # the library itself
    assert len(three) - len(one) < 50_000


def test_the_page_needs_no_network() -> None:
    page = interactive_page("t", {"history": scatter()})
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert '"showSendToCloud": false' in page


def test_plots_stand_in_order_under_their_names() -> None:
    page = interactive_page("How it went", {"history": scatter(), "slices of size_mb": scatter()})
    assert "<title>How it went</title>" in page
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["History", "Slices of size_mb"]
    assert re.findall(r'<a href="#(.*?)">(.*?)</a>', page.partition("<section")[0]) == [
        ("plot-0", "History"),
        ("plot-1", "Slices of size_mb"),
    ]
    assert page.index('<section id="plot-0">') < page.index('<section id="plot-1">')


def test_nothing_in_a_name_a_title_or_a_value_is_taken_for_markup() -> None:
    hostile = "</script><script>alert(1)</script>"
    page = interactive_page(f"a {hostile}", {f"b {hostile}": scatter(f"c {hostile}", title={"text": hostile})})
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page


def test_a_plot_keeps_its_own_height_and_title_and_is_left_as_it_was() -> None:
    figure = scatter(height=300, title={"text": "what it says"})
    page = interactive_page("t", {"history": figure})
    assert '"height":300' in page
    assert "what it says" in page
    assert figure.layout.template.layout.plot_bgcolor != "white"
    assert figure.layout.font.size is None
    assert f'"height":{HEIGHT}' in interactive_page("t", {"history": scatter()})


def test_a_page_without_plots_says_so() -> None:
    page = interactive_page("t", {})
    assert "nothing to draw yet" in page
    assert len(page) < 5000
