"""The one look of all figures: colours by configuration, sizes, grid, titles, legend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure as Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from mlflow_yolo.figures.lettering import families, legible, wrapped

BASELINE_COLOR = "#3d3d3d"
PALETTE = (
    # Okabe and Ito (2008) without black and yellow, then three of Paul Tol's muted scheme: distinct under the three
    # common kinds of colour blindness, and each of enough contrast on white.
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#332288",
)
MISSING_COLOR = "#ececec"
INK = "#262626"
QUIET = "#666666"
GRID = "#e4e4e4"

TITLE_SIZE = 11.0
LABEL_SIZE = 9.0
SMALL_SIZE = 8.0
DPI = 120

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LineStyle = Literal["-", "--", ":", "-."]

_LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
LONGEST_NAME = 28
_LEFT_IN = 0.12


@dataclass(frozen=True)
class Look:
    """How one configuration is drawn in every figure.

    Attributes:
        color: Hexadecimal colour.
        marker: Marker of matplotlib, a second sign beside the colour.
        line: Line style; changes when the palette has been used up.
    """

    color: str
    marker: str
    line: LineStyle


def looks(names: Iterable[str], *, baseline: str | None = None) -> dict[str, Look]:
    """Return one look per configuration.

    Args:
        names: Configurations in the order of the study. The same names in the same order get the same looks, so pass
            a configuration without values too.
        baseline: The one drawn in neutral grey; None means the first.

    Returns:
        A look per name, baseline first, the others in the order given.
    """
    ordered = list(dict.fromkeys(names))
    if not ordered:
        return {}
    base = baseline if baseline in ordered else ordered[0]
    others = [name for name in ordered if name != base]
    result = {base: Look(BASELINE_COLOR, "o", "-")}
    for i, name in enumerate(others):
        turn, position = divmod(i, len(PALETTE))
        result[name] = Look(PALETTE[position], _MARKERS[(i + 1) % len(_MARKERS)], _LINES[turn % len(_LINES)])
    return result


def new_figure(*, width_in: float, height_in: float) -> Figure:
    """Return an empty white figure with its own Agg canvas and a layout that makes room for all text."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def lettering(size: float = LABEL_SIZE, **properties: Any) -> dict[str, Any]:
    """Return the text properties of a label: size, fonts, no mathtext (class names hold `$`)."""
    return {"fontsize": size, "fontfamily": list(families()), "parse_math": False, "color": INK, **properties}


def state(figure: Figure, statement: str, reading: str = "") -> None:
    """Write the title, a statement of what is drawn, and below the figure how to read it."""
    width = figure.get_figwidth() - 0.3
    # Bold is about a tenth wider than the regular face that `wrapped` reckons with.
    title = wrapped(statement, width_in=width / 1.12, font_size=TITLE_SIZE)
    figure.suptitle(title, x=_LEFT_IN / figure.get_figwidth(), ha="left", **lettering(TITLE_SIZE, fontweight="bold"))
    if reading:
        text = wrapped(reading, width_in=width, font_size=SMALL_SIZE)
        figure.supxlabel(text, x=_LEFT_IN / figure.get_figwidth(), ha="left", **lettering(SMALL_SIZE, color=QUIET))


def dress(axes: Axes, *, x_label: str = "", y_label: str = "", grid: str | None = "both") -> None:
    """Give axes the common look; `grid` is 'x', 'y', 'both' or None."""
    axes.set_xlabel(x_label, **lettering())
    axes.set_ylabel(y_label, **lettering())
    axes.tick_params(labelsize=SMALL_SIZE, colors=INK, length=3, width=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9a9a9a")
        spine.set_linewidth(0.6)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]


def legend(axes: Axes, entries: Sequence[tuple[Artist, str]], *, title: str = "") -> None:
    """Put a legend to the right of the axes, where it covers nothing; `entries` are (artist, text), top first."""
    if not entries:
        return
    font = FontProperties(family=list(families()), size=SMALL_SIZE)
    box = axes.legend(
        [artist for artist, _ in entries],
        [legible(text, longest=LONGEST_NAME + 22) for _, text in entries],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        prop=font,
        frameon=False,
        title=title or None,
        title_fontproperties=font,
        alignment="left",
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def dress_color_bar(bar: Colorbar, *, label: str) -> None:
    """Give a colour bar the common look."""
    bar.set_label(label, **lettering())
    bar.ax.tick_params(labelsize=SMALL_SIZE, colors=INK, length=3, width=0.6)
    bar.ax.yaxis.get_offset_text().set_fontsize(SMALL_SIZE)
    bar.outline.set_visible(False)


def handle(look: Look, *, marker: bool = True) -> Line2D:
    """Return a line for the legend that shows a configuration's look."""
    return Line2D([], [], color=look.color, marker=look.marker if marker else "", linestyle=look.line, markersize=5)


def short(name: str) -> str:
    """Return a configuration's or class's name as the figures write it."""
    return legible(name, longest=LONGEST_NAME)


def say_nothing_to_draw(figure: Figure, reason: str) -> None:
    """Fill an otherwise empty figure with the reason why it is empty."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, legible(reason), ha="center", va="center", **lettering(LABEL_SIZE, color=QUIET))
