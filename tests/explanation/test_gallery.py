"""Which examples are shown where, and how findings become files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlflow_yolo.explanation.artifacts import note, summary, write_findings
from mlflow_yolo.explanation.findings import Findings
from mlflow_yolo.explanation.gallery import Chosen, Gallery, hang
from mlflow_yolo.explanation.page import NOTHING_SHOWN, pair_pages, recommendation_section, table_section
from mlflow_yolo.figures.example import Example
from mlflow_yolo.stages import Stages


@dataclass(frozen=True)
class Cases:
    worst: tuple[str, ...]
    best: tuple[str, ...] = ()


def example(title: str) -> Example:
    return Example(title, "", np.zeros((8, 8, 3), dtype=np.uint8))


CHOSEN = Chosen({0: Cases(("a", "b"), ("c",)), 1: Cases(())}, {(0, 1): ("a", "d")})


def test_every_case_is_drawn_once_though_it_is_shown_twice() -> None:
    assert CHOSEN.cases() == ["a", "b", "c", "d"]
    drawn = {case: example(case) for case in CHOSEN.cases()}
    found = hang(CHOSEN, drawn)
    assert found.worst[0] == [drawn["a"], drawn["b"]]
    assert found.best == {0: [drawn["c"]], 1: []}
    assert found.pairs == {(0, 1): [drawn["a"], drawn["d"]]}


def test_there_is_a_file_for_every_class_and_pair_with_examples() -> None:
    files = hang(CHOSEN, {case: example(case) for case in "abcd"}).files(["x/y", "z"])
    assert {path: [one.title for one in of] for path, of in files.items()} == {
        "worst/x_y": ["a", "b", "c"],
        "pairs/x_y__z": ["a", "d"],
    }


def findings(**changed: object) -> Findings:
    given = {
        "metrics": {},
        "tables": {"classes": pd.DataFrame({"name": ["x"], "n": [3]})},
        "figures": {"matrix": b"png"},
        "examples": {"worst/x": [example("a")]},
        "page": "<p>page</p>",
        "answer": ["It is so.", "And so."],
        "recommendations": ["Do this."],
        "shown": {"Classes": pd.DataFrame({"a_name": ["x"]}), "Nothing": pd.DataFrame({"b": []})},
    }
    return Findings(**{**given, **changed})  # type: ignore[arg-type]


def test_findings_are_files(tmp_path: Path) -> None:
    folder = write_findings(findings(), tmp_path)
    assert (folder / "classes.csv").read_text() == "name,n\nx,3\n"
    assert (folder / "matrix.png").read_bytes() == b"png"
    with Image.open(folder / "worst" / "x.jpg") as picture:
        assert picture.format == "JPEG"
    assert (folder / "report.html").read_text() == "<p>page</p>"
    assert (folder / "recommendations.txt").read_text() == "- Do this.\n"
    assert (folder / "summary.txt").read_text() == summary(findings())


def test_that_nothing_follows_is_said(tmp_path: Path) -> None:
    folder = write_findings(findings(recommendations=[]), tmp_path)
    assert (folder / "recommendations.txt").read_text() == NOTHING_SHOWN + "\n"
    assert recommendation_section([]).text == NOTHING_SHOWN


def test_the_summary_holds_answer_tables_and_advice_and_no_empty_table() -> None:
    assert summary(findings()) == "It is so.\nAnd so.\n\nClasses:\na name\n──────\nx\n\n- Do this.\n"
    assert note(findings()) == "It is so.\n\nAnd so.\n\n- Do this.\n\nReport: `explain/report.html`"
    assert note(findings(recommendations=[])) == "It is so.\n\nAnd so.\n\nReport: `explain/report.html`"


def test_a_long_table_says_that_it_was_cut_and_an_empty_one_that_it_is_empty() -> None:
    table = pd.DataFrame({"a_b": [1.0, np.nan, 3.0]})
    section = table_section("Heading", "Text.", table, most=2)
    assert section.table is not None
    assert (section.table.columns, section.table.rows) == (["a b"], [[1.0], [None]])
    assert section.text == "Text.\n\nThe first 2 of 3 rows; the CSV has all."
    empty = table_section("Heading", "Text.", table.head(0))
    assert (empty.table, empty.text) == (None, "Text.\n\nNone on this split.")


def test_a_pair_shows_its_rate_where_there_is_one() -> None:
    columns = {"true_id": [0], "predicted_id": [1], "rate": [0.4], "low": [0.2], "high": [0.625]}
    gallery = Gallery({}, {}, {(0, 1): [example("a")], (1, 0): []})
    first, second = pair_pages(gallery, pd.DataFrame(columns), np.array([[3, 2], [1, 4]]), ["x", "y"])
    assert first.facts == {"confused": 2, "rate": 0.4, "95 % interval": "0.200 to 0.625"}
    assert (second.true, second.predicted, second.facts) == ("y", "x", {"confused": 1})


def test_progress_is_shown_stage_by_stage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Stages() as stages:
        count = stages.count("validation")
        count(1, 2)
        count(2, 2)
        done = stages.begin("examples", 3)
        done(2)
    shown = capsys.readouterr().err
    assert "validation" in shown
    assert "examples" in shown
    assert shown.index("validation") < shown.index("examples")


def test_nothing_is_shown_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        stages.begin("examples", 3)(2)
    assert capsys.readouterr().err == ""
