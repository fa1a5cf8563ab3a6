from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.sparse import clear_smallest
from mlflow_yolo.compression.pruning.structured import prune_network
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.trainers import trainer_of


@pytest.fixture
def network(small_model: Path) -> YOLO:
    """Return a small model as it is built."""
    torch.manual_seed(0)
    return YOLO(str(small_model), verbose=False)


def pruned(network: YOLO) -> YOLO:
    prune_network(network.model, PruningSettings(0.5, round_to=1))
    return network


def names_of(trainer: Any) -> list[str]:
    """Return what the trainer does more than Ultralytics' own, the last first."""
    assert issubclass(trainer, DetectionTrainer)
    line = trainer.__mro__
    return [kind.__name__ for kind in line[: line.index(DetectionTrainer)]]


def test_a_model_as_its_yaml_says_is_trained_by_ultralytics_own_trainer(network: YOLO, small_plan: Plan) -> None:
    assert trainer_of(network, small_plan) is None


def test_a_pruned_model_keeps_its_modules_through_get_model(network: YOLO, small_plan: Plan) -> None:
    before = deepcopy(network.model)
    trainer = trainer_of(pruned(network), small_plan)
    assert trainer is not None
    assert names_of(trainer) == ["KeepingDetectionTrainer"]
    instance = trainer.__new__(trainer)
    instance.args = type("Args", (), {"dropout": 0.0})()
    instance.data = {"names": network.names, "channels": 3, "nc": 2}
    kept = instance.get_model(weights=network.model)
    shapes = [tuple(parameter.shape) for parameter in kept.parameters()]
    assert shapes == [tuple(parameter.shape) for parameter in network.model.parameters()]
    assert shapes != [tuple(parameter.shape) for parameter in before.parameters()]


def test_a_model_with_cleared_weights_keeps_them_at_zero(network: YOLO, small_plan: Plan) -> None:
    clear_smallest(network.model, 0.5)
    assert names_of(trainer_of(network, small_plan)) == ["ZeroKeepingDetectionTrainer"]


def test_a_teacher_comes_on_top_of_what_keeps_the_model(network: YOLO, small_plan: Plan) -> None:
    distillation = {"teacher": "digits", "weights": {"response": 1.0}, "temperatures": {}}
    plan = Plan(**{**vars(small_plan), "distillation": distillation})
    assert names_of(trainer_of(network, plan))[0] == "DistillingDetectionTrainer"
    names = names_of(trainer_of(pruned(network), plan))
    assert names[0] == "DistillingKeepingDetectionTrainer"
    assert "KeepingDetectionTrainer" in names


def test_looking_at_a_model_draws_no_random_numbers_and_leaves_it_as_it_is(network: YOLO, small_plan: Plan) -> None:
    weights = deepcopy(network.model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    trainer_of(network, small_plan)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, weights[name]) for name, value in network.model.state_dict().items())
