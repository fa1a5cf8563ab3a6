import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlflow_yolo.figures.html import Details, Picture, Section, Table, report
from mlflow_yolo.figures.style import new_figure

EVIL = "</td><script>alert('x')</script>\"onload='"


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def full_page(text: str = "plain") -> str:
    table = Table(["class", text], [[text, 0.5], ["b", None]])
    return report(
        text,
        answer=[text, "Two.", "Three."],
        facts={text: text},
        sections=[
            Section(text, text=f"{text}\n\nSecond.", table=table, details=Details(text, text, table)),
            Section("Figures", pictures=[Picture(new_figure(width_in=1, height_in=1), text), Picture(b"png", "")]),
            Section("Empty"),
        ],
    )


def test_everything_passed_in_is_escaped() -> None:
    evil, plain = Page(full_page(EVIL)), Page(full_page())
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert [set(attributes) for _, attributes in evil.tags] == [set(attributes) for _, attributes in plain.tags]
    assert EVIL in evil.words


def test_the_page_asks_nobody_for_anything() -> None:
    page = Page(full_page())
    addresses = [value or "" for _, attributes in page.tags for name, value in attributes.items()
                 if name in ("src", "href", "srcset", "action", "data", "poster")]  # fmt: skip
    assert len(addresses) == 5  # two images, three links to sections
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert page.count("link") == page.count("iframe") == 0
    assert not re.search(r"https?://|//cdn|@import|url\(|fetch\(|localStorage|document\.cookie", full_page())


def test_a_policy_forbids_requests() -> None:
    policy = next(a["content"] for tag, a in Page(full_page()).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:")


def test_the_answer_comes_before_the_sections_and_each_once() -> None:
    source = report("T", answer=["First.", "Second.", "Third."], sections=[Section("Heading")])
    places = [source.index(f">{text}<") for text in ("First.", "Second.", "Third.", "Heading")]
    assert places == sorted(places)
    assert source.count("First.") == 1


def test_numbers_are_right_aligned_and_carry_their_sort_key() -> None:
    source = report("T", answer=[], sections=[Section("S", table=Table(["name", "x"], [["a", 0.123456], ["b", None]]))])
    cells = [attributes for tag, attributes in Page(source).tags if tag == "td"]
    assert [cell.get("class") for cell in cells] == [None, "number", None, "number"]
    assert [cell["data-key"] for cell in cells] == ["", "0.123456", "", ""]
    assert ">0.123<" in source


def test_a_page_without_sections_is_a_page() -> None:
    page = Page(report("Title", answer=[], sections=[]))
    assert page.count("h1") == page.count("title") == 1
    assert page.count("section") == page.count("nav") == 0


@pytest.mark.slow
def test_a_click_sorts_by_value_and_leaves_missing_values_last(tmp_path: Path, chromium: str) -> None:
    table = Table(["x"], [["1,200"], [None], ["30"], ["<.5"]])
    source = report("T", answer=[], sections=[Section("S", table=table)])
    script = """<script>
      const button = document.querySelector("th button"), seen = [];
      for (let i = 0; i < 2; i++) {
        button.click();
        seen.push(Array.from(document.querySelectorAll("td"), cell => cell.textContent).join(" "));
      }
      document.title = seen.join(" | ");
    </script></body>"""
    (tmp_path / "page.html").write_text(source.replace("</body>", script), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [chromium, *options, (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search("<title>(.*)</title>", done.stdout)
    assert match is not None
    assert match[1] == "&lt;.5 30 1,200 \N{EN DASH} | 1,200 30 &lt;.5 \N{EN DASH}"
