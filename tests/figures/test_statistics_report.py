"""The interactive page: what it holds, and that it works in a browser's sandboxed frame without any connection."""

import base64
import html
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from mlflow_yolo.figures.statistics_report import MOST_COLUMNS, encode, page_data, statistics_report

NAN = float("nan")
COLUMNS = ["epoch", "step", "block", "name", "kind", "statistic", "value"]
HOSTILE = "04-</script ><img src=x onerror=document.title='hacked'>"


def make_frame(n_epochs: int = 2, n_steps: int = 3, *, name: str = "04-C3k2") -> pd.DataFrame:
    """Return gradients of blocks 4 and 5 of value 10 * epoch + step (+ 1), block 0 frozen, one bad step."""
    rows: list[tuple[Any, ...]] = []
    for epoch in range(1, n_epochs + 1):
        rows += [
            (epoch, step, block, name if block == 4 else "05-Conv", "gradients", "l2", 10.0 * epoch + step + block - 4)
            for step in range(n_steps)
            for block in (4, 5)
        ]
        rows.append((epoch, n_steps - 1, 4, name, "activations", "off_fraction", 0.25 * (epoch % 4)))
        rows.append((epoch, n_steps - 1, 0, "00-Conv", "state", "frozen", 1.0))
        rows.append((epoch, n_steps - 1, -1, "model", "state", "n_steps", float(n_steps)))
    rows.append((1, 1, -1, "model", "global", "nonfinite_block", 5.0))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"name": "category", "kind": "category", "statistic": "category"})


def make_arrays(n_epochs: int = 2) -> dict[str, npt.NDArray[Any]]:
    counts = np.zeros((n_epochs, 2, 2, 64), dtype=np.int64)
    counts[:, 0, :, 36:39] = 4
    zeros = np.zeros((n_epochs, 2), dtype=np.int64)
    return {
        "epochs": np.arange(1, n_epochs + 1),
        "blocks": np.array([4, 5]),
        "weights": counts,
        "weights_zeros": zeros + 7,
        "ema_weights": counts,
        "gradients": 0 * counts,
        "gradients_zeros": zeros,
    }


def decode(text: str) -> npt.NDArray[np.float32]:
    triples = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, 3)
    return np.hstack([np.zeros((len(triples), 1), dtype=np.uint8), triples]).copy().view("<f4").ravel()


def test_encoded_values_are_exact_to_a_part_in_65000_and_keep_nan_and_infinity() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-25, 25).repeat(10), [0.0]])
    found = decode(encode(values)).astype(np.float64)
    np.testing.assert_allclose(found, values, rtol=1 / 65_000)
    special = decode(encode([NAN, np.inf, -np.inf, 1e300]))
    np.testing.assert_array_equal(special, np.array([NAN, np.inf, -np.inf, np.inf], dtype=np.float32))


def test_the_page_holds_columns_means_frozen_epochs_and_bad_steps() -> None:
    data = page_data(make_frame(), make_arrays())
    assert data["blocks"] == [[0, "00-Conv"], [4, "04-C3k2"], [5, "05-Conv"]]
    assert (data["epochs"], data["frozen"], data["nonfinite"]) == ([1, 2], {0: [1, 2]}, [(1, 1, 5)])
    gradients, activations = data["statistics"]
    assert (gradients["kind"], gradients["name"], gradients["blocks"]) == ("gradients", "l2", [4, 5])
    assert decode(gradients["mean"]).tolist() == [10, 11, 11, 12, 12, 13, 20, 21, 21, 22, 22, 23]
    assert decode(gradients["epochMeans"]).tolist() == [11, 12, 21, 22]  # of epoch 1 without its bad step: 10 and 12
    assert (gradients["low"], gradients["high"]) == (None, None)
    axis = data["axes"][gradients["axis"]]
    assert (axis["nSteps"], axis["perColumn"], axis["starts"]) == (6, 1, [0, 3])
    assert decode(activations["mean"]).tolist() == [0.25, 0.5]
    assert activations["epochMeans"] is None
    shares = data["histograms"]["kinds"]["weights"]
    assert shares["sizes"] == [[24 + 7, 7]] * 2
    assert list(data["histograms"]["kinds"]) == ["weights", "ema_weights"]  # there are no gradients in the arrays


def test_ten_thousand_steps_are_gathered_and_the_page_stays_small() -> None:
    frame = make_frame(n_epochs=100, n_steps=100)
    data = page_data(frame, make_arrays(100))
    axis = data["axes"][data["statistics"][0]["axis"]]
    assert (axis["nSteps"], axis["perColumn"], len(axis["firstStep"])) == (10_000, 20, MOST_COLUMNS)
    assert decode(data["statistics"][0]["high"])[0] == 29
    assert data["histograms"]["epochs"][::11] == [1, 100]
    assert len(statistics_report(frame, make_arrays(100), title="run")) < 150_000


def test_statistics_stand_by_kind_and_those_sampled_together_share_an_axis() -> None:
    frame = make_frame()
    more = frame[frame.statistic == "l2"].assign(statistic="l1")
    data = page_data(pd.concat([frame, more]), {})
    assert [(found["name"], found["axis"]) for found in data["statistics"]] == [
        ("l2", 0),
        ("l1", 0),
        ("off_fraction", 1),
    ]


class Scripts(HTMLParser):
    """Collects the text of every script element and the names of all elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: set[str] = set()
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag == "script":
            assert "src" not in dict(attrs)
            self._inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


def test_names_cannot_leave_the_data() -> None:
    page = statistics_report(make_frame(name=HOSTILE), make_arrays(), title=HOSTILE, facts={HOSTILE: HOSTILE})
    found = Scripts(page)
    assert len(found.texts) == 2
    assert "img" not in found.elements
    assert "<" not in found.texts[0]
    assert [4, HOSTILE] in json.loads(found.texts[0])["blocks"]


def test_the_page_asks_for_nothing() -> None:
    page = statistics_report(make_frame(), make_arrays(), title="run")
    assert "default-src 'none'" in page
    assert not re.findall(r"https?://|//cdn|@import|\bfetch\(|XMLHttpRequest", page)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_a_run_with_hardly_anything_has_a_page_too(n_rows: int) -> None:
    assert "<main" in statistics_report(make_frame().head(n_rows), {}, title="run")


PROBE = """
<script>
const say = (name) => { const p = document.createElement("p"); p.textContent = name; document.body.append(p); };
const told = (id) => document.getElementById(id).textContent;
const heat = document.getElementById("heat"), count = (selector) => document.querySelectorAll(selector).length;
const press = (key) => heat.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
const pixel = (x, y) => heat.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3).join();
say("summary=" + told("summary"));
say("at first=" + told("curve-heading"));
say("cursor at first=" + document.getElementById("heat-cursor").hidden);
press("ArrowRight");
const cursor = document.getElementById("heat-cursor"), column = (heat.clientWidth - 150 - 92) / 6;
say("cursor=" + (cursor.offsetLeft === 150 && Math.abs(cursor.offsetWidth - column) < 1));
say("first step=" + told("readout"));
press("End");
say("last step=" + told("readout"));
press("PageUp");
say("epoch before=" + told("readout"));
press("ArrowDown");
say("next block=" + told("readout"));
const box = heat.getBoundingClientRect();
heat.dispatchEvent(new MouseEvent("click", { clientX: box.left + 300, clientY: box.top + 14 + 5 }));
say("clicked=" + told("curve-heading"));
press("Home");
say("frozen=" + told("readout"));
say("table=" + told("means"));
const choice = document.getElementById("statistic");
choice.value = "1";
choice.dispatchEvent(new Event("change"));
say("chosen=" + told("heat-heading"));
say("smalls=" + count(".small") + " histograms=" + count("#histograms canvas"));
say("drawn=" + (pixel(200, 40) !== "0,0,0"));
</script>
"""


def test_in_a_sandboxed_frame_blocks_and_steps_are_chosen_by_keys_and_clicks(tmp_path: Path, chromium: str) -> None:
    said = say_in_browser(make_frame(), make_arrays(), tmp_path, chromium)
    assert said["summary"] == (
        "2 epochs, 3 blocks. Frozen throughout: 00-Conv. "
        "Gradients that are not finite at 1 step: epoch 1, step 2 in 05-Conv."
    )
    assert said["at first"] == "04-C3k2: gradients · L2"
    assert said["first step"] == "04-C3k2, epoch 1, step 1: 10"
    assert said["last step"] == "04-C3k2, epoch 2, step 3: 22"
    assert said["epoch before"] == "04-C3k2, epoch 1, step 1: 10"
    assert said["next block"] == "05-Conv, epoch 1, step 1: 11"
    assert said["clicked"] == "00-Conv: gradients · L2"
    assert said["frozen"] == "00-Conv, epoch 1, step 1: frozen"
    assert said["table"] == "epochgradients · L21frozen2frozen"
    assert said["chosen"] == "activations · off fraction, by block and step"
    assert said["smalls"] == "2 histograms=2"
    assert said["cursor at first"] == "true"
    assert said["cursor"] == "true"
    assert said["drawn"] == "true"


def test_in_a_browser_gathered_steps_are_named_as_such(tmp_path: Path, chromium: str) -> None:
    said = say_in_browser(make_frame(n_epochs=100, n_steps=100), make_arrays(100), tmp_path, chromium)
    assert said["first step"] == "04-C3k2, epoch 1, step 1 to 20: 19.5 (10 to 29)"
    assert said["last step"] == "04-C3k2, epoch 100, step 81 to 100: 1090 (1080 to 1099)"


def say_in_browser(
    frame: pd.DataFrame, arrays: dict[str, npt.NDArray[Any]], folder: Path, chromium: str
) -> dict[str, str]:
    """Return what `PROBE` says, run in the page inside a frame with the sandbox of MLflow's artifact view."""
    page = statistics_report(frame, arrays, title="run").replace("</body>", f"{PROBE}</body>")
    inner = page.replace("</body>", "<script>parent.postMessage(document.body.innerText, '*')</script></body>")
    outer = f"""<!DOCTYPE html><body><pre id="said"></pre>
      <script>onmessage = (event) => {{ document.getElementById("said").textContent = event.data; }};</script>
      <iframe sandbox="allow-scripts" width="1280" height="1500" srcdoc="{html.escape(inner)}"></iframe></body>"""
    (folder / "outer.html").write_text(outer, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1600", "--dump-dom"]
    options += ["--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}"]
    command = [chromium, *options, (folder / "outer.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[:500]
    lines = html.unescape(found[1]).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
