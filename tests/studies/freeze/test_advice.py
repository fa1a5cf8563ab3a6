"""The advice of a study: logged, kept, never a reason to stop; and held against what was measured."""

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlflow_yolo.blocks import Block
from mlflow_yolo.exceptions import ArgumentError, DatasetError
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.studies.freeze import advice_process
from mlflow_yolo.studies.freeze.advice import check_source, correlation, log_advice, read_advice, table
from mlflow_yolo.training.block_need import BlockAdvice
from mlflow_yolo.training.freeze_advice import FreezeAdvice
from mlflow_yolo.training.job import read_json, write_json
from mlflow_yolo.training.plan import Plan, Stage

NEEDS = (1.0, None, 20.0, 3.0)
"""The average is 8, little is 4: the scores of the depths 0 to 4 are 0, 3, 3, -13 and -12."""
ADVICE = FreezeAdvice(
    blocks=(
        *(BlockAdvice(i, f"{i:02d}-Conv", "backbone", need, need=need) for i, need in enumerate(NEEDS)),
        BlockAdvice(4, "04-Detect", "head", 5.0, need=5.0),
    ),
    depth=1,
    reasons=("Because.",),
    data="cells",
    source=None,
    n_batches=8,
    n_images=128,
)
PLAN = Plan("start.pt", "cells.yaml", "detect", (Stage(1, (), 0.01, 0.0),), 0, 64, 4, "cpu", "AdamW")


class Parent:
    """Keeps what is logged into it."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.texts: dict[str, str] = {}
        self.files: list[tuple[str, str]] = []

    def log_params(self, values: dict[str, Any]) -> None:
        self.params |= values

    def log_text(self, text: str, artifact_file: str) -> None:
        self.texts[artifact_file] = text

    def log_file(self, path: Path, artifact_path: str) -> None:
        assert path.read_bytes().startswith(b"\x89PNG")
        self.files.append((path.name, artifact_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Let a program of three lines stand for the advisor; return the file it writes a line into when it is asked."""
    write_json(tmp_path / "given.json", ADVICE.to_json())
    program = tmp_path / "advisor.py"
    program.write_text(
        "import json, pathlib, shutil, sys\n"
        "job = json.load(open(sys.argv[1]))\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'asked').open('a').write(f\"{job['source']}\\n\")\n"
        "if job['plan']['data'] == 'broken.yaml':\n"
        "    print(json.dumps({'error': 'It is broken.'}), flush=True)\n"
        "    sys.exit(1)\n"
        "if job['plan']['data'] == 'killed.yaml': import os; os.kill(os.getpid(), 9)\n"
        "print(json.dumps({'done': 1, 'total': 1}), flush=True)\n"
        "shutil.copy(folder / 'given.json', job['output'])\n"
    )
    import sys

    monkeypatch.setattr(advice_process, "_WORKER", (sys.executable, str(program)))
    return [str(tmp_path / "asked")]


def study(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir(exist_ok=True)
    return tmp_path / "study"


def test_depth_table_and_figure_are_logged_and_the_advice_is_kept(asked: list[str], tmp_path: Path) -> None:
    parent = Parent()

    assert log_advice(parent, study(tmp_path), PLAN) == ADVICE  # type: ignore[arg-type]
    assert parent.params == {"advice/freeze": 1}
    assert parent.files == [("freeze_advice.png", "figures")]
    assert list(parent.texts) == ["advice.csv"]
    assert read_advice(study(tmp_path)) == ADVICE
    assert read_json(study(tmp_path) / "advice.json")["depth"] == 1


def test_a_study_that_goes_on_asks_once_and_logs_the_same(asked: list[str], tmp_path: Path) -> None:
    first, second = Parent(), Parent()
    log_advice(first, study(tmp_path), PLAN)  # type: ignore[arg-type]
    assert log_advice(second, study(tmp_path), replace(PLAN, seed=3)) == ADVICE  # type: ignore[arg-type]

    assert Path(asked[0]).read_text() == "None\n"
    assert (second.params, second.texts, second.files) == (first.params, first.texts, first.files)


def test_another_source_is_another_question(asked: list[str], tmp_path: Path) -> None:
    log_advice(Parent(), study(tmp_path), PLAN)  # type: ignore[arg-type]
    log_advice(Parent(), study(tmp_path), PLAN, source="digits")  # type: ignore[arg-type]

    assert Path(asked[0]).read_text() == "None\ndigits\n"


@pytest.mark.parametrize(("data", "reason"), [("broken.yaml", "It is broken"), ("killed.yaml", "ended early; see ")])
def test_an_advisor_that_fails_is_a_note_and_is_asked_again_by_the_next_start(
    asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], data: str, reason: str
) -> None:
    parent = Parent()
    for _ in range(2):
        assert log_advice(parent, study(tmp_path), replace(PLAN, data=data)) is None  # type: ignore[arg-type]

    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("note: no freeze advice: ")
    assert reason in lines[0]
    assert (parent.params, parent.texts, parent.files) == ({}, {}, [])
    assert Path(asked[0]).read_text() == "None\nNone\n"
    assert read_advice(study(tmp_path)) is None


def test_a_failed_advisor_leaves_no_earlier_advice_of_another_question(asked: list[str], tmp_path: Path) -> None:
    log_advice(Parent(), study(tmp_path), PLAN)  # type: ignore[arg-type]
    log_advice(Parent(), study(tmp_path), replace(PLAN, data="broken.yaml"))  # type: ignore[arg-type]

    assert read_advice(study(tmp_path)) is None


def test_a_folder_that_cannot_be_written_is_a_note(
    asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert log_advice(Parent(), tmp_path / "nowhere", PLAN) is None  # type: ignore[arg-type]
    assert "FileNotFoundError" in capfd.readouterr().err


def test_an_untrained_model_gets_no_advice(asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert log_advice(Parent(), study(tmp_path), replace(PLAN, model="yolo11n.yaml")) is None  # type: ignore[arg-type]
    assert "untrained" in capfd.readouterr().err
    assert not Path(asked[0]).exists()


def test_the_table_has_one_line_a_block_and_what_speaks_for_freezing_up_to_it() -> None:
    found = pd.read_csv(io.StringIO(table(ADVICE)))

    assert list(found["name"]) == ["00-Conv", "01-Conv", "02-Conv", "03-Conv", "04-Detect"]
    assert list(found["score"][:4]) == [3.0, 3.0, -13.0, -12.0]
    assert math.isnan(found["score"][4])
    assert math.isnan(found["need"][1])


def test_an_order_that_was_measured_as_advised_is_shown_where_chance_and_depth_alone_do_not_give_it() -> None:
    advice = replace(
        ADVICE, blocks=tuple(replace(b, need=n) for b, n in zip(ADVICE.blocks, (1, 1.5, 1, 30, 5), strict=True))
    )
    assert advice.scores == pytest.approx((0.0, 3.1875, 5.875, 9.0625, -16.75))

    found = correlation(advice, {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.8, 4: 0.1}, metric="test mAP50-95")
    assert (found.advice.rho, found.advice.p) == (pytest.approx(1.0), pytest.approx(1 / 120))
    assert found.fewer.rho == pytest.approx(0.0)
    assert found.shown
    assert found.text == (
        "Over 5 depths the advice and the measured test mAP50-95 have the rank correlation +1.00 (Spearman, p = 0.008 "
        "one-sided, over all orders); that fewer frozen blocks are better has +0.00. The advice held in this study."
    )
    assert found.metrics == {
        "advice/rank_correlation": found.advice.rho,
        "advice/p": found.advice.p,
        "advice/rank_correlation_fewer_frozen": found.fewer.rho,
    }


def test_an_order_that_depth_alone_gives_as_well_stays_a_hint() -> None:
    falling = replace(ADVICE, blocks=tuple(replace(block, need=10.0 + i * 0) for i, block in enumerate(ADVICE.blocks)))
    found = correlation(falling, {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6, 4: 0.5})

    assert found.advice.rho == found.fewer.rho == pytest.approx(1.0)
    assert not found.shown
    assert found.text.endswith("It stays a hint.")


def test_the_opposite_order_stays_a_hint() -> None:
    found = correlation(ADVICE, {0: 0.3, 1: 0.1, 3: 0.9})

    assert found.advice.rho == pytest.approx(-1.0)
    assert not found.shown


@pytest.mark.parametrize(
    "measured", [{}, {0: 0.5}, {0: 0.5, 3: 0.4}, {0: 0.5, 3: math.nan, 4: 0.1}, {0: 1, 3: 1, 99: 2}]
)
def test_fewer_than_three_depths_say_nothing(measured: dict[int, float]) -> None:
    found = correlation(ADVICE, measured)

    assert found.metrics == {}
    assert found.text == "Whether the advice holds cannot be said from fewer than three depths: it stays a hint."


def test_depths_measured_alike_say_nothing() -> None:
    found = correlation(ADVICE, {0: 0.5, 1: 0.5, 3: 0.5})
    assert "advised or measured alike" in found.text
    assert not found.shown


def test_the_source_must_have_the_models_classes(small_data: Path) -> None:
    model = Model("start.pt", "detect", (Block(0, "Conv", "head"),), "", ("dark", "bright"))

    assert check_source(str(small_data), model).names == ("bright", "dark")
    with pytest.raises(ArgumentError, match="bright, dark, the model car"):
        check_source(str(small_data), replace(model, names=("car",)))
    with pytest.raises(DatasetError, match="nowhere"):
        check_source("nowhere.yaml", model)
