"""One prediction as a picture: the object, the boxes, and beside it every map, on one strip."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.figures.heat_map import Pixels, blend, check_picture, largest, layer, levels
from mlflow_yolo.figures.lettering import families, legible
from mlflow_yolo.figures.style import INK, QUIET

Kind = Literal["true", "predicted", "other"]

MARK_COLORS: dict[Kind, str] = {"true": "#0072b2", "predicted": "#d55e00", "other": "#666666"}
"""Also told apart by the line: whole for what is true, dashed for what was predicted, thin for the rest."""
_GAP = 6
_TEXT = 11
_LINE = 15


@dataclass(frozen=True, eq=False)
class MapLayer:
    """One map of an example.

    Attributes:
        title: What the map explains, for example "evidence for leopard".
        values: (h, w) float, covers exactly the example's picture; the method's unit, logits where maps add up to one.
        signed: Values have a sign (a difference): red above zero, blue below. Otherwise what is below zero is not seen.
        limit: The value of the last colour, >= 0, in the unit of `values`; give all layers of an example the same so
            that they can be compared. None means the layer's own largest value.
        ends: Words for the two ends of the scale, for example ("cheetah", "leopard") for -limit and +limit.

    Raises:
        ShapeError: `values` is not (h, w) with at least one cell.
    """

    title: str
    values: npt.NDArray[Any]
    signed: bool = False
    limit: float | None = None
    ends: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.size == 0:
            raise ShapeError(f"a map is (h, w) with at least one cell, got {self.values.shape}. Pass one map a layer.")

    def scale(self) -> float:
        """Return the value of the last colour; 0.0 for a map without any value."""
        return largest(self.values, signed=self.signed) if self.limit is None else self.limit


@dataclass(frozen=True, eq=False)
class Mark:
    """A box on an example's picture.

    Attributes:
        box: (4,) x1, y1, x2, y2, fractions of the picture (0, 0 is its top left corner); what is outside is cut.
        label: Words beside it, for example "leopard 92 %"; may be empty.
        kind: What is true, what was predicted, or another box.

    Raises:
        ShapeError: `box` is not four finite numbers.
        ArgumentError: `box` is turned inside out, or `kind` is none of the three.
    """

    box: npt.NDArray[Any] | Sequence[float]
    label: str
    kind: Kind = "other"

    def __post_init__(self) -> None:
        if np.shape(self.box) != (4,) or not np.isfinite(self.box).all():
            raise ShapeError(f"a mark's box is four numbers x1, y1, x2, y2, got {self.box}. Pass fractions.")
        if self.box[0] > self.box[2] or self.box[1] > self.box[3]:
            raise ArgumentError(f"a mark's box {self.box} is turned inside out. Pass x1 <= x2 and y1 <= y2.")
        if self.kind not in MARK_COLORS:
            raise ArgumentError(f"kind={self.kind!r} is no kind of mark. Use one of: {', '.join(get_args(Kind))}.")

    def inside(self) -> tuple[float, float, float, float]:
        """Return the box cut to the picture."""
        x1, y1, x2, y2 = (float(min(1.0, max(0.0, side))) for side in self.box)
        return x1, y1, x2, y2


@dataclass(frozen=True, eq=False)
class Example:
    """One prediction to look at.

    Attributes:
        title: What happened, in a line: "taken for cheetah, 92 %".
        caption: The rest in a sentence: the image's name, scores, overlap; may be empty.
        picture: (H, W, 3) uint8 RGB, already cropped to the object and its surroundings.
        layers: Maps that cover exactly the picture; none where the model has no gradient.
        marks: Boxes on it.

    Raises:
        ShapeError: `picture` is not (H, W, 3) uint8.
    """

    title: str
    caption: str
    picture: Pixels
    layers: tuple[MapLayer, ...] = ()
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        check_picture(self.picture)


def example_strip(example: Example, *, size: int = 160, strength: float = 0.7) -> Pixels:
    """Return the picture with its marks, and beside it the picture in grey, so that colours are the map's, under each.

    Args:
        example: What is drawn.
        size: Longer side of each panel, pixels.
        strength: Opacity of the maps' largest value, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB on white: title above, a name above each panel, the caption below; text that does not fit
        its place ends in "…".
    """
    height, width = panel_size(example.picture, size)
    picture = _resized(example.picture, (height, width))
    panels = [("picture", picture)]
    below = grey(picture)
    for one in example.layers:
        over = layer(levels(one.values, limit=one.limit, signed=one.signed), (height, width), signed=one.signed)
        panels.append((one.title, blend(below, over, strength)))
    top = _LINE + (_LINE if example.layers else 0)
    whole = len(panels) * width + (len(panels) - 1) * _GAP
    sheet = Image.new("RGB", (whole, top + height + (_LINE if example.caption else 0)), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (0, 0), example.title, whole, bold=True)
    for i, (name, pixels) in enumerate(panels):
        left = i * (width + _GAP)
        sheet.paste(Image.fromarray(pixels), (left, top))
        if example.layers:
            _write(draw, (left, _LINE), name, width, fill=QUIET)
        _draw_marks(draw, example.marks, (left, top, width, height), labels=i == 0)
    _write(draw, (0, top + height + 1), example.caption, whole, fill=QUIET)
    return np.asarray(sheet)


def grid(examples: Sequence[Example], columns: int = 1, *, size: int = 160, strength: float = 0.7) -> Pixels:
    """Return strips below each other in `columns` columns, (H, W, 3) uint8 RGB on white; one white pixel for none.

    Raises:
        ArgumentError: `columns` is below 1.
    """
    if columns < 1:
        raise ArgumentError(f"columns={columns} leaves no room for a strip. Use at least 1.")
    strips = [example_strip(example, size=size, strength=strength) for example in examples]
    if not strips:
        return np.full((1, 1, 3), 255, dtype=np.uint8)
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    width = max(strip.shape[1] for strip in strips) + 2 * _GAP
    heights = [max(strip.shape[0] for strip in row) + 2 * _GAP for row in rows]
    sheet = np.full((sum(heights), width * min(columns, len(strips)), 3), 255, dtype=np.uint8)
    for top, row in zip(np.cumsum([0, *heights[:-1]]) + _GAP, rows, strict=True):
        for i, strip in enumerate(row):
            left = i * width + _GAP
            sheet[top : top + strip.shape[0], left : left + strip.shape[1]] = strip
    return sheet


def panel_size(picture: Pixels, size: int) -> tuple[int, int]:
    """Return height and width of a panel whose longer side is `size` pixels, in the picture's proportions."""
    h, w = picture.shape[:2]
    return max(1, round(size * h / max(h, w))), max(1, round(size * w / max(h, w)))


def grey(picture: Pixels) -> Pixels:
    """Return (H, W, 3) uint8 in shades of grey of the same luminance: 0.3 red, 0.59 green, 0.11 blue."""
    return np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))


def _resized(picture: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=2.0))


def _draw_marks(
    draw: ImageDraw.ImageDraw, marks: Sequence[Mark], place: tuple[int, int, int, int], *, labels: bool
) -> None:
    """Draw the boxes on the panel at `place` (left, top, width, height); true labels above, the others below."""
    left, top, width, height = place
    for mark in marks:
        x1, y1, x2, y2 = mark.inside()
        corners = (left + x1 * (width - 1), top + y1 * (height - 1), left + x2 * (width - 1), top + y2 * (height - 1))
        _draw_box(draw, corners, mark.kind)
    for mark in marks if labels else ():
        if mark.label:
            _draw_label(draw, mark, place)


def _draw_box(draw: ImageDraw.ImageDraw, corners: tuple[float, float, float, float], kind: Kind) -> None:
    x1, y1, x2, y2 = (round(side) for side in corners)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white")
    color = MARK_COLORS[kind]
    if kind == "true":
        draw.rectangle((x1, y1, x2, y2), outline=color, width=2)
    elif kind == "other":
        draw.rectangle((x1, y1, x2, y2), outline=color)
    else:
        for start in range(x1, x2 + 1, 8):
            for y in (y1, y2 - 1):
                draw.rectangle((start, y, min(start + 4, x2), y + 1), fill=color)
        for start in range(y1, y2 + 1, 8):
            for x in (x1, x2 - 1):
                draw.rectangle((x, start, x + 1, min(start + 4, y2)), fill=color)


def _draw_label(draw: ImageDraw.ImageDraw, mark: Mark, place: tuple[int, int, int, int]) -> None:
    left, top, width, height = place
    x1, y1, _, y2 = mark.inside()
    text, font = _fitted(mark.label, width - 4)
    length = font.getlength(text)
    x = left + min(x1 * width, width - length - 4)
    y = top + y1 * height - _LINE if mark.kind == "true" else top + y2 * height
    y = min(max(y, top), top + height - _LINE)
    draw.rectangle((x, y, x + length + 3, y + _LINE - 1), fill="white")
    draw.text((x + 2, y + 1), text, fill=MARK_COLORS[mark.kind], font=font)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, *, fill: str = INK, bold: bool = False
) -> None:
    fitted, font = _fitted(text, width, bold=bold)
    draw.text(at, fitted, fill=fill, font=font)


def _fitted(text: str, width: float, *, bold: bool = False) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return the text cut to `width` pixels and the font that can draw it."""
    line = legible(text)
    font = _font(_path(line, bold))
    if font.getlength(line) <= width:
        return line, font
    fits = bisect_right(range(len(line)), width, key=lambda n: font.getlength(line[:n] + "…"))
    return line[: max(0, fits - 1)].rstrip() + "…", font


@lru_cache(maxsize=512)
def _path(line: str, bold: bool) -> str:
    """Return the file of the first font that has every character of the line, else of the one that has most."""
    found = [font_manager.findfont(_properties(name, bold)) for name in families()]
    missing = [sum(ord(c) not in _characters(path) for c in line) for path in found]
    return str(found[missing.index(min(missing))])


@lru_cache(maxsize=32)
def _characters(path: str) -> frozenset[int]:
    """Return the characters that a font has; reading them anew for every line took nine tenths of the drawing."""
    return frozenset(font_manager.get_font(path).get_charmap())


def _properties(name: str, bold: bool) -> font_manager.FontProperties:
    return font_manager.FontProperties(family=[name], weight="bold" if bold else "normal")


@lru_cache(maxsize=32)
def _font(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _TEXT)
