"""Gradual unfreezing: when blocks begin to train, how fast, and that their BatchNorm layers stand still before."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.blocks import block_of
from mlflow_yolo.training.gradual import ramp, unfreezing
from mlflow_yolo.training.layer_lr import decaying
from mlflow_yolo.training.plan import Stage
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

STAGE = Stage(8, (0, 1, 2, 3), 0.01, 0.0, unfreeze=((2, (2, 3)), (4, (0, 1))), ramp_epochs=1.0)
"""Eight epochs: four blocks frozen for two of them, two for four."""


@pytest.fixture
def network(small_model: Path) -> Any:
    return network_of(small_model)


def frozen_trainer(network: Any, base: type[Any] = DetectionTrainer, stage: Stage = STAGE, **options: Any) -> Any:
    """Return a trainer without data whose blocks are frozen as Ultralytics does it."""
    trainer = idle(unfreezing(base, stage), network, **options)
    trainer.freeze_layer_names = [f"model.{block}." for block in stage.freeze] + [".dfl"]
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not any(frozen in name for frozen in trainer.freeze_layer_names)
    return trainer


def begin(trainer: Any, epoch: int, batch: int = 0) -> None:
    """Bring a trainer to a batch of an epoch, counted from 0, as Ultralytics does."""
    trainer.epoch = epoch
    trainer.run_callbacks("on_train_epoch_start")
    trainer._model_train()
    for _ in range(batch + 1):
        trainer.run_callbacks("on_train_batch_start")


def blocks_that_train(network: Any) -> set[int | None]:
    trains = {block_of(name) for name, p in network.named_parameters() if p.requires_grad}
    frozen = {block_of(name) for name, p in network.named_parameters() if not p.requires_grad and ".dfl" not in name}
    assert not trains & frozen  # a block trains whole or not at all
    return trains


def batch_norms(network: Any, *, training: bool) -> set[int | None]:
    named = network.named_modules()
    return {block_of(f"{n}.") for n, m in named if isinstance(m, nn.BatchNorm2d) and m.training is training}


def test_blocks_begin_to_train_at_their_epochs_and_their_batch_norms_with_them(network: Any) -> None:
    trainer = frozen_trainer(network)
    everything = {block_of(name) for name, _ in network.named_parameters()}

    for epoch, frozen in enumerate([{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1}, {0, 1}, set(), set()]):
        begin(trainer, epoch)
        assert blocks_that_train(network) == everything - frozen, epoch
        assert batch_norms(network, training=False) == frozen, epoch
        assert batch_norms(network, training=True) == everything - frozen, epoch


def test_an_epoch_done_again_and_a_training_taken_up_in_the_middle_are_where_they_were(network: Any) -> None:
    trainer = frozen_trainer(network)
    begin(trainer, 3)
    begin(trainer, 3)  # as after too little memory
    assert batch_norms(network, training=False) == {0, 1}

    later = frozen_trainer(network)
    begin(later, 5)
    assert batch_norms(network, training=False) == set()
    assert later.freeze_layer_names == [".dfl"]


def test_the_fixed_integral_of_the_head_and_a_teacher_stay_frozen(network: Any) -> None:
    head = Stage(4, (22, 23), 0.01, 0.0, unfreeze=((1, (22, 23)),))
    trainer = frozen_trainer(network, stage=head)
    trainer.freeze_layer_names.append("model.23.cv3.")  # frozen for another reason
    for name, parameter in network.named_parameters():
        if "model.23.cv3." in name:
            parameter.requires_grad = False

    begin(trainer, 1)

    still = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {name for name, _ in network.named_parameters() if ".dfl" in name or "model.23.cv3." in name} == still


@pytest.mark.parametrize(
    ("progress", "ramp_epochs", "expected"),
    [(0.25, 1, 0.25), (1, 1, 1), (3, 1, 1), (0.5, 2, 0.25), (0, 1, 0), (-1, 1, 0), (0.25, 0, 1), (0, 0, 0), (-1, 0, 0)],
)
def test_the_ramp_rises_in_a_straight_line_and_stays(progress: float, ramp_epochs: float, expected: float) -> None:
    assert ramp(progress, ramp_epochs) == expected


def test_only_what_has_just_unfrozen_is_slow_at_first(network: Any) -> None:
    trainer = frozen_trainer(network)  # four batches an epoch
    plain = 0.01 * 1e-3  # SGD's step without momentum
    for group in trainer.optimizer.param_groups:
        group["momentum"], group["nesterov"] = 0.0, False

    # epoch, batch, and the part of the rate that blocks 0 and 1, 2 and 3, and all others have
    steps = [
        (1, 3, 0, 0, 1),
        (2, 0, 0, 0.25, 1),
        (2, 1, 0, 0.5, 1),
        (2, 3, 0, 1, 1),
        (3, 0, 0, 1, 1),
        (4, 2, 0.75, 1, 1),
    ]
    for epoch, batch, *parts in steps:
        begin(trainer, epoch, batch)
        for name, change in moved_by_a_step(trainer).items():
            part = parts[min((block_of(name) or 0) // 2, 2)]
            expected = 0.0 if ".dfl" in name else part * plain
            assert change == pytest.approx(expected, rel=1e-3), (epoch, batch, name)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01}


def test_a_frozen_block_does_not_move_not_even_by_its_weight_decay(network: Any) -> None:
    trainer = frozen_trainer(network, optimizer="AdamW", decay=0.1)
    begin(trainer, 1)

    moved = moved_by_a_step(trainer)

    assert {change for name, change in moved.items() if block_of(name) in STAGE.freeze} == {0.0}
    assert min(abs(change) for name, change in moved.items() if name.endswith("conv.weight") and "model.9." in name) > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_in_one_group_with_its_options_and_groups_are_few(network: Any, name: str) -> None:
    ours = frozen_trainer(network, optimizer=name, decay=0.0005).optimizer
    theirs = stock(network, optimizer=name, decay=0.0005)

    found, expected = options_by_parameter(ours, network), options_by_parameter(theirs, network)
    assert {n: {k: v for k, v in o.items() if k not in ("whole", "block")} for n, o in found.items()} == expected
    assert len(ours.param_groups) <= 3 * len(theirs.param_groups)  # one for each time at which blocks begin


def test_the_ramp_and_the_decay_multiply(network: Any) -> None:
    trainer = frozen_trainer(network, decaying(DetectionTrainer, 0.5))
    begin(trainer, 2, batch=0)

    moved = moved_by_a_step(trainer)

    for block, part in {1: 0.0, 3: 0.25 * 0.5**20, 9: 0.5**14, 23: 1.0}.items():
        change = next(v for n, v in moved.items() if block_of(n) == block)
        assert change == pytest.approx(part * 0.01 * 1e-3 * 1.9, rel=1e-3), block


# ------------------------------------------------------------------------------------------------- real trainings

SMALL = Stage(4, (0, 1, 2, 3), 0.01, 0.5, unfreeze=((1, (2, 3)), (2, (0, 1))), ramp_epochs=1.0)
"""Four epochs of two batches, so that the ramp is 1/2 at the first of them."""


class Watch:
    """What a callback sees of a training: weights, BatchNorm statistics and modes, and the rates within steps."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, torch.Tensor]] = {}
        self.training_norms: dict[int, set[int | None]] = {}
        self.rates: list[dict[int | None, float]] = []

    def start(self, trainer: Any) -> None:
        self.keep(trainer, trainer.start_epoch - 1)
        names = {id(p): block_of(name) for name, p in trainer.model.named_parameters()}

        def read(optimizer: Any, *_: Any) -> None:
            found: dict[int | None, float] = {}  # of weights; MuSGD has a faster part of the head, which is left out
            for group in optimizer.param_groups:
                if group["param_group"] in ("weight", "muon"):
                    blocks = {names[id(p)] for p in group["params"] if p.grad is not None}
                    found |= {block: min(group["lr"], found.get(block, group["lr"])) for block in blocks}
            self.rates.append(found)

        trainer.optimizer.register_step_pre_hook(read)

    def keep(self, trainer: Any, epoch: int) -> None:
        self.states[epoch] = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    def end_batch(self, trainer: Any) -> None:
        self.training_norms[trainer.epoch] = batch_norms(trainer.model, training=True)

    def end_epoch(self, trainer: Any) -> None:
        self.keep(trainer, trainer.epoch)

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_train_start": self.start,
            "on_train_batch_end": self.end_batch,
            "on_train_epoch_end": self.end_epoch,
        }

    def changed(self, epoch: int) -> set[int]:
        """Return the blocks of which something changed in an epoch, and check that those that train change whole."""
        before, after = self.states[epoch - 1], self.states[epoch]
        names = [name for name in before if ".dfl" not in name and "one2one" not in name]
        moved = {name for name in names if not torch.equal(before[name], after[name])}
        return {block for name in moved if (block := block_of(name)) is not None}


@pytest.fixture(scope="module")
def watched(start: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watch, Any]:
    """Return what was seen of a gradual training, and its trainer."""
    watch = Watch()
    folder = tmp_path_factory.mktemp("gradual")
    trainer = train_small(
        start, small_data, folder, unfreezing(DetectionTrainer, SMALL), callbacks=watch.callbacks, **arguments(SMALL)
    )
    return watch, trainer


def arguments(stage: Stage) -> dict[str, Any]:
    return {
        "epochs": stage.epochs,
        "freeze": list(stage.freeze),
        "lr0": stage.lr0,
        "warmup_epochs": stage.warmup_epochs,
        "close_mosaic": 0,
    }


@pytest.mark.slow
def test_frozen_weights_and_batch_norm_statistics_stand_still_until_their_epoch(watched: tuple[Watch, Any]) -> None:
    watch, _ = watched
    everything = {block_of(name) for name in watch.states[0] if block_of(name) is not None}

    assert [everything - watch.changed(epoch) for epoch in range(4)] == [{0, 1, 2, 3}, {0, 1}, set(), set()]
    frozen_norms = [everything - watch.training_norms[epoch] for epoch in range(4)]
    assert frozen_norms == [{0, 1, 2, 3}, {0, 1}, set(), set()]
    for epoch, block in ((1, 2), (2, 0)):  # in its first epoch a block's statistics follow the data again
        for what in ("running_mean", "running_var", "weight", "num_batches_tracked"):
            names = [n for n in watch.states[0] if block_of(n) == block and n.endswith(f"bn.{what}")]
            states = watch.states
            assert names
            assert all(torch.equal(states[epoch - 1][n], states[-1][n]) for n in names), what
            assert not any(torch.equal(states[epoch][n], states[-1][n]) for n in names), what


@pytest.mark.slow
def test_rates_of_a_real_training_are_the_schedules_times_the_ramp(watched: tuple[Watch, Any]) -> None:
    watch, trainer = watched
    assert len(watch.rates) == 8  # two steps an epoch

    for step, rates in enumerate(watch.rates):
        epoch, batch = divmod(step, 2)
        for block, rate in rates.items():
            begins = {2: 1, 3: 1, 0: 2, 1: 2}.get(block or 0, 0)
            part = min(1.0, epoch - begins + (batch + 1) / 2) if block in (0, 1, 2, 3) else 1.0
            warm_up = float(step > 0)  # half an epoch is one step: none at the first, all at the second
            scheduled = 0.01 * ((1 - epoch / 4) * 0.99 + 0.01)
            assert rate == pytest.approx(part * warm_up * scheduled), (step, block)
    logged = pd.read_csv(trainer.csv)
    assert [column for column in logged if column.startswith("lr/")] == ["lr/pg0", "lr/pg1", "lr/pg2"]
    assert list(logged["lr/pg0"]) == pytest.approx([0.01 * ((1 - epoch / 4) * 0.99 + 0.01) for epoch in range(4)], 1e-3)


@pytest.mark.slow
def test_without_a_ramp_it_is_what_a_callback_on_ultralytics_own_trainer_does_bit_by_bit(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    abrupt = Stage(3, (0, 1, 2), 0.01, 0.0, unfreeze=((1, (1, 2)), (2, (0,))), ramp_epochs=0.0)

    def unfreeze(trainer: Any) -> None:
        frozen = {0: (0, 1, 2), 1: (0,), 2: ()}[trainer.epoch]
        trainer.freeze_layer_names = [*(f"model.{block}." for block in frozen), ".dfl"]
        for block in {0, 1, 2} - set(frozen):
            trainer.model.model[block].requires_grad_(True)

    plain = train_small(
        start, small_data, tmp_path / "a", None, callbacks={"on_train_epoch_start": unfreeze}, **arguments(abrupt)
    )
    ours = train_small(start, small_data, tmp_path / "b", unfreezing(DetectionTrainer, abrupt), **arguments(abrupt))

    expected, found = weights_of(plain.last), weights_of(ours.last)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert not torch.equal(expected["model.0.conv.weight"], weights_of(start)["model.0.conv.weight"])


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_the_same_groups_ramp_and_frozen_blocks(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    longer = Stage(4, (0, 1, 2, 3), 0.01, 0.0, unfreeze=((1, (2, 3)), (2, (0, 1))), ramp_epochs=2.0)
    trainer = unfreezing(decaying(DetectionTrainer, 0.5), longer)

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        train_small(
            start,
            small_data,
            tmp_path,
            trainer,
            optimizer="MuSGD",
            callbacks={"on_train_epoch_start": stop},
            **arguments(longer),
        )
    last = tmp_path / "weights" / "last.pt"
    saved = torch.load(last, weights_only=False)
    assert saved["epoch"] == 1

    resumed = train_small(last, small_data, tmp_path, trainer, resume=True, callbacks=watch.callbacks)

    everything = {block_of(name) for name in watch.states[1] if block_of(name) is not None}
    assert [everything - watch.training_norms[epoch] for epoch in (2, 3)] == [set(), set()]
    # In epoch 2 blocks 2 and 3 are in the second half of their ramp, 0 and 1 in the first; an epoch has two steps.
    for step, (young, old) in enumerate([(0.25, 0.75), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)]):
        scheduled = 0.01 * ((1 - (2 + step // 2) / 4) * 0.99 + 0.01)
        for block, part in {0: young, 1: young, 2: old, 3: old, 9: 1.0, 23: 1.0}.items():
            assert watch.rates[step][block] == pytest.approx(part * 0.5 ** (23 - block) * scheduled), (step, block)
    table = pd.read_csv(resumed.csv)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert [column for column in table if column.startswith("lr/")] == [f"lr/pg{i}" for i in range(8)]
    assert table["lr/pg7"].tolist() == pytest.approx(
        [0.01 * ((1 - epoch / 4) * 0.99 + 0.01) for epoch in range(4)], 1e-3
    )
