"""Several plots to be read with the mouse on one page: one HTML file without a network, the library in it once."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlflow_yolo.figures import style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 520
"""Pixels of a plot that does not say its own."""

_STYLE = f"""
body {{ margin: 1.5rem auto; max-width: 1200px; padding: 0 1rem; color: {style.INK};
        font: 15px/1.5 "DejaVu Sans", Verdana, sans-serif; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1.05rem; margin: 2.2rem 0 0.3rem; }}
nav a {{ margin-right: 1.2rem; }} a {{ color: inherit; }}
"""


def interactive_page(title: str, figures: Mapping[str, "Figure"]) -> str:
    """Return plots below one another as one HTML document with its script inside, some 5 MB.

    Args:
        title: The page's title.
        figures: Plotly figures by name, in the order of the page; they are left as they are.
    """
    headings = {name: html.escape(name[:1].upper() + name[1:]) for name in figures}
    links = "".join(f'<a href="#plot-{i}">{heading}</a>' for i, heading in enumerate(headings.values()))
    sections = [
        f'<section id="plot-{i}"><h2>{headings[name]}</h2>{_plot(figure, is_first=i == 0)}</section>'
        for i, (name, figure) in enumerate(figures.items())
    ]
    body = "\n".join(sections) or "<p>There is nothing to draw yet.</p>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}\n</body></html>"
    )


def _plot(figure: "Figure", *, is_first: bool) -> str:
    """Return the part of the page that draws one figure; the first one brings the library along."""
    import plotly.graph_objects as plotly

    drawn = plotly.Figure(figure)
    drawn.update_layout(
        template="plotly_white",
        font={"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": style.INK},
        title={"x": 0.01, "xanchor": "left", "font": {"size": 14}},
        height=figure.layout.height or HEIGHT,
    )
    options = {"displaylogo": False, "responsive": True, "showSendToCloud": False}  # no click uploads the data
    return str(drawn.to_html(full_html=False, include_plotlyjs=is_first, include_mathjax=False, config=options))
