"""Precision, recall and F over the confidence, at one overlap of suppression."""

from collections.abc import Mapping

import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats


def threshold_curves(
    curves: Mapping[str, npt.ArrayLike],
    *,
    confs: npt.ArrayLike,
    split: str,
    iou: float,
    marks: Mapping[str, float],
    bound: float | None = None,
) -> Figure:
    """Return a line for each measure, and a vertical one for each threshold.

    Args:
        curves: By label, (K,) in [0, 1].
        confs: (K,) confidences, rising.
        split: Split it was measured on.
        iou: Overlap of suppression.
        marks: Thresholds by what they are, the chosen one first.
        bound: Least value that was asked of one of the measures.

    Returns:
        A figure; lines have the gid `curve:<label>` and `mark:<name>`.
    """
    figure = style.new_figure(width_in=8.2, height_in=4.2)
    style.state(
        figure,
        f"What a confidence threshold does on {split}, IoU of suppression {iou:g}",
        "Means over classes. Detections with a score above the threshold count.",
    )
    x = as_floats(confs, ndim=1, what="confs")
    if not curves or not len(x):
        style.say_nothing_to_draw(figure, "There are no thresholds to draw.")
        return figure
    axes = figure.add_subplot()
    entries: list[tuple[Artist, str]] = []
    for color, (label, values) in zip(style.PALETTE, curves.items(), strict=False):
        (line,) = axes.plot(x, as_floats(values, ndim=1, what=label), color=color, linewidth=1.6, gid=f"curve:{label}")
        entries.append((line, label))
    for dash, (name, conf) in zip(("-", ":", "--", "-."), marks.items(), strict=False):
        line = axes.axvline(conf, color=style.INK, linewidth=1.1, linestyle=dash, gid=f"mark:{name}")
        entries.append((line, f"{name}: {conf:g}"))
    if bound is not None:
        entries.append((axes.axhline(bound, color=style.QUIET, linewidth=0.8, linestyle=":"), f"asked for: {bound:g}"))
    style.dress(axes, x_label="confidence above", y_label="share (0 to 1)")
    axes.set_xlim(x[0], x[-1]) if len(x) > 1 else None
    axes.set_ylim(0, 1.02)
    style.legend(axes, entries)
    return figure
