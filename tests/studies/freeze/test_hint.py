from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_yolo.studies.freeze import report
from mlflow_yolo.studies.freeze.analysis import FreezeAnalysis, analyse
from mlflow_yolo.studies.freeze.hint import Hint, read_hint
from mlflow_yolo.training.job import write_json
from tests.studies.conftest import MakeChild
from tests.studies.freeze.test_advice import ADVICE


@pytest.fixture
def analysis(make_child: MakeChild) -> FreezeAnalysis:
    words = {"0": 0.5, "1": 0.75, "3": 0.25, "6-": 0.9}
    found = analyse([make_child(word, 0, value) for word, value in words.items()])
    assert found is not None
    return found


@pytest.fixture
def hint(analysis: FreezeAnalysis, tmp_path: Path) -> Hint:
    write_json(tmp_path / "advice.json", ADVICE.to_json())
    found = read_hint(tmp_path, analysis)
    assert found is not None
    return found


def test_the_advice_is_held_against_the_depths_and_not_against_other_configurations(hint: Hint) -> None:
    assert hint.correlation.advice.n == 3
    assert hint.correlation.advice.rho == pytest.approx(1.0)
    assert "the measured test mAP50-95" in hint.correlation.text


def test_it_says_what_was_advised_why_and_whether_it_held(hint: Hint) -> None:
    first, why, last = hint.sentences
    assert first == "The freeze advisor, a hint from 128 images of cells before the trainings, was to freeze 1 block."
    assert (why, last) == ("Because.", hint.correlation.text)
    against = replace(hint, advice=replace(hint.advice, depth=0, source="digits")).sentences[0]
    assert "of cells against digits" in against
    assert against.endswith("was to freeze nothing.")


def test_the_table_leaves_out_blocks_without_weights(hint: Hint) -> None:
    assert [row[0] for row in hint.table.rows] == ["00-Conv", "02-Conv", "03-Conv", "04-Detect"]
    assert hint.table.rows[1] == ["02-Conv", "backbone", "20", "20", "", ""]


def test_report_note_and_terminal_carry_it(analysis: FreezeAnalysis, hint: Hint) -> None:
    page = report.html(analysis, [], {}, hint)
    assert "What the freeze advisor said before" in page
    assert "data:image/png;base64" in page
    assert report.note(analysis, None, hint).endswith(hint.correlation.text)
    assert report.terminal_text(analysis, hint).endswith(f"{hint.sentences[0]}\n{hint.correlation.text}")


def test_without_advice_nothing_of_it_is_said(analysis: FreezeAnalysis, tmp_path: Path) -> None:
    assert read_hint(tmp_path, analysis) is None
    assert "advis" not in report.html(analysis, [], {}) + report.note(analysis) + report.terminal_text(analysis)
