"""The scatter of `figures.pareto` to be read with the mouse: values on hover, zoom, one HTML file without a network."""

import html
from collections.abc import Sequence
from math import isfinite, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_yolo.figures import style
from mlflow_yolo.figures.label_places import place_labels
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.pareto import (
    Point,
    areas,
    front_path,
    group_colors,
    is_logarithmic,
    limits,
    pareto_front,
    ticks,
)
from mlflow_yolo.figures.seed_range import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDTH, HEIGHT = 1000, 640
"""Pixels; fixed, because the places of the names are reckoned for it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 190, 60, 110
_TEXT_PX = 12.0
_PX_PER_POINT = 96 / 72
_FAR_PX = 10.0


def pareto_html(points: Sequence[Point], *, metric: str, split: str, machine: str, reference: str | None = None) -> str:
    """Return the interactive scatter as one HTML document with its script inside, some 5 MB.

    Args:
        points: As for `figures.pareto.pareto`, like the other arguments.
        metric: Name of the accuracy.
        split: Split it was measured on.
        machine: On what the latency was measured.
        reference: Name of the variant through which guides are drawn.
    """
    figure = pareto_plot(points, metric=metric, split=split, machine=machine, reference=reference)
    options = {
        "displaylogo": False,
        "responsive": False,
        "showSendToCloud": False,  # or a click would upload the data
        "modeBarButtonsToRemove": ["select2d", "lasso2d"],
    }
    return str(figure.to_html(include_plotlyjs=True, include_mathjax=False, full_html=True, config=options))


def pareto_plot(
    points: Sequence[Point], *, metric: str, split: str, machine: str, reference: str | None = None
) -> "Figure":
    """Return the plotly figure of `pareto_html`: a trace for the front, then two a group: its sign and its points."""
    import plotly.graph_objects as plotly

    drawn = [one for one in points if one.drawable]
    front = pareto_front(drawn)
    figure = plotly.Figure(layout=_layout(points, metric, split, machine))
    if not drawn:
        figure.add_annotation(text="No variant has both an accuracy and a latency.", showarrow=False)
        return figure
    corners = front_path(drawn, front)
    line = {"color": style.INK, "width": 1.5}
    figure.add_trace(
        plotly.Scatter(x=corners[:, 0], y=corners[:, 1], mode="lines", name="Pareto front", line=line, hoverinfo="skip")
    )
    diameters = 2 * np.sqrt(areas(drawn) / np.pi) * _PX_PER_POINT
    for group, color in group_colors(drawn).items():
        legend = {"marker": {"color": color, "size": 10}, "name": _safe(group), "legendgroup": group or "variants"}
        if group:
            figure.add_trace(plotly.Scatter(x=[None], y=[None], mode="markers", **legend))
        members = [i for i, one in enumerate(drawn) if one.group == group]
        figure.add_trace(
            plotly.Scatter(
                x=[drawn[i].latency_ms for i in members],
                y=[drawn[i].accuracy for i in members],
                mode="markers",
                name=_safe(group),
                legendgroup=group or "variants",
                showlegend=False,
                text=[_values(drawn[i], metric) for i in members],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "size": [float(diameters[i]) for i in members],
                    "color": color,
                    "opacity": [1.0 if front[i] else 0.4 for i in members],
                    "line": {"color": style.INK, "width": [1.5 if front[i] else 0.0 for i in members]},
                },
            )
        )
    _set_axes(figure, drawn, metric, split)
    _add_guides(figure, next((one for one in drawn if one.name == reference), None))
    _add_names(figure, drawn, front, diameters / 2)
    return figure


def _layout(points: Sequence[Point], metric: str, split: str, machine: str) -> dict[str, Any]:
    missing = [_safe(one.name) for one in points if not one.drawable]
    reading = "Upper left is better. Area of a marker: size of the file. Outlined: on the Pareto front."
    if missing:
        reading += f"<br>Not measured: {', '.join(missing)}."
    title = f"<b>{_safe(metric)} on {_safe(split)} against latency, {_safe(machine)}</b>"
    return {
        "title": {"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "width": WIDTH,
        "height": HEIGHT,
        "margin": {"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": _BOTTOM, "autoexpand": False},
        "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": _TEXT_PX, "color": style.INK},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "legend": {"itemsizing": "constant", "x": 1.01, "xanchor": "left", "y": 1.0},
        "annotations": [
            {"text": reading, "showarrow": False, "align": "left", "xref": "paper", "yref": "paper", "x": 0.0, "y": 0.0,
             "xanchor": "left", "yanchor": "top", "yshift": -60, "font": {"size": 11, "color": style.QUIET}}
        ],
    }  # fmt: skip


def _set_axes(figure: "Figure", points: Sequence[Point], metric: str, split: str) -> None:
    (left, right), (bottom, top) = limits(points)
    look = {"gridcolor": style.GRID, "linecolor": "#9a9a9a", "ticks": "outside", "zeroline": False, "showline": True}
    figure.update_xaxes(title="median latency of one image [ms]", **look)
    figure.update_yaxes(title=f"{_safe(metric)} on {_safe(split)}", range=[bottom, top], **look)
    if is_logarithmic(points):
        places = ticks(left, right)
        texts = [f"{place:g}" for place in places]
        figure.update_xaxes(type="log", range=[log10(left), log10(right)], tickvals=places, ticktext=texts)
    else:
        figure.update_xaxes(range=[left, right])


def _add_guides(figure: "Figure", reference: Point | None) -> None:
    if reference is not None:
        line = {"color": style.QUIET, "width": 1, "dash": "dot"}
        figure.add_vline(reference.latency_ms, line=line, layer="below")
        figure.add_hline(reference.accuracy, line=line, layer="below")


def _add_names(figure: "Figure", points: Sequence[Point], front: Sequence[bool], radii: Floats) -> None:
    """Write the names where they hide nothing as long as nobody zooms."""
    order = sorted(range(len(points)), key=lambda i: (not front[i], points[i].latency_ms))
    places = _pixels(np.array([(points[i].latency_ms, points[i].accuracy) for i in order]), points)
    names = [legible(points[i].name, longest=style.LONGEST_NAME) for i in order]
    sizes = np.array([(0.6 * _TEXT_PX * len(name) + 4, 1.4 * _TEXT_PX) for name in names])
    frame = (0.0, 0.0, float(WIDTH - _LEFT - _RIGHT), float(HEIGHT - _TOP - _BOTTOM))
    line = _pixels(front_path(points, front), points)
    centres = place_labels(places, radii[order], sizes, frame, line=line)
    for i, name, place, centre, size in zip(order, names, places, centres, sizes, strict=True):
        nearest = np.clip(place, centre - size / 2, centre + size / 2)
        is_far = float(np.linalg.norm(nearest - place)) - float(radii[i]) > _FAR_PX
        x = points[i].latency_ms
        figure.add_annotation(
            text=html.escape(name),
            x=log10(x) if is_logarithmic(points) else x,
            y=points[i].accuracy,
            ax=float(centre[0] - place[0]),
            ay=float(place[1] - centre[1]),  # down is positive there
            showarrow=True,
            arrowhead=0,
            arrowwidth=1 if is_far else 0.1,
            arrowcolor="#9a9a9a" if is_far else "rgba(0,0,0,0)",
            standoff=float(radii[i]),
            font={"size": _TEXT_PX, "color": style.INK if front[i] else style.QUIET},
            bgcolor="rgba(255,255,255,0.6)",
            borderpad=0,
        )


def _pixels(values: Floats, points: Sequence[Point]) -> Floats:
    """Return where values (N, 2) lie in the frame, pixels from its lower left corner."""
    (left, right), (bottom, top) = limits(points)
    x, ends = values[:, 0], (left, right)
    if is_logarithmic(points):
        x, ends = np.log10(x), (log10(left), log10(right))
    across = (x - ends[0]) / (ends[1] - ends[0]) * (WIDTH - _LEFT - _RIGHT)
    up = (values[:, 1] - bottom) / (top - bottom) * (HEIGHT - _TOP - _BOTTOM)
    return np.stack([across, up], axis=1)


def _values(point: Point, metric: str) -> str:
    size = f"<br>{point.size_mb:.3g} MB" if isfinite(point.size_mb) else ""
    numbers = f"{_safe(metric)} {point.accuracy:.4f}<br>{point.latency_ms:.4g} ms{size}"
    return f"<b>{_safe(point.name)}</b><br>{numbers}"


def _safe(text: str) -> str:
    """Return text that plotly cannot take for markup."""
    return html.escape(legible(text))
