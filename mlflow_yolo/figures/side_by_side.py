"""The same images beside each other: what is there, and what each configuration finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible

MOST_ROWS = 6
MOST_BOXES = 100
_CLASS_COLORS = ("#56B4E9", "#E69F00", "#3DDC97", "#F0E442", "#FF8FB1", "#FF6A3D", "#B79CFF", "#9BE564", "#FFFFFF")
_LABEL_SIZE = 6.5
_ADVANCE = 0.64  # of the font size per character; generous, so that what is said to fit does
_LINE_HEIGHT = 1.35

Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of one image, true or predicted.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the image; (0, 4) or an empty sequence for none.
        classes: (N,) class ids.
        scores: (N,) confidences in [0, 1]; None for true boxes.
    """

    boxes: npt.ArrayLike
    classes: npt.ArrayLike
    scores: npt.ArrayLike | None = None


def side_by_side(
    images: Sequence[npt.NDArray[np.uint8]],
    ground_truth: Sequence[ImageBoxes],
    predictions: Mapping[str, Sequence[ImageBoxes]],
    *,
    names: Sequence[str],
    split: str,
    titles: Sequence[str] | None = None,
    conf: float | None = None,
    baseline: str | None = None,
) -> Figure:
    """Return a grid of images: one row per image, first the ground truth, then one column per configuration.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ. The first 6 are drawn.
        ground_truth: True boxes, one entry per image.
        predictions: Per configuration, one entry per image.
        names: Class names; an id without a name is written as its number.
        split: Split that the images come from.
        titles: File names, one per image, written before the rows.
        conf: Confidence threshold of the predictions, named in the title.
        baseline: Configuration drawn first after the ground truth; None means the first.

    Returns:
        A figure whose axes have gid `<row>:ground truth` and `<row>:<configuration>`. Of more than 100 boxes the 100
        most confident are drawn; a label that would cover another one is left out, its box stays.

    Raises:
        ShapeError: An image is not (H, W, 3) uint8, a column has not one entry per image, or boxes, classes and scores
            differ in length.
    """
    order = style.looks(predictions, baseline=baseline)
    columns: list[tuple[str, str, Sequence[ImageBoxes]]] = [("ground truth", style.INK, ground_truth)]
    columns += [(name, look.color, predictions[name]) for name, look in order.items()]
    _check(images, columns, titles)
    shown = images[:MOST_ROWS]
    heights = [min(max(image.shape[0] / image.shape[1], 0.3), 2.5) for image in shown]
    cell_in = 2.6 if len(columns) <= 5 else 2.0
    figure = style.new_figure(width_in=max(len(columns) * cell_in + 0.4, 5.0), height_in=sum(heights) * cell_in + 1.3)
    threshold = f", conf ≥ {conf:g}" if conf is not None else ""
    part = f" {len(shown)} of {len(images)} images." if len(images) > len(shown) else ""
    style.state(
        figure,
        f"The same {split} images: ground truth and what each configuration detects{threshold}",
        f"Boxes: class and confidence; colours tell classes apart. A label that would cover another is left out.{part}",
    )
    if not shown:
        style.say_nothing_to_draw(figure, "There is no image to draw.")
        return figure
    grid = figure.subplots(len(shown), len(columns), squeeze=False, height_ratios=heights)
    for row, image in enumerate(shown):
        for axes, (name, color, entries) in zip(grid[row], columns, strict=True):
            axes.set_gid(f"{row}:{name}")
            _draw_image(axes, image)
            _draw_boxes(axes, entries[row], image=image, names=names, cell_in=cell_in)
            if row == 0:
                title = style.lettering(color=color, fontweight="bold")
                axes.set_title(legible(name, longest=int(cell_in * 10)), loc="left", **title)
        if titles is not None:
            room = int(cell_in * heights[row] * 12)
            file = legible(titles[row])
            file = file if len(file) <= room else "…" + file[1 - room :]  # names of files differ at their end
            grid[row][0].set_ylabel(file, **style.lettering(style.SMALL_SIZE, color=style.QUIET))
    return figure


def _check(
    images: Sequence[npt.NDArray[np.uint8]],
    columns: Sequence[tuple[str, str, Sequence[ImageBoxes]]],
    titles: Sequence[str] | None,
) -> None:
    """Raise ShapeError when images, columns and titles do not fit together."""
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ShapeError(f"images[{i}] is {image.shape} {image.dtype}. Pass (H, W, 3) uint8 RGB.")
    lengths = [(name, len(entries)) for name, _, entries in columns]
    for name, length in [*lengths, *([("titles", len(titles))] if titles is not None else [])]:
        if length != len(images):
            raise ShapeError(f"{name!r} has {length} entries for {len(images)} images. Pass one per image.")


def _draw_image(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    """Show the image without ticks, in its own pixels."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_boxes(
    axes: Axes, found: ImageBoxes, *, image: npt.NDArray[np.uint8], names: Sequence[str], cell_in: float
) -> None:
    """Draw boxes, most confident first, and the labels for which there is room."""
    boxes, classes, scores = _arrays(found)
    height, width = image.shape[:2]
    pixels_per_point = max(width / cell_in, height / (cell_in * 2.5)) / 72
    by_score = range(len(boxes)) if scores is None else np.argsort(-scores, kind="stable")
    taken: list[Extent] = []
    for i in list(by_score)[:MOST_BOXES]:
        x1, y1, x2, y2 = (float(v) for v in boxes[i])
        color = _CLASS_COLORS[int(classes[i]) % len(_CLASS_COLORS)]
        # A dark edge below the coloured one keeps boxes visible on any background.
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#000000", linewidth=1.9, alpha=0.6))
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.1, gid=f"box:{i}")
        )
        text = legible(_class_name(int(classes[i]), names), longest=16)
        if scores is not None:
            text += f" {scores[i]:.2f}"
        size = (len(text) * _ADVANCE * _LABEL_SIZE * pixels_per_point, _LINE_HEIGHT * _LABEL_SIZE * pixels_per_point)
        place = _free_place((x1, y1, x2, y2), size=size, canvas=(width, height), taken=taken)
        if place is not None:
            taken.append(place)
            axes.text(place[0], place[3], text, va="bottom", ha="left", clip_on=True, zorder=5,
                      bbox={"facecolor": color, "edgecolor": "none", "pad": 0.4, "alpha": 0.92},
                      **_label_lettering())  # fmt: skip


def _label_lettering() -> dict[str, Any]:
    return style.lettering(_LABEL_SIZE, color="#111111")


def _arrays(
    found: ImageBoxes,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
    """Return boxes (N, 4), classes (N,) and scores (N,) without boxes that are not finite."""
    boxes = np.asarray(found.boxes, dtype=np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    classes = np.asarray(found.classes)
    scores = None if found.scores is None else np.asarray(found.scores, dtype=np.float64)
    lengths = {len(boxes), len(classes)} | (set() if scores is None else {len(scores)})
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(lengths) != 1:
        n_scores = "" if scores is None else f", {len(scores)} scores"
        raise ShapeError(
            f"boxes {boxes.shape}, {len(classes)} classes{n_scores} do not fit together. Pass (N, 4) and N of each."
        )
    finite = np.isfinite(boxes).all(axis=1)
    return boxes[finite], classes[finite].astype(np.int64), None if scores is None else scores[finite]


def _class_name(index: int, names: Sequence[str]) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


def _free_place(
    box: Extent, *, size: tuple[float, float], canvas: tuple[int, int], taken: Sequence[Extent]
) -> Extent | None:
    """Return where a label (x1, y1, x2, y2) covers no other one: above the box, below it, or inside; else None."""
    width, height = size
    x1, y1, x2, y2 = box
    for left, top in ((x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2), (x1, y1)):
        left = min(max(left, 0.0), max(canvas[0] - width, 0.0))
        place = (left, top, left + width, top + height)
        inside = top >= 0 and top + height <= canvas[1]
        if inside and not any(_overlap(place, other) for other in taken):
            return place
    return None


def _overlap(a: Extent, b: Extent) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
