"""What a real trainer does when a step, an epoch or a whole training goes wrong, and what of it arrives in the store.

Every test is a real training of the small model: 8 images of 64 pixels. Faults come from outside, through Ultralytics'
own events: a gradient that overflows, a forward pass out of memory, an interrupt.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

import mlflow_yolo

pytestmark = pytest.mark.slow

Event = tuple[str, Callable[[Any], None]]
Gradients = dict[int, float]
"""By block, the L2 norm of the gradient of its parameters."""

PARAMETER = "model.4."
"""Where faults are put: the first parameter of block 4."""


@dataclass(frozen=True)
class Followed:
    """One tracked training: its trainer, its run, and how it ended."""

    trainer: Any
    client: MlflowClient
    run: Any
    uri: str
    error: BaseException | None

    def points(self, key: str) -> list[tuple[int, float]]:
        """Return (step, value) of one metric in the store, in order of steps; a double value is there twice."""
        return sorted((m.step, m.value) for m in self.client.get_metric_history(self.run.info.run_id, key))

    def statistics(self) -> pd.DataFrame:
        frame: pd.DataFrame = mlflow_yolo.load_statistics(self.run.info.run_id, tracking_uri=self.uri)
        return frame

    def grid(self, kind: str, statistic: str, epoch: int) -> pd.DataFrame:
        """Return the values of one statistic in one epoch: a row a step, a column a block."""
        rows = self.statistics()
        rows = rows[(rows["kind"] == kind) & (rows["statistic"] == statistic) & (rows["epoch"] == epoch)]
        return rows.pivot(index="step", columns="block", values="value")  # raises where a value is there twice


Follow = Callable[..., Followed]


@pytest.fixture
def follow(small_model: Path, small_arguments: Mapping[str, Any], store: str, client: MlflowClient) -> Follow:
    """Train the small model, tracked, with these further callbacks, and return what arrived."""

    def follow_one(*events: Event, folder: str = "train", level: str = "default", **changed: Any) -> Followed:
        from ultralytics import YOLO

        trainers: list[Any] = []
        network, error = YOLO(small_model), None
        experiment = client.create_experiment(folder)
        mlflow_yolo.track(
            network,
            tracking_uri=store,
            experiment=folder,
            log_statistics=level,
            every_n_steps=1,
            log_images=level == "all",  # drawing takes longer than these trainings
        )
        network.add_callback("on_train_start", trainers.append)
        for name, function in events:
            network.add_callback(name, function)
        try:
            network.train(**{**small_arguments, "save_dir": str(Path(folder).absolute()), **changed})
        except (Exception, KeyboardInterrupt) as raised:
            error = raised
        (run,) = client.search_runs([experiment])
        return Followed(trainers[0], client, run, store, error)

    return follow_one


def reads_gradients(into: list[tuple[int, Gradients]]) -> Event:
    """Return an event that reads each gradient just before it is clipped: an independent view of every step.

    It unscales by the scaler's own scale and knows nothing of this package.
    """

    def watch(trainer: Any) -> None:
        original = trainer.optimizer_step

        def step() -> None:
            scale = trainer.scaler.get_scale() if trainer.scaler.is_enabled() else 1.0
            squares: defaultdict[int, float] = defaultdict(float)
            for name, p in trainer.model.named_parameters():
                if p.grad is not None:
                    squares[int(name.split(".")[1])] += float((p.grad.double() / scale).square().sum())
            into.append((trainer.epoch + 1, {block: math.sqrt(value) for block, value in squares.items()}))
            original()

        trainer.optimizer_step = step

    return ("on_pretrain_routine_end", watch)


def overflows(*, epoch: int, batch: int, times: int = 1) -> tuple[Event, Event]:
    """Return events that make the gradient of block 4 infinite in one batch, the first `times` times it comes."""
    state: dict[str, Any] = {"batch": 0, "epoch": -1, "left": times, "handle": None}

    def before(trainer: Any) -> None:
        if state["left"] and (trainer.epoch, state["batch"]) == (epoch, batch):
            state["left"] -= 1
            parameter = next(p for name, p in trainer.model.named_parameters() if name.startswith(PARAMETER))
            state["handle"] = parameter.register_hook(lambda gradient: gradient * math.inf)
        state["batch"] += 1

    def after(trainer: Any) -> None:
        state["batch"] = 0 if state["batch"] == len(trainer.train_loader) else state["batch"]
        if state["handle"]:
            state["handle"].remove()
            state["handle"] = None

    return ("on_train_batch_start", before), ("on_train_batch_end", after)


def fails(error: BaseException, *, epoch: int) -> Event:
    def fail(trainer: Any) -> None:
        if trainer.epoch == epoch:
            raise error

    return ("on_train_batch_end", fail)


def scaled(start: float = 2.0**16) -> Event:
    """Return an event that gives the trainer an enabled scaler, as it has on a GPU."""

    def replace(trainer: Any) -> None:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=start, enabled=True)

    return ("on_pretrain_routine_end", replace)


def assert_gradients(followed: Followed, epoch: int, expected: list[Gradients]) -> None:
    """Compare what was logged of one epoch with what an independent reader saw, step by step and block by block."""
    grid = followed.grid("gradients", "l2", epoch)
    assert list(grid.index) == list(range(len(expected)))
    for step, row in enumerate(expected):
        assert dict(grid.loc[step]) == pytest.approx(row, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- NaN


@pytest.mark.parametrize("level", ["default", "all"])
def test_an_epoch_repeated_after_nan_replaces_its_first_attempt_and_names_the_block(
    follow: Follow, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every step goes to disk at once, as in epochs that last longer than a second: also those that are thrown away.
    monkeypatch.setattr("mlflow_yolo.tracking.blocks.block_statistics._DRAIN_INTERVAL_S", 0.0)
    seen: list[tuple[int, Gradients]] = []
    followed = follow(*overflows(epoch=1, batch=0), reads_gradients(seen), level=level, epochs=3)

    assert [epoch for epoch, _ in seen] == [1, 1, 2, 2, 2, 2, 3, 3]  # Ultralytics did repeat the second epoch
    assert math.isinf(seen[2][1][4])
    assert followed.run.info.status == "FINISHED"
    for key in ("train/box_loss", "metrics/mAP50-95B", "lr/pg0", "stats/gradient_norm"):
        points = followed.points(key)
        assert [step for step, _ in points] == [1, 2, 3]
        assert all(math.isfinite(value) for _, value in points)
    assert_gradients(followed, 2, [row for _, row in seen[4:6]])
    frame = followed.statistics()
    assert np.isfinite(frame["value"]).all()
    assert not frame.duplicated(["epoch", "step", "block", "kind", "statistic"]).any()
    assert set(frame["epoch"][frame["kind"] == "activations"]) == {1, 2, 3}

    name = type(followed.trainer.model.model[4]).__name__
    assert followed.run.data.tags["mlflow_yolo.statistics.nonfinite"] == f"epoch 2 step 0 block 04-{name}"
    assert followed.points("stats/nonfinite_steps") == [(1, 0.0), (2, 2.0), (3, 0.0)]
    assert "mlflow_yolo.statistics" not in followed.run.data.tags
    saved = torch.load(followed.trainer.last, weights_only=False)["model"]
    for model in (followed.trainer.model, followed.trainer.ema.ema, saved):
        assert [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks] == []


def test_a_training_whose_nan_persists_has_failed_with_everything_up_to_then(follow: Follow) -> None:
    followed = follow(*overflows(epoch=1, batch=0, times=9), epochs=3)

    assert "NaN persisted" in str(followed.error)
    assert followed.run.info.status == "FAILED"
    assert [step for step, _ in followed.points("train/box_loss")] == [1]
    assert 1 in set(followed.statistics()["epoch"])
    assert "optimizer_step" not in vars(followed.trainer)


# ---------------------------------------------------------------------------------------------------------- memory


def test_an_epoch_repeated_with_half_the_batch_counts_once_with_its_own_steps(follow: Follow) -> None:
    seen: list[tuple[int, Gradients]] = []
    refusals: list[Any] = []

    def out_of_memory(trainer: Any) -> None:
        # Ultralytics recognises the words, on a CPU too; the first step of the epoch has been taken by then.
        def refuse(*_: Any) -> None:
            refusals[0].remove()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

        if len(seen) == 1 and not refusals:
            refusals.append(trainer.model.register_forward_pre_hook(refuse))

    followed = follow(("on_train_batch_start", out_of_memory), reads_gradients(seen), nbs=2)

    assert followed.trainer.batch_size == 2
    assert [epoch for epoch, _ in seen] == [1, 1, 1, 1, 1, 2, 2, 2, 2]  # one of the first attempt, four of the second
    assert [step for step, _ in followed.points("train/box_loss")] == [1, 2]
    assert_gradients(followed, 1, [row for _, row in seen[1:5]])
    assert_gradients(followed, 2, [row for _, row in seen[5:]])
    assert not followed.statistics().duplicated(["epoch", "step", "block", "kind", "statistic"]).any()
    assert followed.run.info.status == "FINISHED"


# ---------------------------------------------------------------------------------------------------- accumulation


def test_steps_are_optimizer_steps_where_batches_accumulate_across_epochs(follow: Follow) -> None:
    seen: list[tuple[int, Gradients]] = []
    followed = follow(reads_gradients(seen), epochs=3, batch=2, nbs=6)

    # Three batches a step, four an epoch: the third epoch is the first to end with a step.
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 3]
    for epoch in (1, 2, 3):
        assert_gradients(followed, epoch, [row for of, row in seen if of == epoch])


def test_an_epoch_without_any_optimizer_step_has_its_values_and_no_gradients(follow: Follow) -> None:
    seen: list[tuple[int, Gradients]] = []
    followed = follow(reads_gradients(seen), epochs=3, nbs=64)

    assert [epoch for epoch, _ in seen] == [3]  # 16 batches a step are capped at the six that there are
    assert [step for step, _ in followed.points("train/box_loss")] == [1, 2, 3]
    frame = followed.statistics()
    assert set(frame["epoch"][frame["kind"] == "gradients"]) == {3}
    assert set(frame["epoch"][frame["kind"] == "activations"]) == {1, 2, 3}
    assert [step for step, _ in followed.points("stats/gradient_norm")] == [3]
    assert "mlflow_yolo.statistics" not in followed.run.data.tags


# ------------------------------------------------------------------------------------------------------------- AMP


def test_gradients_under_a_scaler_are_those_of_the_unscaled_training(follow: Follow) -> None:
    seen: list[tuple[int, Gradients]] = []
    plain = follow(reads_gradients(seen), folder="plain")
    amp = follow(scaled(), folder="amp")

    for epoch in (1, 2):
        assert_gradients(plain, epoch, [row for of, row in seen if of == epoch])
        for kind, statistic in (("gradients", "l2"), ("gradients", "max_abs"), ("weights", "update_ratio")):
            one, two = (f.grid(kind, statistic, epoch) for f in (plain, amp))
            pd.testing.assert_frame_equal(one, two, rtol=1e-5)
        assert set(amp.grid("global", "loss_scale", epoch).to_numpy().ravel()) == {65536.0}
    first, second = plain.trainer.model.state_dict(), amp.trainer.model.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_step_that_the_scaler_skips_is_counted_and_changes_no_weight(follow: Follow) -> None:
    followed = follow(scaled(), *overflows(epoch=0, batch=1), epochs=2)

    name = type(followed.trainer.model.model[4]).__name__
    assert followed.run.data.tags["mlflow_yolo.statistics.nonfinite"] == f"epoch 1 step 1 block 04-{name}"
    assert followed.points("stats/nonfinite_steps") == [(1, 1.0), (2, 0.0)]
    assert followed.points("stats/skipped_steps") == [(1, 1.0), (2, 0.0)]
    updates = followed.grid("weights", "update_l2", 1)
    assert (updates.loc[0] > 0).all()
    assert (updates.loc[1] == 0).all()
    assert followed.grid("global", "loss_scale", 2).to_numpy().ravel().tolist() == [32768.0, 32768.0]
    assert math.isfinite(dict(followed.points("stats/gradient_norm"))[1])  # the mean of the steps that were taken
    assert followed.run.info.status == "FINISHED"


# --------------------------------------------------------------------------------------------------------- endings


def test_an_interrupted_training_is_killed_and_keeps_what_it_had(follow: Follow) -> None:
    followed = follow(fails(KeyboardInterrupt(), epoch=1))

    assert isinstance(followed.error, KeyboardInterrupt)
    assert followed.run.info.status == "KILLED"
    assert followed.run.data.tags["mlflow_yolo.state"] == "interrupted"
    assert [step for step, _ in followed.points("train/box_loss")] == [1]
    assert 1 in set(followed.statistics()["epoch"])
    assert not [key for key in followed.run.data.metrics if key.startswith("final/")]
    assert "optimizer_step" not in vars(followed.trainer)


def test_a_training_that_raises_has_failed_and_keeps_what_it_had(follow: Follow) -> None:
    followed = follow(fails(ZeroDivisionError("ours"), epoch=1))

    assert isinstance(followed.error, ZeroDivisionError)
    assert followed.run.info.status == "FAILED"
    assert [step for step, _ in followed.points("train/box_loss")] == [1]
    assert 1 in set(followed.statistics()["epoch"])


def test_a_training_that_stops_early_is_finished_with_the_epochs_it_had(follow: Follow) -> None:
    def was_better(trainer: Any) -> None:
        trainer.stopper.best_fitness = 1.0  # so that no epoch of this training is better than one before it

    followed = follow(("on_train_start", was_better), epochs=5, patience=2)

    assert followed.trainer.epoch == 1
    assert followed.run.info.status == "FINISHED"
    assert [step for step, _ in followed.points("metrics/mAP50-95B")] == [1, 2]
    assert len(followed.points("final/mAP50-95")) == 1
    assert set(followed.statistics()["epoch"]) == {1, 2}


def test_a_resumed_training_goes_on_in_the_same_run(follow: Follow, store: str, client: MlflowClient) -> None:
    from ultralytics import YOLO

    first = follow(fails(KeyboardInterrupt(), epoch=1), epochs=3)
    network = YOLO(first.trainer.last)
    mlflow_yolo.track(network, tracking_uri=store, experiment="train", every_n_steps=1)
    network.train(resume=True)

    (run,) = client.search_runs([first.run.info.experiment_id])
    second = Followed(network.trainer, client, run, store, None)
    assert (run.info.run_id, run.info.status) == (first.run.info.run_id, "FINISHED")
    assert "mlflow_yolo.state" not in run.data.tags or run.data.tags["mlflow_yolo.state"] != "interrupted"
    assert [step for step, _ in second.points("train/box_loss")] == [1, 2, 3]
    frame = second.statistics()
    assert set(frame["epoch"][frame["kind"] == "gradients"]) == {1, 2, 3}
    assert not frame.duplicated(["epoch", "step", "block", "kind", "statistic"]).any()
    pd.testing.assert_frame_equal(first.grid("gradients", "l2", 1), second.grid("gradients", "l2", 1))


# ------------------------------------------------------------------------------------------------------- arguments


def test_a_training_without_validation_or_checkpoints_logs_only_what_was_measured(follow: Follow) -> None:
    followed = follow(epochs=3, val=False, save=False, close_mosaic=1, multi_scale=0.5, mosaic=1.0)

    assert followed.run.info.status == "FINISHED"
    assert "mlflow_yolo.statistics" not in followed.run.data.tags
    assert [step for step, _ in followed.points("train/box_loss")] == [1, 2, 3]
    # Ultralytics validates after the last epoch in any case; until then its metrics are zeros that nobody measured.
    assert [step for step, _ in followed.points("metrics/mAP50-95B")] == [3]
    assert [step for step, _ in followed.points("val/box_loss")] == [3]
    assert len(followed.points("final/mAP50-95")) == 1
    frame = followed.statistics()
    assert set(frame["epoch"][frame["kind"] == "gradients"]) == {1, 2, 3}
    assert set(frame["epoch"][frame["kind"] == "activations"]) == {3}
