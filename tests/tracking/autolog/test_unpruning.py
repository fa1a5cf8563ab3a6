"""A pruned model that is about to be un-pruned is not left without a word."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlflow_yolo.tracking.autolog.unpruning import warn_of_unpruning


@pytest.fixture(scope="module")
def network() -> Any:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolo11n.yaml", verbose=False)


def narrower_than_its_yaml(network: Any) -> Any:
    pruned = copy.copy(network)
    pruned.yaml = {**network.yaml, "scale": "s"}
    return pruned


def test_a_pruned_model_is_announced_once(network: Any, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unpruning(SimpleNamespace(model=narrower_than_its_yaml(network)), {})

    (record,) = caplog.records
    assert "keeping_modules" in record.getMessage()


def test_a_model_as_its_yaml_says_is_not(network: Any, caplog: pytest.LogCaptureFixture) -> None:
    state = torch.random.get_rng_state()

    warn_of_unpruning(SimpleNamespace(model=network), {})

    assert caplog.records == []
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("trainer", [object])
def test_a_trainer_of_ones_own_decides_itself(network: Any, trainer: type, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unpruning(SimpleNamespace(model=narrower_than_its_yaml(network)), {"trainer": trainer})

    assert caplog.records == []


def test_what_is_no_network_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unpruning(SimpleNamespace(model="yolo11n.onnx"), {})

    assert caplog.records == []
