"""The picture that was sent, with what was found drawn on it."""

import colorsys
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mlflow_yolo.deployment.inference.backend import Answer
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.outlines import mask_outlines

MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png"}
_SHOWN_CLASSES = 5
_GOLDEN = 0.61803398875  # steps of the golden ratio keep neighbouring classes' hues apart, however many there are
_FILL = 90
Colour = tuple[int, int, int]


def annotated(image: bytes, answer: Answer, kind: str) -> bytes:
    """Return the picture with boxes, class names and scores, as a file.

    Args:
        image: The image file that was answered.
        answer: What was found in it.
        kind: `jpeg` or `png`.

    Raises:
        ArgumentError: The image cannot be decoded.
    """
    picture = Image.fromarray(read_image(image)[..., ::-1].copy())
    _fill_masks(picture, answer)
    draw = ImageDraw.Draw(picture)
    side = max(picture.size)
    font = ImageFont.load_default(max(10, side // 50))
    width = max(1, side // 400)
    for index, text, box in _labels(answer):
        colour = _colour(index)
        if box is not None:
            draw.rectangle(box, outline=colour, width=width)
        _write(draw, text, (box or (0, 0))[:2], colour, font, picture.size)
    file = io.BytesIO()
    picture.save(file, kind.upper(), **({"quality": 90, "subsampling": 0} if kind == "jpeg" else {"compress_level": 1}))
    return file.getvalue()


def _labels(answer: Answer) -> Sequence[tuple[int, str, tuple[float, ...] | None]]:
    """Return class, text and box of what is drawn, the surest last: on top."""
    found = answer.detections
    if found.probabilities is not None:
        order = (-found.probabilities).argsort(kind="stable")[:_SHOWN_CLASSES]
        text = "\n".join(f"{_name(answer, int(index))} {found.probabilities[index]:.2f}" for index in order)
        return [(int(order[0]), text, None)]
    rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [(index, f"{_name(answer, index)} {score:.2f}", tuple(box)) for index, score, box in rows][::-1]


def _name(answer: Answer, index: int) -> str:
    """Return a class name, or its number where the font has no letters for it."""
    name = answer.detections.names[index]
    return name if name.isascii() and name.isprintable() else f"class {index}"


def _fill_masks(picture: Image.Image, answer: Answer) -> None:
    if answer.detections.masks is None:
        return
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    outlines = mask_outlines(answer.detections.masks, (answer.height, answer.width))
    for index, rings in zip(answer.detections.classes.tolist(), outlines, strict=True):
        for ring in rings:
            draw.polygon([(float(x), float(y)) for x, y in ring], fill=(*_colour(index), _FILL))
    picture.paste(layer, mask=layer)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    at: tuple[float, ...],
    colour: Colour,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Write on a plate above `at`, or as near as the picture has room."""
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    x = min(max(at[0], 0), max(size[0] - right, 0))
    y = min(max(at[1] - bottom, 0), max(size[1] - bottom, 0))
    draw.rectangle((x + left, y + top, x + right, y + bottom), fill=colour)
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.multiline_text((x, y), text, fill="black" if light else "white", font=font)


def _colour(index: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.8, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
