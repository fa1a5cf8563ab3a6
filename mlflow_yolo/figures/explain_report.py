"""The page on which a model's predictions are looked at, class by class, with maps of where it looks.

The frame of the page, its tables and figures are those of `html.report`; this module adds the browser of examples. A
picture is there once, as a small JPEG, and every map as bytes that a canvas colours over it, so that opacity can be
turned and a hundred classes of six examples stay below 15 MB. Each class is a script element of its own that is read
when it is chosen. The page asks for nothing from anywhere and works in the sandboxed frame of MLflow's artifact view.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from mlflow_yolo.figures import html
from mlflow_yolo.figures.example import Example, MapLayer, Mark, panel_size
from mlflow_yolo.figures.heat_map import Pixels, color_table, levels, shrunk
from mlflow_yolo.figures.table import Table, cell_text, sort_key

CANVAS_SIDE = 96
"""Longer side, pixels, in which the page draws its maps; the browser enlarges them, and 40 cells are smooth by then."""
_MOST_PIXELS = 18_000_000  # of all pictures together: at most 10 MB of text; noisy textures take 0.40 bytes a pixel
_SIDES = (96, 384)
_QUALITY = 85

_BOXES = "A whole blue box is true, a dashed orange one was predicted."
_COLORS = (
    "The colour over a grey picture says how much that place speaks for what stands above it: nothing where it is "
    "clear, the number at the scale's end where it is yellow. Equal numbers at two scales' ends mean that their "
    "colours can be compared."
)
_SIGNED_COLORS = (
    "On a scale with two signs red speaks for what stands above the picture and blue against it; of a difference, red "
    "speaks for the first and blue for the second."
)
_NO_SCRIPT = "The examples are drawn by a script. Allow scripts to see them; the tables and figures need none."


@dataclass(frozen=True, eq=False)
class ClassPage:
    """What the page shows of one class.

    Attributes:
        name: The class's name.
        facts: Names and values in the order of reading, for example {"accuracy": 0.67, "images": 100}. The page can
            sort by those that are numbers and writes the first of them beside each name.
        worst: Its worst predictions, worst first.
        best: Its best predictions, best first.
    """

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)
    worst: Sequence[Example] = ()
    best: Sequence[Example] = ()


@dataclass(frozen=True, eq=False)
class PairPage:
    """What the page shows of two classes of which one is taken for the other.

    Attributes:
        true: Name of the true class.
        predicted: Name of the class it is taken for.
        facts: Names and values, for example {"confused": 12, "rate": 0.12}, as for a class.
        examples: Cases, the most confident first.
    """

    true: str
    predicted: str
    facts: Mapping[str, object] = field(default_factory=dict)
    examples: Sequence[Example] = ()


def explain_report(
    title: str,
    *,
    answer: Sequence[str],
    facts: Mapping[str, object] | None = None,
    classes: Sequence[ClassPage] = (),
    pairs: Sequence[PairPage] = (),
    sections: Sequence[html.Section] = (),
) -> str:
    """Return the page as text: HTML with inline style and script, images as data URIs, no request to anywhere.

    Args:
        title: The page's title.
        answer: The result in a few sentences, the first one carries the weight.
        facts: Names and values below it, for example the model and the data set.
        classes: One each, in the order in which the list shows them at first; no section without any.
        pairs: Confused classes, the most confused first; no section without any.
        sections: What follows: tables, figures, recommendations.

    Returns:
        An HTML document. Everything passed in is escaped. Pictures are made smaller, never larger: 384 pixels on the
        longer side for a few, 173 for six hundred; maps keep at most 40 cells a side.

    Raises:
        ArgumentError: A layer's `limit` is negative or not finite.
    """
    browsers = _browsers(classes, pairs)
    texts = [html.Section(browser.heading, browser.reading()) for browser in browsers]
    page = html.report(title, answer=answer, facts=facts, sections=[*texts, *sections])
    if not browsers:
        return page
    script = "\n".join([*_data(browsers), f"<script>\n{_template('explain_report.js')}</script>\n</body>"])
    for place, with_more in {
        "</head>": f"<style>\n{_template('explain_report.css')}</style>\n</head>",
        "<body>": f"<body>\n<noscript><p>{_NO_SCRIPT}</p></noscript>",
        "</body>": script,
    }.items():
        assert page.count(place) == 1, f"{place} is {page.count(place)} times in the page"
        page = page.replace(place, with_more)
    return page


@dataclass(frozen=True, eq=False)
class _Item:
    """A class or a pair: what can be chosen in a browser."""

    name: str
    facts: Mapping[str, object]
    groups: Mapping[str, Sequence[Example]]


@dataclass(frozen=True, eq=False)
class _Browser:
    """A section of the page with a list of items."""

    heading: str
    noun: str
    plural: str
    items: Sequence[_Item]

    def examples(self) -> list[Example]:
        """Return the examples of all items."""
        return [one for item in self.items for group in item.groups.values() for one in group]

    def layers(self) -> list[MapLayer]:
        """Return the maps of all examples."""
        return [layer for one in self.examples() for layer in one.layers]

    def has_marks(self) -> bool:
        """Return whether any example has a box."""
        return any(one.marks for one in self.examples())

    def reading(self) -> str:
        """Return how to read the examples: of boxes and colours only what there is."""
        layers = self.layers()
        sentences = {
            f"Choose a {self.noun} in the list, with a click or the arrow keys.": True,
            _BOXES: self.has_marks(),
            _COLORS: bool(layers),
            _SIGNED_COLORS: any(layer.signed for layer in layers),
        }
        return " ".join(sentence for sentence, is_wanted in sentences.items() if is_wanted)


def _browsers(classes: Sequence[ClassPage], pairs: Sequence[PairPage]) -> list[_Browser]:
    of_classes = [
        _Item(one.name, one.facts, {"Worst predictions": one.worst, "Best predictions": one.best}) for one in classes
    ]
    of_pairs = [_Item(f"{one.true} → {one.predicted}", one.facts, {"": one.examples}) for one in pairs]
    both = [
        _Browser("Class by class", "class", "classes", of_classes),
        _Browser("Confused pairs", "pair", "pairs", of_pairs),
    ]
    return [browser for browser in both if browser.items]


def _data(browsers: Sequence[_Browser]) -> list[str]:
    """Return script elements: the lists, then one for every item's examples."""
    side = picture_side(sum(len(browser.examples()) for browser in browsers))
    tables = {name: _base64(color_table(name == "signed").tobytes()) for name in ("unsigned", "signed")}
    elements = [_script("explain", {"colors": tables, "browsers": [_list(browser) for browser in browsers]})]
    for i, browser in enumerate(browsers):
        for j, item in enumerate(browser.items):
            groups = [
                {"heading": heading, "examples": [_example(one, side) for one in group]}
                for heading, group in item.groups.items()
                if group
            ]
            elements.append(_script(f"explain-{i}-{j}", groups))
    return elements


def picture_side(n_examples: int) -> int:
    """Return the longer side, pixels, to which the pictures are made smaller so that the page stays below 15 MB."""
    smallest, greatest = _SIDES
    return min(greatest, max(smallest, math.isqrt(_MOST_PIXELS // max(1, n_examples))))


def _list(browser: _Browser) -> dict[str, Any]:
    """Return what the list shows of every item; facts that not every item has are missing values."""
    columns = list(dict.fromkeys(name for item in browser.items for name in item.facts))
    table = Table(columns, [[item.facts.get(name) for name in columns] for item in browser.items])
    return {
        "heading": browser.heading,
        "noun": browser.noun,
        "plural": browser.plural,
        "columns": columns,
        "numeric": table.numeric(),
        "hasMarks": browser.has_marks(),
        "hasLayers": bool(browser.layers()),
        "items": [
            {
                "name": item.name,
                "facts": [cell_text(value) for value in row],
                "keys": [sort_key(value) for value in row],
            }
            for item, row in zip(browser.items, table.rows, strict=True)
        ],
    }


def _example(example: Example, side: int) -> dict[str, Any]:
    return {
        "title": example.title,
        "caption": example.caption,
        "picture": jpeg_uri(example.picture, side),
        "size": panel_size(example.picture, CANVAS_SIDE),
        "layers": [_layer(one) for one in example.layers],
        "marks": [_mark(one) for one in example.marks],
    }


def _layer(layer: MapLayer) -> dict[str, Any]:
    # The scale is read off before the map is averaged down: it is the value of the last colour everywhere.
    values, scale = shrunk(layer.values), layer.scale()
    return {
        "title": layer.title,
        "signed": layer.signed,
        "scale": scale,
        "ends": layer.ends,
        "grid": values.shape,
        "levels": _base64(levels(values, limit=scale, signed=layer.signed).tobytes()),
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {"box": [round(side, 4) for side in mark.inside()], "label": mark.label, "kind": mark.kind}


def jpeg_uri(picture: Pixels, side: int) -> str:
    """Return (H, W, 3) uint8 RGB as a JPEG `data:` URI, made smaller so that its longer side is at most `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _script(name: str, data: object) -> str:
    """Return a script element of JSON without `<` in it, so that no name can end the element."""
    text = htmlsafe_json_dumps(data, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{name}">{text}</script>'


def _template(name: str) -> str:
    return files(__package__).joinpath(f"templates/{name}").read_text("utf-8")
