"""Rates of single blocks: every parameter once, its group's options kept, and steps as long as arithmetic says."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.blocks import block_of
from mlflow_yolo.training.block_rates import split_groups
from mlflow_yolo.training.layer_lr import decay_factor, decaying
from tests.training.rate_trainers import (
    OPTIMIZERS,
    idle,
    moved_by_a_step,
    network_of,
    options_by_parameter,
    stock,
    train_small,
    weights_of,
)

HEAD = 23


@pytest.fixture(scope="module")
def network(small_model: Path) -> Any:
    return network_of(small_model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_in_one_group_with_the_options_that_ultralytics_gives_it(network: Any, name: str) -> None:
    ours = idle(decaying(DetectionTrainer, 0.5), network, optimizer=name, decay=0.0005).optimizer
    theirs = stock(network, optimizer=name, decay=0.0005)

    found, expected = options_by_parameter(ours, network), options_by_parameter(theirs, network)
    assert found.keys() == expected.keys() == dict(network.named_parameters()).keys()
    number = {id(p): i for i, group in enumerate(theirs.param_groups) for p in group["params"]}
    for parameter, p in network.named_parameters():
        place = {"whole": number[id(p)], "block": block_of(parameter)}
        assert found[parameter] == {**expected[parameter], **place}, parameter
    assert {options["weight_decay"] for options in found.values() if "weight_decay" in options} == {0.0, 0.0005}


def test_a_group_holds_parameters_of_one_block_only(network: Any) -> None:
    optimizer = idle(decaying(DetectionTrainer, 0.5), network).optimizer
    blocks = {id(p): block_of(name) for name, p in network.named_parameters()}

    assert all({blocks[id(p)] for p in group["params"]} <= {group["block"]} for group in optimizer.param_groups)


def test_a_step_of_each_block_is_shorter_than_that_of_the_next_by_the_factor(network: Any) -> None:
    trainer = idle(decaying(DetectionTrainer, 0.5), network)

    moved = moved_by_a_step(trainer, gradient=1e-3)

    # The first step of SGD with Nesterov momentum m = 0.9 and gradient g is lr g (1 + m).
    for name, change in moved.items():
        block = block_of(name)
        assert block is not None
        fixed = ".dfl" in name  # the integral of a distribution never trains
        expected = 0.0 if fixed else 0.01 * 0.5 ** (HEAD - block) * 1e-3 * (1 + 0.9)
        assert change == pytest.approx(expected, rel=1e-3), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_ultralytics_times_the_factor_with_every_optimizer(small_model: Path, name: str) -> None:
    plain = moved_by_a_step(idle(DetectionTrainer, network_of(small_model), optimizer=name))
    ours = moved_by_a_step(idle(decaying(DetectionTrainer, 0.8), network_of(small_model), optimizer=name))

    for parameter, change in plain.items():
        factor = 0.8 ** (HEAD - (block_of(parameter) or 0))
        assert ours[parameter] == pytest.approx(factor * change, rel=1e-3), parameter
    assert any(abs(change) > 1e-6 for change in plain.values())


def test_biases_keep_the_proportion_while_they_warm_up_from_a_rate_that_is_nobodys(network: Any) -> None:
    trainer = idle(decaying(DetectionTrainer, 0.5), network)
    for group in trainer.optimizer.param_groups:  # as Ultralytics does in the first steps
        group["lr"] = 0.1 if group["param_group"] == "bias" else 0.0

    moved = moved_by_a_step(trainer)

    biases = {name: change for name, change in moved.items() if name.endswith("bias")}
    assert len(biases) > 50
    for name, change in biases.items():
        expected = 0.1 * 0.5 ** (HEAD - (block_of(name) or 0)) * 1e-3 * 1.9
        assert change == pytest.approx(expected, rel=1e-3), name
    assert {change for name, change in moved.items() if not name.endswith("bias")} == {0.0}


def test_between_steps_every_part_has_the_rate_of_its_group_also_after_a_step_that_failed(network: Any) -> None:
    trainer = idle(decaying(DetectionTrainer, 0.5), network)
    moved_by_a_step(trainer)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01}

    trainer.scaler = None
    with pytest.raises(AttributeError):
        trainer.optimizer_step()
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01}


@pytest.mark.parametrize("name", ["AdamW", "MuSGD"])
def test_logged_rates_are_those_of_ultralytics_groups_however_many_parts_there_are(network: Any, name: str) -> None:
    trainer = idle(decaying(DetectionTrainer, 0.5), network, optimizer=name)
    theirs = stock(network, optimizer=name).param_groups

    trainer.run_callbacks("on_train_epoch_end")

    assert len(trainer.optimizer.param_groups) > 20 > len(theirs)
    assert trainer.lr == {f"lr/pg{i}": group["lr"] for i, group in enumerate(theirs)}


def test_a_resumed_optimizer_has_the_same_groups(network: Any) -> None:
    trainer = idle(decaying(DetectionTrainer, 0.5), network)
    moved_by_a_step(trainer)
    saved = trainer.optimizer.state_dict()

    again = idle(decaying(DetectionTrainer, 0.5), network)
    again.optimizer.load_state_dict(saved)

    assert [len(g["params"]) for g in again.optimizer.param_groups] == [len(g["params"]) for g in saved["param_groups"]]
    assert [g["block"] for g in again.optimizer.param_groups] == [g["block"] for g in saved["param_groups"]]
    assert len(again.optimizer.state) == sum(p.requires_grad for p in network.parameters()) > 200


@pytest.mark.parametrize(("block", "expected"), [(23, 1.0), (22, 0.5), (20, 0.125), (0, 0.5**23), (None, 1.0)])
def test_the_factor_of_a_block_is_the_decay_to_the_power_of_what_comes_after(block: Any, expected: float) -> None:
    assert decay_factor(block, lr_decay=0.5, last_block=23) == expected


def test_parameters_outside_the_network_and_empty_groups_keep_their_group() -> None:
    inside, outside = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": []}, {"params": [inside, outside], "weight_decay": 0.5}], lr=0.1)

    split_groups(optimizer, lambda parameter: 4 if parameter is inside else None, lambda block: block)

    found = [(g["whole"], g["block"], len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(0, None, 0, 0), (1, 4, 1, 0.5), (1, None, 1, 0.5)]


@pytest.mark.slow
def test_with_the_same_rate_everywhere_a_training_is_ultralytics_own_bit_by_bit(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    plain = train_small(start, small_data, tmp_path / "plain", None)
    ours = train_small(start, small_data, tmp_path / "ours", decaying(DetectionTrainer, 1.0))

    expected, found, before = weights_of(plain.last), weights_of(ours.last), weights_of(start)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert not torch.equal(expected["model.0.conv.weight"], before["model.0.conv.weight"])
    # the same learning rates under the same names, too
    assert pd.read_csv(ours.csv).drop(columns="time").equals(pd.read_csv(plain.csv).drop(columns="time"))


@pytest.mark.slow
def test_early_blocks_change_less_in_a_real_training(start: Path, small_data: Path, tmp_path: Path) -> None:
    before = weights_of(start)

    def change(trainer: Any) -> dict[int, float]:
        after = trainer.model.state_dict()
        changes = {n: float((after[n] - v).abs().mean()) for n, v in before.items() if n.endswith("conv.weight")}
        return {block: max(v for n, v in changes.items() if block_of(n) == block) for block in (0, 13, 23)}

    whole = {"warmup_epochs": 0.0, "epochs": 1}
    plain = change(train_small(start, small_data, tmp_path / "plain", None, **whole))
    trainer = decaying(DetectionTrainer, 0.7)
    ours = change(train_small(start, small_data, tmp_path / "ours", trainer, **whole))

    # A step of AdamW is about as long as the rate, whatever the gradient.
    for block, expected in {0: 0.7**23, 13: 0.7**10, 23: 1.0}.items():
        assert ours[block] / plain[block] == pytest.approx(expected, rel=0.3), block
