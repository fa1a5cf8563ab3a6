"""When block statistics are collected and where they go, around a trainer of a few linear layers."""

import logging
import math
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.tracking import block_statistics
from mlflow_yolo.tracking.block_statistics import MAX_BLOCK_METRICS, BlockStatistics

if TYPE_CHECKING:
    from tests.conftest import RecordedRun

N_STEPS = 2


class Network(nn.Module):
    """Linear layers as blocks `model.0` to `model.<n-1>`, run in order."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(n_blocks)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Trainer:
    """As much of Ultralytics' trainer as block statistics touch."""

    def __init__(self, n_blocks: int = 3, frozen: int = 0) -> None:
        torch.manual_seed(0)
        self.model = Network(n_blocks)
        for block in list(self.model.model)[:frozen]:
            block.requires_grad_(False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.train_loader = [torch.ones(1, 3)] * N_STEPS
        self.accumulate = 1
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.ema = None
        self.n_own_steps = 0

    def optimizer_step(self) -> None:
        self.n_own_steps += 1
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.001)
        self.optimizer.step()
        self.optimizer.zero_grad()


def run_epoch(statistics: BlockStatistics, trainer: Trainer, epoch: int, *, factor: float = 1.0) -> list[list[float]]:
    """Train one epoch and return the gradient L2 norm of every block at every step, by hand, before clipping."""
    seen = []
    statistics.start_epoch(epoch)
    for batch in trainer.train_loader:
        (factor * trainer.model(batch).sum()).backward()
        blocks = [[p.grad for p in block.parameters() if p.grad is not None] for block in trainer.model.model]
        seen.append([math.sqrt(sum(float((g.double() ** 2).sum()) for g in block)) for block in blocks])
        trainer.optimizer_step()
    statistics.watch_activations()
    with torch.inference_mode():
        trainer.model(torch.ones(1, 3))
    statistics.end_activation_batch()
    statistics.end_validation()
    statistics.end_epoch(epoch=epoch, n_epochs=None)
    return seen


def table(run: "RecordedRun") -> pd.DataFrame:
    return pd.read_parquet(run.directory / "statistics" / "layers.parquet")


def test_metrics_of_an_epoch_are_means_over_its_steps_before_clipping(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    seen = run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    for block in range(3):
        found = recorded_run.value(f"stats/gradient_l2/0{block}-Linear", step=1)
        assert found == pytest.approx(np.mean([step[block] for step in seen]), rel=1e-6)
    norms = [math.sqrt(sum(value**2 for value in step)) for step in seen]
    assert recorded_run.value("stats/gradient_norm", step=1) == pytest.approx(np.mean(norms), rel=1e-6)
    assert min(norms) > 0.001  # the trainer's own clipping took place
    assert recorded_run.value("stats/nonfinite_steps", step=1) == 0
    assert trainer.n_own_steps == N_STEPS


def test_activations_of_blocks_are_in_the_files(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(n_blocks=1, frozen=0)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    with torch.inference_mode():
        expected = float(trainer.model(torch.ones(1, 3)).mean())
    statistics.stop(is_final=True)

    frame = table(recorded_run)
    found = frame[(frame["kind"] == "activations") & (frame["statistic"] == "mean")]
    assert list(found["value"]) == pytest.approx([expected], rel=1e-6)


def test_the_loss_scale_is_taken_out_of_the_gradients(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda _: True, "_scale": torch.tensor(256.0)})()
    statistics.start(trainer)
    seen = run_epoch(statistics, trainer, 1, factor=256.0)
    statistics.stop(is_final=True)

    expected = np.mean([step[1] for step in seen]) / 256
    assert recorded_run.value("stats/gradient_l2/01-Linear", step=1) == pytest.approx(expected, rel=1e-6)


def test_a_scaler_without_a_tensor_of_its_own_is_asked(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda _: True, "get_scale": lambda _: 4.0})()
    statistics.start(trainer)
    seen = run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    expected = np.mean([step[1] for step in seen]) / 4
    assert recorded_run.value("stats/gradient_l2/01-Linear", step=1) == pytest.approx(expected, rel=1e-6)


def test_frozen_blocks_have_neither_metrics_nor_rows(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(frozen=2)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    keys = {key for _, values in recorded_run.metrics for key in values}
    assert {key for key in keys if "gradient_l2" in key} == {"stats/gradient_l2/02-Linear"}
    frame = table(recorded_run)
    assert set(frame[frame["kind"] == "gradients"]["block"]) == {2}


def test_a_deep_model_keeps_within_its_share_of_metrics_whole_statistics_left_out(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(n_blocks=40)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    keys = [key for _, values in recorded_run.metrics for key in values]
    assert len(keys) <= MAX_BLOCK_METRICS
    assert [key.count("gradient_l2") for key in keys].count(1) == 40
    assert not any("update_ratio" in key for key in keys)
    assert len(set(table(recorded_run)["block"])) == 41  # everything is in the file: the blocks and the whole model


def test_files_are_logged_at_powers_of_two_and_at_the_end(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(n_blocks=1)
    statistics.start(trainer)
    for epoch in range(1, 7):
        run_epoch(statistics, trainer, epoch)
    statistics.stop(is_final=True)

    assert [name for name, _ in recorded_run.files].count("layers.parquet") == 4  # 1, 2, 4 and the end
    assert set(table(recorded_run)["epoch"]) == {1, 2, 3, 4, 5, 6}
    assert recorded_run.images == [("stats/gradient_l2", 6), ("stats/weight_histograms", 6)]


def test_an_epoch_that_is_repeated_counts_once(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(n_blocks=1)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    frame = table(recorded_run)
    assert list(frame[(frame["kind"] == "gradients") & (frame["statistic"] == "l2")]["step"]) == [0, 1]


def test_a_second_stage_goes_on_in_the_same_files(recorded_run: "RecordedRun") -> None:
    statistics = BlockStatistics(recorded_run)
    for stage, epochs in enumerate(((1, 2), (3,))):
        trainer = Trainer(frozen=1 - stage)
        statistics.start(trainer)
        for epoch in epochs:
            run_epoch(statistics, trainer, epoch)
        statistics.stop(is_final=stage == 1)
        assert "optimizer_step" not in vars(trainer)

    frame = table(recorded_run)
    own = frame[(frame["kind"] == "gradients") & (frame["statistic"] == "l2")]
    assert {epoch: set(rows["block"]) for epoch, rows in own.groupby("epoch")} == {1: {1, 2}, 2: {1, 2}, 3: {0, 1, 2}}
    assert recorded_run.images[-1] == ("stats/weight_histograms", 3)


@pytest.mark.parametrize("method", ["before_step", "after_step"])
def test_a_failure_while_measuring_lets_the_step_be_taken_and_is_said_once(
    recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    def fail(*_: Any) -> None:
        raise ArithmeticError("broken on purpose")

    monkeypatch.setattr(StepCollector, method, fail)
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    statistics.start(trainer)
    with caplog.at_level(logging.WARNING):
        run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert trainer.n_own_steps == N_STEPS
    assert all(not torch.equal(p, q) for p, q in zip(before, trainer.model.parameters(), strict=True))
    assert [record.getMessage().count("broken on purpose") for record in caplog.records] == [1]
    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert recorded_run.metrics == []


def test_activations_that_fail_leave_gradients_and_weights(
    recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ArithmeticError("broken on purpose")

    monkeypatch.setattr(ActivationProbe, "_measure_output", fail)
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    run_epoch(statistics, trainer, 2)
    statistics.stop(is_final=True)

    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert set(table(recorded_run)["kind"]) == {"gradients", "weights", "global"}
    assert len(caplog.records) == 1


def test_a_drawing_that_fails_is_raised_at_the_end_only(
    recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no paper")

    monkeypatch.setattr(block_statistics, "draw_statistics", fail)
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)

    with pytest.raises(OSError, match="no paper"):
        statistics.stop(is_final=True)
    assert "optimizer_step" not in vars(trainer)
    assert (recorded_run.directory / "statistics" / "layers.parquet").is_file()


def test_parameters_that_never_had_a_gradient_are_named(
    recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture
) -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    trainer.model.model[1].register_parameter("spare", nn.Parameter(torch.ones(2)))
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert recorded_run.tags["mlflow_yolo.statistics.without_gradient"] == "model.1.spare"
    assert "model.1.spare" in caplog.text


def test_nothing_is_said_where_every_trainable_parameter_learns(
    recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture
) -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(frozen=1)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert (recorded_run.tags, caplog.records) == ({}, [])


def test_abandoning_gives_the_step_back_and_collects_nothing_more(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    statistics.watch_activations()
    statistics.abandon()
    run_epoch(statistics, trainer, 1)

    assert "optimizer_step" not in vars(trainer)
    assert not any(module._forward_hooks for module in trainer.model.modules())
    assert recorded_run.metrics == []


def test_a_training_that_never_had_an_epoch_leaves_no_files(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    statistics.stop(is_final=True)

    assert (recorded_run.files, recorded_run.images) == ([], [])


def test_the_probe_sees_the_averaged_weights_where_there_are_some(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer(n_blocks=1)
    trainer.ema = type("Ema", (), {"ema": Network(1)})()
    statistics.start(trainer)
    statistics.start_epoch(1)
    statistics.watch_activations()
    hooked = [bool(list(model.modules())[-1]._forward_hooks) for model in (trainer.model, trainer.ema.ema)]
    statistics.end_validation()
    statistics.stop(is_final=True)

    assert hooked == [False, True]


def test_a_copy_for_another_process_holds_nothing_alive(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    copy = pickle.loads(pickle.dumps(statistics))
    statistics.stop(is_final=True)

    assert [copy._collector, copy._trainer, copy._pool, copy._probe] == [None] * 4
    copy.stop(is_final=False)
