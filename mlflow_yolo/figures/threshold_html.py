"""The heat maps of `figures.threshold_surface` to be read with the mouse: one HTML file without a network."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats
from mlflow_yolo.figures.threshold_surface import Heat

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDTH, HEIGHT = 1000, 640


def threshold_html(
    heats: Mapping[str, Heat],
    *,
    confs: npt.ArrayLike,
    ious: npt.ArrayLike,
    split: str,
    point: tuple[float, float] | None = None,
    first: str | None = None,
) -> str:
    """Return the page as one HTML document with its script inside, some 5 MB.

    Args:
        heats: By name, as for `figures.threshold_surface`, like the next four.
        confs: Confidences.
        ious: Overlaps of suppression.
        split: Split it was measured on.
        point: Confidence and overlap that were chosen.
        first: Name of the map that is seen before a button is pressed; None for the first.
    """
    figure = threshold_plot(heats, confs=confs, ious=ious, split=split, point=point, first=first)
    options = {"displaylogo": False, "showSendToCloud": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    return str(figure.to_html(include_plotlyjs=True, include_mathjax=False, full_html=True, config=options))


def threshold_plot(
    heats: Mapping[str, Heat],
    *,
    confs: npt.ArrayLike,
    ious: npt.ArrayLike,
    split: str,
    point: tuple[float, float] | None = None,
    first: str | None = None,
) -> "Figure":
    """Return the plotly figure of `threshold_html`: a map a measure, of which one is seen, and the chosen point."""
    import plotly.graph_objects as plotly

    x, y = as_floats(confs, ndim=1, what="confs"), as_floats(ious, ndim=1, what="ious")
    names = list(heats)
    seen = names.index(first) if first is not None and first in heats else 0
    figure = plotly.Figure(layout=_layout(split))
    if not names or not len(x) or not len(y):
        figure.add_annotation(text="There are no thresholds to draw.", showarrow=False)
        return figure
    every = np.stack([as_floats(heat.values, ndim=2, what=heat.label) for heat in heats.values()], axis=-1)
    lines = [f"{html.escape(heat.label)}: %{{customdata[{i}]:.4g}}" for i, heat in enumerate(heats.values())]
    hover = "<b>conf %{x:g}, IoU %{y:g}</b><br>" + "<br>".join(lines) + "<extra></extra>"
    for i, heat in enumerate(heats.values()):
        figure.add_trace(
            plotly.Heatmap(
                x=x.tolist(),
                y=y.tolist(),
                z=every[..., i].tolist(),
                customdata=every.tolist(),
                hovertemplate=hover,
                colorscale="Greys" if heat.good == "neither" else "Viridis",
                # Plotly's greys begin with black.
                reversescale=heat.good != "high",
                visible=i == seen,
                name=html.escape(heat.label),
            )
        )
    if point is not None:
        ring = {"symbol": "circle-open", "size": 16, "color": "white", "line": {"width": 3}}
        text = f"<b>chosen: conf {point[0]:g}, IoU {point[1]:g}</b><extra></extra>"
        figure.add_trace(
            plotly.Scatter(
                x=[point[0]], y=[point[1]], mode="markers", marker=ring, hovertemplate=text, showlegend=False
            )
        )
    figure.update_layout(updatemenus=[_buttons(heats, n_points=int(point is not None), active=seen)])
    return figure


def _buttons(heats: Mapping[str, Heat], *, n_points: int, active: int) -> dict[str, Any]:
    buttons = [
        {
            "label": html.escape(heat.label),
            "method": "restyle",
            "args": [{"visible": [j == i for j in range(len(heats))] + [True] * n_points}],
        }
        for i, heat in enumerate(heats.values())
    ]
    return {"buttons": buttons, "active": active, "x": 1.0, "xanchor": "right", "y": 1.12, "yanchor": "bottom"}


def _layout(split: str) -> dict[str, Any]:
    title = f"<b>Every threshold on {html.escape(split)}</b>"
    axis = {"ticks": "outside", "zeroline": False, "showgrid": False}
    return {
        "title": {"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "width": WIDTH,
        "height": HEIGHT,
        "margin": {"l": 80, "r": 40, "t": 110, "b": 70},
        "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": style.INK},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "xaxis": {"title": {"text": "confidence above"}, **axis},
        "yaxis": {"title": {"text": "IoU of suppression"}, **axis},
    }
