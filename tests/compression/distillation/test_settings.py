"""What a user writes becomes settings, or one line that names what is wrong."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.compression.distillation.settings import (
    DEFAULT_LOSSES,
    LOSSES,
    TEMPERATURES,
    Distillation,
    parse_distillation,
)
from mlflow_yolo.compression.distillation.teacher import check_task
from mlflow_yolo.exceptions import ArgumentError


def test_losses_and_weights_are_read_from_one_word() -> None:
    settings = parse_distillation("teacher.pt", "response=1, localisation=0.5,cwd=1e1", warmup_epochs=2, trust=True)
    weights = {"response": 1.0, "localisation": 0.5, "cwd": 10.0}
    assert settings == Distillation("teacher.pt", weights, {}, 2, True)


def test_a_teacher_in_the_working_directory_is_found_again_from_another_one() -> None:
    Path("near.pt").touch()  # every test has a working directory of its own
    assert parse_distillation("near.pt", "response=1").teacher == str(Path.cwd() / "near.pt")
    assert parse_distillation("digits", "response=1").teacher == "digits"


@pytest.mark.parametrize("task", ["detect", "segment", "classify"])
def test_the_usual_losses_of_a_task_can_be_used_for_it(task: str) -> None:
    check_task(parse_distillation("t.pt", DEFAULT_LOSSES[task]), task)


def test_temperatures_are_the_usual_ones_unless_named() -> None:
    settings = parse_distillation("t.pt", "response=1", temperature="cwd=1.5")
    assert settings.temperature("cwd") == 1.5
    assert settings.temperature("response") == TEMPERATURES["response"]


def test_one_number_is_the_temperature_of_every_loss() -> None:
    settings = parse_distillation("t.pt", "response=1", temperature="3")
    assert {loss: settings.temperature(loss) for loss in TEMPERATURES} == dict.fromkeys(TEMPERATURES, 3.0)


def test_settings_survive_a_job_file() -> None:
    settings = parse_distillation("t.pt", "response=1,rkd=0", temperature="response=4", warmup_epochs=0.5, trust=True)
    assert Distillation.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_a_weight_of_zero_is_a_loss_that_is_only_measured() -> None:
    assert parse_distillation("t.pt", "response=0").weights == {"response": 0.0}


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ("", "no loss"),
        (" , ", "no loss"),
        ("respose=1", "response"),
        ("magic=1", "fitnets"),
        ("response=-1", "response=-1"),
        ("response=nan", "nan"),
        ("response=inf", "inf"),
        ("response=much", "response=much"),
        ("response", "losses=response has no number"),
        ("response=", "response="),
        ("response=1,response=2", "twice"),
        ("=1", "losses="),
    ],
)
def test_losses_that_cannot_be_read_are_named(losses: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as caught:
        parse_distillation("t.pt", losses)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("temperature", "named"),
    [
        ("0", "temperature=0"),
        ("-2", "temperature=-2"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("warm", "warm"),
        ("response=0", "response"),
        ("rkd=2", "rkd"),
        ("respnse=2", "response"),
    ],
)
def test_temperatures_that_are_none_are_named(temperature: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        parse_distillation("t.pt", "response=1", temperature=temperature)


@pytest.mark.parametrize("wrong", [{"teacher": ""}, {"warmup_epochs": -1.0}, {"warmup_epochs": math.nan}])
def test_no_teacher_and_no_duration_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Distillation(**{"teacher": "t.pt", "weights": {"response": 1.0}} | wrong)


def test_every_temperature_belongs_to_a_loss() -> None:
    assert TEMPERATURES.keys() < LOSSES.keys()
