"""When block statistics are collected and where they go, around a trainer of a few linear layers."""

import logging
import math
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.tracking.blocks import statistics_output
from mlflow_yolo.tracking.blocks.block_metrics import MAX_BLOCK_METRICS
from mlflow_yolo.tracking.blocks.block_statistics import BlockStatistics

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
        self.device = torch.device("cpu")
        self.batch_size, self.accumulate = 1, 1
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.ema = None
        self.args = SimpleNamespace(compile=False)
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
    statistics.end_batches()
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
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
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
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(n_blocks=1, frozen=0)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    with torch.inference_mode():
        expected = float(trainer.model(torch.ones(1, 3)).mean())
    statistics.stop(is_final=True)

    frame = table(recorded_run)
    found = frame[(frame["kind"] == "activations") & (frame["statistic"] == "mean")]
    assert list(found["value"]) == pytest.approx([expected], rel=1e-6)


def test_the_loss_scale_is_taken_out_of_the_gradients(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda _: True, "_scale": torch.tensor(256.0)})()
    statistics.start(trainer)
    seen = run_epoch(statistics, trainer, 1, factor=256.0)
    statistics.stop(is_final=True)

    expected = np.mean([step[1] for step in seen]) / 256
    assert recorded_run.value("stats/gradient_l2/01-Linear", step=1) == pytest.approx(expected, rel=1e-6)


def test_gradients_equal_a_reference_by_hand_under_accumulation_a_scale_of_65536_and_clipping(
    recorded_run: "RecordedRun",
) -> None:
    """Ultralytics' own step: it unscales, clips to norm 10, steps, and clears. Four batches are one step."""
    from ultralytics.engine.trainer import BaseTrainer

    statistics, trainer = BlockStatistics(recorded_run, log_images=False, every_n_steps=1), Trainer()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    trainer.batch_size, trainer.accumulate = 5, 4
    trainer.optimizer_step = MethodType(BaseTrainer.optimizer_step, trainer)
    inputs = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 100
    statistics.start(trainer)
    statistics.start_epoch(1)
    expected = []
    for batches in inputs:
        expected.append(gradients_by_hand(trainer.model, batches.reshape(20, 3).numpy()))
        for batch in batches:
            loss = trainer.model(batch.float()).square().sum() / 2
            trainer.scaler.scale(loss).backward()
        trainer.optimizer_step()
    statistics.end_epoch(epoch=1, n_epochs=None)
    statistics.stop(is_final=True)

    frame = table(recorded_run).set_index(["kind", "statistic", "step", "block"])["value"]
    for step, blocks in enumerate(expected):
        norm = float(np.linalg.norm(np.concatenate(blocks)))
        assert norm > 100  # it is clipped, by more than ten
        assert frame["global", "gradient_norm", step, -1] == pytest.approx(norm, rel=1e-5)
        assert frame["global", "gradient_norm_per_image", step, -1] == pytest.approx(norm / 20, rel=1e-5)
        assert frame["global", "clip_coefficient", step, -1] == pytest.approx(10 / norm, rel=1e-5)
        assert frame["global", "loss_scale", step, -1] == 2.0**16
        for block, g in enumerate(blocks):
            by_hand = {"l1": np.abs(g).sum(), "l2": np.linalg.norm(g), "mean": g.mean(), "mean_abs": np.abs(g).mean()}
            by_hand |= {"max_abs": np.abs(g).max(), "variance": g.var(), "rms": np.sqrt((g**2).mean())}
            found = {name: frame["gradients", name, step, block] for name in by_hand}
            assert found == pytest.approx(by_hand, rel=1e-4)
            update = frame["weights", "update_l2", step, block]
            assert update == pytest.approx(0.1 * by_hand["l2"] * 10 / norm, rel=1e-3)


def gradients_by_hand(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """Return each block's flat gradient of sum(y^2) / 2 over all rows of x (N, 3), by the chain rule in numpy."""
    weights = [layer.weight.detach().double().numpy() for layer in network.model]
    inputs = [x]
    for weight, layer in zip(weights, network.model, strict=True):
        inputs.append(inputs[-1] @ weight.T + layer.bias.detach().double().numpy())
    slope, blocks = inputs[-1], []
    for weight, before in zip(weights[::-1], inputs[-2::-1], strict=True):
        blocks.append(np.concatenate([(slope.T @ before).ravel(), slope.sum(axis=0)]))
        slope = slope @ weight
    return blocks[::-1]


def test_a_scaler_without_a_tensor_of_its_own_is_asked(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda _: True, "get_scale": lambda _: 4.0})()
    statistics.start(trainer)
    seen = run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    expected = np.mean([step[1] for step in seen]) / 4
    assert recorded_run.value("stats/gradient_l2/01-Linear", step=1) == pytest.approx(expected, rel=1e-6)


def test_frozen_blocks_have_neither_metrics_nor_rows(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(frozen=2)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    keys = {key for _, values in recorded_run.metrics for key in values}
    assert {key for key in keys if "gradient_l2" in key} == {"stats/gradient_l2/02-Linear"}
    frame = table(recorded_run)
    assert set(frame[frame["kind"] == "gradients"]["block"]) == {2}


def test_a_deep_model_keeps_within_its_share_of_metrics_whole_statistics_left_out(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(n_blocks=40)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    keys = [key for _, values in recorded_run.metrics for key in values if key.count("/") == 2]
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
    assert {("stats/gradient_l2", 6), ("stats/weight_histograms", 6)} <= set(recorded_run.images)
    assert {step for _, step in recorded_run.images} == {6}  # drawn once


def test_an_epoch_that_is_repeated_counts_once(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(n_blocks=1)
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
    assert ("stats/weight_histograms", 3) in recorded_run.images


@pytest.mark.parametrize("method", ["before_step", "after_step"])
def test_a_failure_while_measuring_lets_the_step_be_taken_and_is_said_once(
    recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("broken on purpose")

    monkeypatch.setattr(StepCollector, method, fail)
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
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

    monkeypatch.setattr(ActivationProbe, "result", fail)
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    run_epoch(statistics, trainer, 2)
    statistics.stop(is_final=True)

    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert set(table(recorded_run)["kind"]) == {"gradients", "weights", "global", "state"}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("step", ["draw_statistics", "statistics_report"])
def test_a_drawing_that_fails_is_said_once_and_costs_only_itself(
    recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no paper")

    monkeypatch.setattr(statistics_output, step, fail)
    statistics, trainer = BlockStatistics(recorded_run), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert [record.getMessage().count("no paper") for record in caplog.records] == [1]
    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert "optimizer_step" not in vars(trainer)
    assert ("layers.parquet", "statistics") in recorded_run.files
    assert ("statistics/report.html" in recorded_run.texts) is (step == "draw_statistics")


def test_pictures_can_be_left_out_and_files_stay(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert recorded_run.images == []
    assert ("histograms.npz", "statistics") in recorded_run.files


def test_everything_is_measured_at_every_step_where_that_is_asked(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False, level="all"), Trainer(n_blocks=2)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    frame = table(recorded_run)
    steps = frame.groupby(["kind", "statistic"], observed=True)["step"].agg(lambda column: sorted(set(column)))
    everywhere = [
        ("gradients", "l2"),
        ("weights", "drift"),
        ("training_activations", "mean"),
        ("global", "gradient_norm"),
    ]
    assert [steps[key] for key in everywhere] == [[0, 1]] * 4
    assert steps[("activations", "mean")] == [1]  # the validation, after the last step
    assert steps[("training_activations", "redundancy")] == [1]  # over the passes of the epoch
    images = frame[frame["statistic"] == "n_images"].groupby("kind", observed=True)["value"].agg(list)
    assert images.to_dict() == {"training_activations": [2.0], "activations": [1.0]}
    assert not any(module._forward_hooks for module in trainer.model.modules())


def test_what_is_measured_over_an_epochs_passes_is_not_that_of_epochs_before(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False, level="all"), Trainer(n_blocks=2)
    statistics.start(trainer)
    for epoch in (1, 2, 2, 3):  # one is repeated
        run_epoch(statistics, trainer, epoch)
    statistics.stop(is_final=True)

    frame = table(recorded_run)
    seen = frame[(frame["kind"] == "training_activations") & (frame["statistic"] == "n_images")]
    assert dict(zip(seen["epoch"], seen["value"], strict=True)) == {1: 2.0, 2: 2.0, 3: 2.0}


def test_the_averaged_weights_have_a_histogram_of_their_own(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(frozen=1)
    averaged = Network(3).requires_grad_(False)
    with torch.no_grad():
        for parameter in averaged.parameters():
            parameter.fill_(0.75)  # in [2^-1, 2^0)
    trainer.ema = SimpleNamespace(ema=averaged)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    with np.load(recorded_run.directory / "statistics" / "histograms.npz") as arrays:
        assert arrays["ema_weights"][0, :, 0, 39].tolist() == [0, 12, 12]  # the frozen block has none
        assert int(arrays["ema_weights"].sum()) == 24
        assert arrays["weights"][0, 1].sum() + arrays["weights_zeros"][0, 1] == 12
        assert arrays["weights"][0, 1, 0, 39] < 12


def test_the_training_is_not_hooked_where_it_is_compiled(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False, level="all"), Trainer()
    trainer.args = SimpleNamespace(compile=True)
    statistics.start(trainer)

    assert not any(module._forward_hooks for module in trainer.model.modules())
    statistics.stop(is_final=True)


def test_rows_reach_the_disk_every_second_and_not_at_every_step(recorded_run: "RecordedRun") -> None:
    now = [0.0]
    statistics, trainer = BlockStatistics(recorded_run, every_n_steps=1, clock=lambda: now[0]), Trainer()
    statistics.start(trainer)
    statistics.start_epoch(1)
    handed: list[list[int]] = []
    assert statistics._output
    statistics._output.append = lambda part, attempt: handed.append(sorted(int(step) for step in part.grids[0].steps))  # type: ignore[method-assign]
    for seconds in (0.3, 0.6, 1.1, 0.2, 1.0):
        now[0] += seconds
        trainer.model(torch.ones(1, 3)).sum().backward()
        trainer.optimizer_step()
    statistics.abandon()

    assert handed == [[0, 1, 2], [3, 4]]


def test_an_interrupted_epoch_leaves_its_steps_in_the_file(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(n_blocks=1)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.start_epoch(2)
    trainer.model(torch.ones(1, 3)).sum().backward()
    trainer.optimizer_step()
    statistics.stop(is_final=True)

    own = table(recorded_run).query("kind == 'gradients' and statistic == 'l2'")
    assert list(zip(own["epoch"], own["step"], strict=True)) == [(1, 0), (1, 1), (2, 0)]


def test_a_poisoned_step_of_an_attempt_that_was_given_up_is_still_told(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.start_epoch(2)
    (math.inf * trainer.model(torch.ones(1, 3)).sum()).backward()
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.optimizer_step()
    with torch.no_grad():  # what Ultralytics does: load the last checkpoint and repeat the epoch
        for parameter, weight in zip(trainer.model.parameters(), weights, strict=True):
            parameter.copy_(weight)
    run_epoch(statistics, trainer, 2)
    statistics.stop(is_final=True)

    assert recorded_run.tags["mlflow_yolo.statistics.nonfinite"] == "epoch 2 step 0 block 02-Linear"
    assert recorded_run.value("stats/nonfinite_steps", step=2) == 1
    values = table(recorded_run).query("epoch == 2 and kind == 'gradients'")["value"]
    assert np.isfinite(values).all()


def test_skipped_steps_and_the_loss_scale_are_metrics_under_mixed_precision_only(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda _: True, "_scale": torch.tensor(256.0)})()
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=False)
    run_epoch(statistics, trainer, 2)
    statistics.stop(is_final=True)

    assert recorded_run.value("stats/loss_scale", step=1) == 256.0
    assert recorded_run.value("stats/skipped_steps", step=1) == 0.0
    assert not any("skipped_steps" in values for step, values in recorded_run.metrics if step == 2)


def test_parameters_that_never_had_a_gradient_are_named(
    recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture
) -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
    trainer.model.model[1].register_parameter("spare", nn.Parameter(torch.ones(2)))
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert recorded_run.tags["mlflow_yolo.statistics.without_gradient"] == "model.1.spare"
    assert "model.1.spare" in caplog.text


def test_nothing_is_said_where_every_trainable_parameter_learns(
    recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture
) -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(frozen=1)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=True)

    assert recorded_run.tags == {"mlflow_yolo.statistics.frozen": "00-Linear"}
    assert caplog.records == []


def test_abandoning_gives_the_step_back_and_collects_nothing_more(recorded_run: "RecordedRun") -> None:
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer()
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
    statistics, trainer = BlockStatistics(recorded_run, log_images=False), Trainer(n_blocks=1)
    trainer.ema = type("Ema", (), {"ema": Network(1)})()
    statistics.start(trainer)
    statistics.start_epoch(1)
    statistics.watch_activations()
    hooked = [bool(list(model.modules())[-1]._forward_hooks) for model in (trainer.model, trainer.ema.ema)]
    statistics.end_validation()
    statistics.stop(is_final=True)

    assert hooked == [False, True]


def last_drift(run: "RecordedRun") -> dict[str, float]:
    frame = table(run)
    drift = frame[(frame["kind"] == "weights") & (frame["statistic"] == "drift")]
    return drift[drift["epoch"] == drift["epoch"].max()].set_index("name")["value"].to_dict()


def drift_by_hand(start: list[list[torch.Tensor]], model: nn.Module) -> dict[str, float]:
    found = {}
    for i, (before, block) in enumerate(zip(start, model.model, strict=True)):
        first = torch.cat([p.flatten() for p in before])
        now = torch.cat([p.detach().flatten() for p in block.parameters()])
        found[f"{i:02d}-Linear"] = float((now - first).norm() / first.norm())
    return found


@pytest.mark.parametrize("how", ["a second stage", "a resumed training", "a damaged file"])
def test_drift_is_from_the_weights_that_the_training_began_with(recorded_run: "RecordedRun", how: str) -> None:
    trainer = Trainer()
    start = [[p.detach().clone() for p in block.parameters()] for block in trainer.model.model]
    statistics = BlockStatistics(recorded_run, log_images=False)
    statistics.start(trainer)
    run_epoch(statistics, trainer, 1)
    statistics.stop(is_final=how != "a second stage")
    kept = recorded_run.directory / "statistics" / "start_weights.pt"
    if how != "a second stage":
        assert kept.is_file()  # interrupted: nobody has said that the training is over
        statistics = BlockStatistics(recorded_run, log_images=False, resume=True)
    if how == "a damaged file":
        kept.write_bytes(kept.read_bytes()[:100])
        start = [[p.detach().clone() for p in block.parameters()] for block in trainer.model.model]
    statistics.start(trainer)
    run_epoch(statistics, trainer, 2)
    statistics.end_training()
    statistics.stop(is_final=True)

    assert last_drift(recorded_run) == pytest.approx(drift_by_hand(start, trainer.model), rel=1e-4)
    assert not kept.exists()
    assert not list(kept.parent.glob(".*"))
