"""The picture of the comparison: recall of both domains, in light and in shadow, one small dot a training."""

from analysis import LOGCHROMA, SRGB, Analysis
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mlflow_yolo.figures import style

_PLACES = {"recall": "all", "recall in light": "light", "recall in shadow": "shadow"}
"""The measures that are drawn, and whose objects they are of."""

_APART = 0.12


def recall_figure(analysis: Analysis) -> Figure:
    """Return the figure; a line of gid `mean:<domain>` holds the means over seeds."""
    rows = [row for row in analysis.rows if row.measure in _PLACES]
    figure = style.new_figure(width_in=7.2, height_in=4.2)
    style.state(
        figure,
        f"Recall on {analysis.split}: sRGB against log-chromaticity",
        "Small: one training; large: mean over seeds. IoU .5, at each training's best confidence on val. "
        "In brackets: objects.",
    )
    axes = figure.add_subplot()
    entries: list[tuple[Artist, str]] = []
    for side, (domain, look) in enumerate(style.looks((SRGB, LOGCHROMA)).items()):
        places = [place + (side - 0.5) * _APART for place in range(len(rows))]
        for place, row in zip(places, rows, strict=True):
            beside = [place + (side - 0.5) * _APART] * len(row.values[domain])
            axes.plot(beside, row.values[domain], linestyle="", marker=look.marker, markersize=4, color=look.color,
                      alpha=0.55, markeredgewidth=0)  # fmt: skip
        axes.plot(places, [row.mean(domain) for row in rows], linestyle="", marker=look.marker, markersize=9,
                  color=look.color, markeredgecolor="white", gid=f"mean:{domain}")  # fmt: skip
        mark = style.handle(look)
        mark.set_linestyle("")
        entries.append((mark, f"{domain} (n={len(analysis.seeds)})"))
    labels = [f"{row.measure} ({analysis.n_objects[_PLACES[row.measure]]})" for row in rows]
    style.dress(axes, y_label="recall", grid="y")
    axes.set_xticks(range(len(rows)), labels, **style.lettering())
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.margins(y=0.12)
    style.legend(axes, entries)
    return figure
