from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.sparse import clear_smallest
from mlflow_yolo.compression.pruning.structured import prune_network
from mlflow_yolo.training.plan import Plan, Stage
from mlflow_yolo.training.trainers import trainer_of
from tests.compression.distillation.networks import checkpoint
from tests.training.rate_trainers import train_small


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
    assert trainer_of(network, small_plan, small_plan.stages[0]) is None


def test_a_pruned_model_keeps_its_modules_through_get_model(network: YOLO, small_plan: Plan) -> None:
    before = deepcopy(network.model)
    trainer = trainer_of(pruned(network), small_plan, small_plan.stages[0])
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
    assert names_of(trainer_of(network, small_plan, small_plan.stages[0])) == ["ZeroKeepingDetectionTrainer"]


def test_a_teacher_comes_on_top_of_what_keeps_the_model(network: YOLO, small_plan: Plan) -> None:
    distillation = {"teacher": "digits", "weights": {"response": 1.0}, "temperatures": {}}
    plan = Plan(**{**vars(small_plan), "distillation": distillation})
    assert names_of(trainer_of(network, plan, plan.stages[0]))[0] == "DistillingDetectionTrainer"
    names = names_of(trainer_of(pruned(network), plan, plan.stages[0]))
    assert names[0] == "DistillingKeepingDetectionTrainer"
    assert "KeepingDetectionTrainer" in names


def test_rates_by_block_come_after_everything_that_trains_and_unfreezing_last(network: YOLO, small_plan: Plan) -> None:
    distillation = {"teacher": "digits", "weights": {"response": 1.0}, "temperatures": {}}
    plan = replace(small_plan, lr_decay=0.9, distillation=distillation)
    stage = Stage(4, (0, 1), 0.01, 0.0, unfreeze=((1, (1,)), (2, (0,))), ramp_epochs=0.5)

    trainer = trainer_of(pruned(network), plan, stage)

    kinds = names_of(trainer)
    order = ["Unfreezing", "Decaying", "BlockRates", "Distilling", "KeepingDetectionTrainer"]
    assert [name for name in kinds if name in order] == order
    assert kinds[0] == "UnfreezingDecayingDistillingKeepingDetectionTrainer"
    assert (trainer.lr_decay, trainer.starts, trainer.ramp_epochs) == (0.9, {1: 1, 0: 2}, 0.5)
    assert names_of(trainer_of(network, replace(small_plan, lr_decay=0.9), plan.stages[0]))[1] == "Decaying"


@pytest.mark.slow
def test_a_pruned_student_with_a_teacher_learns_at_its_blocks_rates_and_its_projectors_at_the_full_one(
    start: Path, small_data: Path, small_plan: Plan, tmp_path: Path
) -> None:
    network = pruned(YOLO(str(start)))
    network.model.names = {0: "bright", 1: "dark"}
    network.save(tmp_path / "pruned.pt")
    n_parameters = sum(p.numel() for p in network.model.parameters())
    teacher = checkpoint(tmp_path, "yolo11n", "detect", width=0.125, names=("bright", "dark"))
    distillation = {"teacher": str(teacher), "weights": {"response": 1.0, "fitnets": 1.0}, "temperatures": {}}
    stage = Stage(2, (0, 1), 0.01, 0.0, unfreeze=((1, (0, 1)),))
    trainer = trainer_of(
        YOLO(tmp_path / "pruned.pt"), replace(small_plan, lr_decay=0.5, distillation=distillation), stage
    )
    rates: list[dict[str, set[float]]] = []

    def watch(trainer: Any) -> None:
        blocks = {id(p): name.split(".")[1] for name, p in trainer.model.named_parameters()}

        def read(optimizer: Any, *_: Any) -> None:
            found: dict[str, set[float]] = {}
            for group in optimizer.param_groups:
                for parameter in (p for p in group["params"] if p.grad is not None):
                    found.setdefault(blocks.get(id(parameter), "outside"), set()).add(round(group["lr"], 9))
            rates.append(found)

        trainer.optimizer.register_step_pre_hook(read)

    trained = train_small(
        tmp_path / "pruned.pt",
        small_data,
        tmp_path / "train",
        trainer,
        epochs=2,
        freeze=[0, 1],
        warmup_epochs=0.0,
        callbacks={"on_train_start": watch},
    )

    assert sum(p.numel() for p in trained.model.parameters()) == n_parameters
    second = 0.01 * (0.5 * 0.99 + 0.01)
    expected = [(0.01, {}), (0.01, {}), (second, {"0": 0.5, "1": 0.5}), (second, {"0": 1.0, "1": 1.0})]
    for found, (rate, ramps) in zip(rates, expected, strict=True):
        assert found["outside"] == found["23"] == {round(rate, 9)}
        assert found["9"] == {round(rate * 0.5**14, 9)}
        assert {block: found[block] for block in ("0", "1") if block in found} == {
            block: {round(rate * ramp * 0.5 ** (23 - int(block)), 9)} for block, ramp in ramps.items()
        }
    assert set(trained.lr) == {"lr/pg0", "lr/pg1", "lr/pg2", "lr/pg3"}  # the last are the projectors'
    assert {round(value, 9) for value in trained.lr.values()} == {round(second, 9)}


def test_looking_at_a_model_draws_no_random_numbers_and_leaves_it_as_it_is(network: YOLO, small_plan: Plan) -> None:
    weights = deepcopy(network.model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    trainer_of(network, small_plan, small_plan.stages[0])
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, weights[name]) for name, value in network.model.state_dict().items())
