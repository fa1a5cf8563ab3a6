"""The page of examples: what it holds, that it asks for nothing, and that in a browser it draws what Python draws."""

import base64
import html
import io
import json
import re
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.figures.example import Example, MapLayer, Mark
from mlflow_yolo.figures.explain_report import (
    CANVAS_SIDE,
    ClassPage,
    PairPage,
    explain_report,
    jpeg_uri,
    picture_side,
)
from mlflow_yolo.figures.heat_map import layer, levels
from mlflow_yolo.figures.html import Section, Table, report

HOSTILE = "</script ><img src=x onerror=document.title='hacked'>&amp;"
Pixels = npt.NDArray[np.uint8]


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Pixels:
    """Return a picture with some texture: noise of single pixels and of blocks of 20."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(40, 200, (-(-height // 20), -(-width // 20), 3))
    rough = blocks.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    return (rough + generator.integers(-20, 20, (height, width, 3))).astype(np.uint8)


VALUES = np.random.default_rng(7).normal(size=(5, 7)).astype(np.float32)
LIMIT = 2.5


def wrong(text: str = "taken for cheetah, 92 %") -> Example:
    layers = (
        MapLayer("for leopard", np.abs(VALUES), limit=LIMIT),
        MapLayer("difference", VALUES, signed=True, limit=LIMIT, ends=("cheetah", "leopard")),
    )
    marks = (Mark((0.1, 0.2, 0.5, 0.6), "leopard", "true"), Mark((0.2, 0.2, 0.6, 0.7), "cheetah 92 %", "predicted"))
    return Example(text, "image 7", picture(), layers, marks)


def right() -> Example:
    return Example("right, 99 %", "", picture(), (MapLayer("for leopard", np.zeros((3, 3))),))


def make_classes(names: tuple[str, ...] = ("leopard", "ant", "bee", "oak")) -> list[ClassPage]:
    """Return classes of accuracy .5, .25, unknown, .75 in this order; only the first has examples."""
    accuracies = (0.5, 0.25, None, 0.75)
    facts = [{"accuracy": accuracy, "note": f"{name} & co"} for name, accuracy in zip(names, accuracies, strict=True)]
    first = ClassPage(names[0], {**facts[0], "images": 12}, [wrong()], [right()])
    return [first, *(ClassPage(name, fact) for name, fact in zip(names[1:], facts[1:], strict=True))]


def make_pairs(true: str = "leopard", predicted: str = "cheetah") -> list[PairPage]:
    return [PairPage(true, predicted, {"confused": 12, "rate": "0.12 (0.07 to 0.20)"}, [wrong()])]


class Page(HTMLParser):
    """The elements of a page, and the text of every script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.elements: list[str] = []
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag == "script":
            assert "src" not in dict(attrs)
            self._inside = dict(attrs).get("id") or f"unnamed {len(self.scripts)}"
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.scripts[self._inside] += data

    def data(self, name: str) -> Any:
        return json.loads(self.scripts[name])


def test_names_and_sentences_cannot_leave_the_data() -> None:
    def page(name: str) -> Page:
        classes = [ClassPage(name, {name: name}, [Example(name, name, picture(), (MapLayer(name, VALUES),))])]
        pairs = [PairPage(name, name, {name: name}, [wrong(name)])]
        return Page(explain_report(name, answer=[name], facts={name: name}, classes=classes, pairs=pairs))

    evil = page(HOSTILE)
    assert evil.elements == page("plain").elements
    assert evil.data("explain")["browsers"][0]["items"][0]["name"] == HOSTILE
    assert evil.data("explain-0-0")[0]["examples"][0]["caption"] == HOSTILE
    assert not any("<" in text for name, text in evil.scripts.items() if name.startswith("explain"))


def test_the_page_asks_for_nothing() -> None:
    page = explain_report("T", answer=[], classes=make_classes(), pairs=make_pairs())
    assert "default-src 'none'; img-src data:" in page
    text = page.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"https?://|//cdn|@import|url\(|\bfetch\(|XMLHttpRequest|localStorage|document\.cookie", text)


def test_without_classes_and_pairs_it_is_the_plain_report() -> None:
    sections = [Section("Recommendations", "None.")]
    page = explain_report("T", answer=["A."], facts={"model": "m"}, sections=sections)
    assert page == report("T", answer=["A."], facts={"model": "m"}, sections=sections)


def test_classes_come_before_pairs_and_pairs_before_the_sections() -> None:
    sections = [Section("Every class", table=Table(["x"], [[1]]))]
    page = explain_report("T", answer=["A."], classes=make_classes(), pairs=make_pairs(), sections=sections)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Class by class", "Confused pairs", "Every class"]
    only_pairs = explain_report("T", answer=[], pairs=make_pairs(), sections=sections)
    assert re.findall("<h2>(.*?)</h2>", only_pairs) == ["Confused pairs", "Every class"]


def test_the_list_has_the_facts_of_all_items_as_text_and_as_sort_keys() -> None:
    classes, pairs = Page(
        explain_report("T", answer=[], classes=make_classes(), pairs=make_pairs())
    ).data("explain")["browsers"]  # fmt: skip
    assert classes["columns"] == ["accuracy", "note", "images"]
    assert classes["numeric"] == [True, False, True]
    assert [item["keys"][0] for item in classes["items"]] == ["0.5", "0.25", "", "0.75"]
    assert classes["items"][1]["facts"] == ["0.250", "ant & co", "\N{EN DASH}"]
    assert pairs["items"] == [
        {"name": "leopard → cheetah", "facts": ["12", "0.12 (0.07 to 0.20)"], "keys": ["12.0", "0.12"]}
    ]
    assert (classes["hasMarks"], classes["hasLayers"]) == (True, True)


def test_how_to_read_speaks_only_of_what_is_there() -> None:
    def reading(*examples: Example) -> str:
        return explain_report("T", answer=[], classes=[ClassPage("a", worst=examples)])

    bare = Example("t", "", picture())
    assert "blue box" not in reading(bare)
    assert "grey picture" not in reading(bare)
    boxed = Example("t", "", picture(), marks=(Mark((0, 0, 1, 1), "a", "true"),))
    assert "blue box" in reading(bare, boxed)
    mapped = Example("t", "", picture(), (MapLayer("m", np.ones((2, 2))),))
    assert "grey picture" in reading(mapped)
    assert "two signs" not in reading(mapped)
    assert "two signs" in reading(mapped, wrong())


def test_maps_are_bytes_of_their_levels_on_the_scale_of_their_limit() -> None:
    worst, best = Page(explain_report("T", answer=[], classes=make_classes())).data("explain-0-0")
    unsigned, signed = worst["examples"][0]["layers"]
    for found, values in ((unsigned, np.abs(VALUES)), (signed, VALUES)):
        assert (found["grid"], found["scale"]) == ([5, 7], LIMIT)
        level = np.frombuffer(base64.b64decode(found["levels"]), dtype=np.uint8).reshape(5, 7).astype(float)
        share = (2 * level - 254) / 254 if found["signed"] else level / 254
        np.testing.assert_allclose(share * LIMIT, np.clip(values, -LIMIT, LIMIT), atol=LIMIT / 250)
    assert signed["ends"] == ["cheetah", "leopard"]
    assert best["examples"][0]["layers"][0]["scale"] == 0.0


def test_large_maps_and_pictures_are_made_smaller_and_small_ones_kept() -> None:
    values = np.zeros((160, 80))
    values[:80] = 3.0
    example = Example("t", "", picture(900, 600), (MapLayer("m", values),))
    found = Page(explain_report("T", answer=[], classes=[ClassPage("a", worst=[example])])).data("explain-0-0")
    (one,) = found[0]["examples"]
    assert (one["layers"][0]["grid"], one["layers"][0]["scale"]) == ([40, 40], 3.0)
    assert opened(one["picture"]).size == (256, 384)
    assert opened(jpeg_uri(picture(60, 80), 384)).size == (80, 60)
    assert one["size"] == [CANVAS_SIDE, round(CANVAS_SIDE * 600 / 900)]


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def test_pictures_become_smaller_as_they_become_more() -> None:
    sides = [picture_side(n) for n in (0, 1, 122, 600, 2400, 100_000)]
    assert sides == [384, 384, 384, 173, 96, 96]  # sqrt(18e6 / 600) = 173.2


def test_a_hundred_classes_of_six_examples_stay_below_15_megabytes() -> None:
    values, image = np.random.default_rng(1).normal(size=(80, 80)), picture(224, 224)
    signed = [MapLayer(name, values, signed=True, limit=4.0) for name in ("a", "b", "c")]
    example = Example("taken for b, 92 %", "test/a/0001.png: a has 3 %, rank 2", image, tuple(signed))
    classes = [ClassPage(f"class {i}", {"accuracy": i / 100}, [example] * 3, [example] * 3) for i in range(100)]
    page = explain_report("T", answer=[], classes=classes)
    assert 1e6 < len(page) < 15e6


def test_an_impossible_limit_is_named() -> None:
    example = Example("t", "", picture(), (MapLayer("m", VALUES, limit=-1.0),))
    with pytest.raises(ArgumentError, match="limit=-1"):
        explain_report("T", answer=[], classes=[ClassPage("a", worst=[example])])


PROBE = """
<script>
const found = (selector, within = document) => [...within.querySelectorAll(selector)];
const classes = document.getElementById("section-1"), pairs = document.getElementById("section-2");
const one = (selector, within = classes) => within.querySelector(selector);
const words = (selector, within = classes) => found(selector, within).map((element) => element.textContent);
const list = one(".list"), search = one("input[type=search]"), sort = one("select");
const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
const change = (element, value) => { element.value = value; element.dispatchEvent(new Event("change")); };
const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
const names = () => words(".list .name").join();
const chosen = () => words(".item h3").join();
const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
const pixels = (canvas) => base64(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
const said = {};
said["maps"] = found(".view canvas", classes).map((canvas) => [canvas.height, canvas.width, pixels(canvas)]);
said["bars"] = found(".bar", classes).map((canvas) => [canvas.height, canvas.width, pixels(canvas)]);
said["first"] = [chosen(), names(), words(".list li span:last-child").join(), one(".count").textContent];
said["facts"] = words(".item dl div").join();
said["headings"] = words(".item h4").join();
said["titles"] = words(".example .title").join();
said["panels"] = words(".panel .of").join();
said["ends"] = words(".ends").join("|");
said["labels"] = words(".view span").join();
said["boxes"] = found(".view rect:not(.halo)", classes).map((rect) => rect.getAttribute("class")).join();
said["of pairs"] = [words(".item h3", pairs).join(), words(".example", pairs).length];
const view = found(".view", classes)[2].getBoundingClientRect();
const move = { clientX: view.left + view.width * 0.5, clientY: view.top + view.height * 0.5 };
found(".view", classes)[2].dispatchEvent(new MouseEvent("pointermove", move));
said["here"] = words("output")[1];
press(list, "ArrowDown");
said["down"] = [chosen(), list.getAttribute("aria-activedescendant"), words("[aria-selected=true] .name").join()];
said["no examples"] = words(".item p").join();
press(list, "End");
said["end"] = chosen();
press(list, "ArrowDown");
said["beyond"] = chosen();
press(list, "Home");
said["home"] = chosen();
found(".controls button", classes)[1].click();
said["next"] = chosen();
found(".list li", classes)[3].click();
said["clicked"] = chosen();
change(sort, "0");
said["by accuracy"] = names();
one(".sort button").click();
said["turned"] = names();
change(sort, "name");
said["by name"] = names();
change(sort, "2");
said["by images"] = [names(), words(".list li span:last-child").join()];
type("E");
said["search"] = [names(), one(".count").textContent, chosen()];
press(search, "Enter");
said["entered"] = [chosen(), document.activeElement === list];
type("zebra");
said["nothing"] = [names(), one(".count").textContent];
press(search, "Escape");
said["escaped"] = found(".list li", classes).length;
const range = one("input[type=range]");
range.value = 20;
range.dispatchEvent(new Event("input"));
change(sort, "given");
press(list, "Home");
said["strength"] = [".view canvas", ".bar"].map((name) => getComputedStyle(one(name)).opacity).join();
const shown = (selector) => getComputedStyle(one(selector)).display;
said["with boxes"] = [shown(".view svg"), shown(".view span")].map((display) => display !== "none").join();
one(".controls input[type=checkbox]").click();
said["without boxes"] = [shown(".view svg"), shown(".view span")].join();
const all = found(".controls input[type=checkbox]", classes)[1];
all.click();
window.dispatchEvent(new Event("beforeprint"));
said["all"] = chosen();
parent.postMessage(JSON.stringify(said), "*");
</script>
"""


@pytest.fixture
def said(tmp_path: Path, chromium: str) -> Mapping[str, Any]:
    """Return what `PROBE` says, run in the page inside a frame with the sandbox of MLflow's artifact view."""
    page = explain_report(HOSTILE, answer=[], classes=make_classes((HOSTILE, "ant", "bee", "oak")), pairs=make_pairs())
    many = page.replace("SEARCH_FROM = 10", "SEARCH_FROM = 1")  # four classes, but the search is to be tried
    assert many != page
    inner = many.replace("</body>", f"{PROBE}</body>")
    outer = f"""<!DOCTYPE html><body><pre id="said"></pre>
      <script>onmessage = (event) => {{ document.getElementById("said").textContent = event.data; }};</script>
      <iframe sandbox="allow-scripts" width="1280" height="1500" srcdoc="{html.escape(inner)}"></iframe></body>"""
    (tmp_path / "outer.html").write_text(outer, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1600", "--dump-dom"]
    options += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, *options, (tmp_path / "outer.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    match = re.search(r'<pre id="said">(.+?)</pre>', dom, re.DOTALL)
    assert match, dom[:500]
    return dict(json.loads(html.unescape(match[1])))


def test_in_a_sandboxed_frame_the_page_works_and_draws_what_python_draws(said: Mapping[str, Any]) -> None:
    size = (72, 96)  # of the canvas, for a picture of 60 by 80
    over = [
        layer(levels(np.abs(VALUES), limit=LIMIT), size),
        layer(levels(VALUES, limit=LIMIT, signed=True), size, signed=True),
        np.zeros((*size, 4)),
    ]
    for drawn, expected in zip(said["maps"], over, strict=True):
        assert_drawn(drawn, expected)
    every_level = np.arange(255, dtype=np.uint8)[None]
    for drawn, signed in zip(said["bars"], (False, True), strict=True):
        assert_drawn(drawn, layer(every_level, (1, 255), signed=signed))

    first = [HOSTILE, f"{HOSTILE},ant,bee,oak", "0.500,0.250,\N{EN DASH},0.750", "4 classes; the number is accuracy"]
    assert said["first"] == first
    assert said["facts"] == f"accuracy0.500,note{HOSTILE} & co,images12"
    assert said["headings"] == "Worst predictions,Best predictions"
    assert said["titles"] == "1. taken for cheetah, 92 %,1. right, 99 %"
    assert said["panels"] == "picture,for leopard,difference,picture,for leopard"
    assert said["ends"] == "02.5||\N{MINUS SIGN}2.52.5|cheetahleopard|zero everywhere"
    assert said["labels"].startswith("leopard,cheetah 92 %")
    assert said["boxes"] == "true,predicted," * 2 + "true,predicted"
    assert said["of pairs"] == ["leopard → cheetah", 1]
    middle = float(said["here"].removeprefix("here ").replace("\N{MINUS SIGN}", "-"))
    assert middle == pytest.approx(VALUES[2, 3], abs=0.1)

    assert said["down"] == ["ant", "explain-option-0-1", "ant"]
    assert said["no examples"] == "No examples."
    assert (said["end"], said["beyond"], said["home"], said["next"], said["clicked"]) == (
        "oak", "oak", HOSTILE, "ant", "oak",
    )  # fmt: skip
    assert said["by accuracy"] == f"ant,{HOSTILE},oak,bee"
    assert said["turned"] == f"oak,{HOSTILE},ant,bee"
    assert said["by name"] == f"{HOSTILE},ant,bee,oak"
    assert said["by images"] == [f"{HOSTILE},ant,bee,oak", "12" + ",\N{EN DASH}" * 3]
    assert said["search"] == [f"{HOSTILE},bee", "2 of 4 classes; the number is images", "oak"]
    assert said["entered"] == [HOSTILE, True]
    assert said["nothing"] == ["", "No class is named so."]
    assert said["escaped"] == 4
    assert said["strength"] == "0.2,0.2"
    assert (said["with boxes"], said["without boxes"]) == ("true,true", "none,none")
    assert said["all"] == f"{HOSTILE},ant,bee,oak"


def assert_drawn(drawn: tuple[int, int, str], expected: npt.NDArray[Any]) -> None:
    """Compare a canvas with a layer: the same opacity but at ties, colours as far as the opacity lets them be seen.

    A value half-way between two levels is rounded to the even one by numpy and up by the script, so that few pixels
    are one level apart: 255 / 127 of opacity where the scale has two signs.
    """
    height, width, text = drawn
    found = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(height, width, 4).astype(float)
    assert found.shape == expected.shape
    wanted = expected.astype(float)
    apart = np.abs(found[..., 3] - wanted[..., 3])
    assert apart.max() <= np.ceil(255 / 127)
    assert (apart > 0).mean() < 0.001
    # A canvas keeps colours multiplied by their opacity, in whole numbers.
    seen = found[..., 3:] / 255 * found[..., :3]
    np.testing.assert_allclose(seen, wanted[..., 3:] / 255 * wanted[..., :3], atol=2.5)
