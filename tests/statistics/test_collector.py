import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.global_norm import gradient_norms
from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.stretch import Stretch

NAMES = {0: "00-Conv", 1: "01-C3k2", 2: "02-Concat", 3: "03-Detect"}


def block_of(name: str) -> int | None:
    match = re.match(r"model\.(\d+)\.", name)
    return int(match[1]) if match else None


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.SiLU()),
                nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.SiLU()),
                nn.Identity(),
                nn.Linear(8, 2),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.model:
            x = block(x)
        return x


def backward(model: nn.Module, *, seed: int = 0, scale: float = 1.0) -> None:
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
    (model(x).square().sum() * scale).backward()


def collector_of(model: nn.Module, **options: object) -> StepCollector:
    return StepCollector(list(model.named_parameters()), block_of=block_of, names=NAMES, **options)  # type: ignore[arg-type]


def grid_of(statistics: EpochStatistics, kind: str) -> Grid:
    return next(grid for grid in statistics.grids if grid.kind == kind)


def one_step(model: nn.Module, *, scale: float | Tensor = 1.0, lr: float = 0.1) -> EpochStatistics:
    """Return the statistics of one plain SGD step on the gradients that are there."""
    collector = collector_of(model)
    collector.before_step(scale)
    torch.optim.SGD(model.parameters(), lr=lr).step()
    collector.after_step()
    return collector.end_epoch()


def block_tensors(model: Model, block: int) -> list[Tensor]:
    return [p.grad.double().flatten() for p in model.model[block].parameters() if p.grad is not None]


def test_gradient_statistics_of_every_block_equal_double_precision() -> None:
    model = Model()
    backward(model)
    expected = {}
    for block in (0, 1, 3):
        g = torch.cat(block_tensors(model, block))
        values = {"l1": g.abs().sum(), "l2": g.norm(), "mean": g.mean(), "mean_abs": g.abs().mean()}
        values |= {"max_abs": g.abs().max(), "variance": g.var(correction=0), "rms": g.square().mean().sqrt()}
        expected |= {("gradients", name, block): float(value) for name, value in values.items()}
    summary = one_step(model).summary()
    assert {key: value for key, value in summary.items() if key[0] == "gradients"} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_loss_scale_is_divided_out_and_the_gradients_stay_scaled(as_tensor: bool) -> None:
    plain, scaled = Model().eval(), Model().eval()  # no dropout
    backward(plain)
    backward(scaled, scale=2.0**16)
    scale = torch.tensor(2.0**16) if as_tensor else 2.0**16
    before = [p.grad.clone() for p in scaled.parameters() if p.grad is not None]
    expected, found = one_step(plain, lr=0.0), one_step(scaled, scale=scale, lr=0.0)
    assert all(torch.equal(p.grad, b) for p, b in zip(scaled.parameters(), before, strict=True) if p.grad is not None)
    differing = {("global", "loss_scale", NO_BLOCK): 2.0**16}
    assert found.summary() == pytest.approx(expected.summary() | differing, rel=1e-5)
    assert np.array_equal(found.histograms["gradients"].counts, expected.histograms["gradients"].counts)


def test_the_scale_that_a_scaler_changes_in_place_is_the_one_before_the_step() -> None:
    model, scale = Model(), torch.tensor(8.0)
    collector = collector_of(model)
    backward(model, scale=8.0)
    collector.before_step(scale)
    scale.mul_(2)
    collector.after_step()
    assert collector.end_epoch().summary()["global", "loss_scale", NO_BLOCK] == 8.0


def test_accumulated_gradients_are_read_as_their_sum() -> None:
    model = Model().eval()
    backward(model, seed=1)
    backward(model, seed=2)
    both = torch.cat(block_tensors(model, 3))
    assert one_step(model).summary()["gradients", "l2", 3] == pytest.approx(float(both.norm()), rel=1e-5)


def test_global_norm_and_clip_coefficient_equal_torch() -> None:
    model = Model()
    backward(model, scale=100.0)
    collector = collector_of(model)
    collector.before_step()
    before = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
    after = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    collector.after_step()
    summary = collector.end_epoch().summary()
    assert norm > 10
    assert summary["global", "gradient_norm", NO_BLOCK] == pytest.approx(float(norm), rel=1e-6)
    assert summary["global", "clip_coefficient", NO_BLOCK] == pytest.approx(float(after.norm() / before.norm()), 1e-5)


def test_the_global_norm_per_image_is_known_where_images_are_counted() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=2)
    for n_images in (32, 32, 8, 0):
        backward(model)
        collector.before_step(n_images=n_images)
        collector.after_step()
    grids = {name: grid for grid in collector.end_epoch().grids for name in grid.values}
    norm, per_image = grids["gradient_norm"], grids["gradient_norm_per_image"]
    assert norm.steps.tolist() == per_image.steps.tolist() == [0, 2]
    expected = norm.values["gradient_norm"][:, 0] / [32, 8]
    assert per_image.values["gradient_norm_per_image"][:, 0] == pytest.approx(expected, rel=1e-6)


def test_update_ratio_of_plain_sgd_is_lr_times_gradient_over_weight() -> None:
    model = Model()
    backward(model)
    weights = torch.cat([p.detach().double().flatten() for p in model.model[1].parameters()])
    gradient = torch.cat(block_tensors(model, 1))
    summary = one_step(model, lr=0.05).summary()
    assert summary["weights", "update_ratio", 1] == pytest.approx(
        0.05 * float(gradient.norm() / weights.norm()), rel=1e-4
    )
    assert summary["weights", "mean", 1] == pytest.approx(float(weights.mean()), rel=1e-4)
    assert summary["weights", "std", 1] == pytest.approx(float(weights.std(correction=0)), rel=1e-5)


def train(model: Model, collector: StepCollector | None) -> list[Tensor]:
    """Train six steps with AdamW, dropout, clipping and a change of what is frozen; return weights and random state."""
    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(6):
        model.model[0].requires_grad_(step >= 3)
        backward(model, seed=step)
        if collector:
            collector.before_step()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        optimizer.step()
        optimizer.zero_grad()
        if collector:
            collector.after_step()
    if collector:
        collector.end_epoch()
    return [*model.state_dict().values(), torch.get_rng_state()]


def test_training_is_bit_identical_with_and_without_the_collector() -> None:
    model = Model()
    with_collector, without = train(model, collector_of(model)), train(Model(), None)
    assert all(torch.equal(a, b) for a, b in zip(with_collector, without, strict=True))
    assert not torch.equal(with_collector[0], Model().state_dict()["model.0.0.weight"])


def test_a_frozen_block_has_no_rows_and_is_named() -> None:
    model = Model()
    model.model[1].requires_grad_(False)
    backward(model)
    statistics = one_step(model)
    assert {block for _, _, block in statistics.summary()} == {0, 3, NO_BLOCK}
    assert statistics.frozen == ("01-C3k2",)
    assert statistics.without_gradient == ()
    assert statistics.histograms["weights"].counts[1].sum() == 0


def test_a_gradient_left_over_from_before_freezing_is_not_read() -> None:
    model = Model()
    backward(model)
    model.model[0].requires_grad_(False)
    assert {block for _, _, block in one_step(model).summary()} == {1, 3, NO_BLOCK}


def test_a_block_that_is_unfrozen_later_has_rows_from_then_on() -> None:
    model = Model()
    collector = collector_of(model)
    for step in range(3):
        model.model[0].requires_grad_(step > 0)
        backward(model)
        collector.before_step()
        collector.after_step()
        model.zero_grad()
    grid = grid_of(statistics := collector.end_epoch(), "gradients")
    assert grid.measured[:, list(grid.blocks).index(0)].tolist() == [False, True, True]
    assert statistics.frozen == ()


def test_trainable_parameters_without_a_gradient_are_named() -> None:
    model = Model()
    backward(model)
    model.model[3].weight.grad = None
    assert one_step(model).without_gradient == ("model.3.weight",)


def test_parameters_outside_all_blocks_count_in_the_global_norm_only() -> None:
    inside, outside = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    inside.grad, outside.grad = torch.tensor([3.0]), torch.tensor([4.0])
    collector = StepCollector([("model.0.w", inside), ("projector.w", outside)], block_of=block_of, names=NAMES)
    collector.before_step()
    collector.after_step()
    summary = collector.end_epoch().summary()
    assert summary["global", "gradient_norm", NO_BLOCK] == 5.0
    assert summary["gradients", "l2", 0] == 3.0


def test_a_non_finite_step_names_the_deepest_block_and_is_left_out_of_the_means() -> None:
    model = Model()
    collector = collector_of(model)
    expected = []
    for step in range(3):
        model.zero_grad()
        backward(model, seed=step)
        gradient = model.model[0][0].weight.grad
        assert gradient is not None
        if step == 1:
            gradient[0, 0] = float("nan")
            other = model.model[1][0].bias.grad
            assert other is not None
            other[2] = float("inf")
        else:
            expected.append(float(torch.cat(block_tensors(model, 0)).norm()))
        collector.before_step()
        collector.after_step()
    statistics = collector.end_epoch()
    assert statistics.nonfinite_steps == ((1, 1),)
    assert statistics.summary()["gradients", "l2", 0] == pytest.approx(np.mean(expected), rel=1e-5)
    assert grid_of(statistics, "gradients").counted.tolist() == [True, False, True]


def test_non_finite_gradients_are_seen_at_steps_that_are_not_sampled() -> None:
    model = Model()
    collector = collector_of(model, steps_per_epoch=100, every_n_steps=100)
    for step in range(8):
        backward(model)
        if step in (5, 7):
            model.model[0].zero_grad()  # a step may lack gradients, too
            assert model.model[3].bias.grad is not None
            model.model[3].bias.grad.fill_(float("inf"))
        collector.before_step()
        collector.after_step()
        model.zero_grad()
    statistics = collector.end_epoch()
    assert statistics.nonfinite_steps == ((5, 3), (7, 3))
    assert grid_of(statistics, "gradients").steps.tolist() == [0]
    (bad,) = [grid for grid in statistics.grids if "nonfinite_block" in grid.values]
    assert bad.steps[bad.measured[:, 0]].tolist() == [5, 7]  # each has its row, not the first alone


@pytest.mark.parametrize(("told", "n_own"), [("norm", 2), ("clipped", 7), ("nothing", 7)])
def test_the_trainers_own_norm_saves_reading_the_gradients_once_it_has_agreed(
    monkeypatch: pytest.MonkeyPatch, told: str, n_own: int
) -> None:
    own = []
    monkeypatch.setattr(
        "mlflow_yolo.statistics.collector.gradient_norms", lambda g: own.append(len(g)) or gradient_norms(g)
    )
    model = Model()
    collector, optimizer = collector_of(model, every_n_steps=4), torch.optim.SGD(model.parameters(), lr=0.0)
    for step in range(10):  # sampled: 0, 4, 8
        optimizer.zero_grad()
        backward(model, seed=step)
        if step in (2, 6):
            model.model[1][0].weight.grad[0, 0] = float("inf" if step == 2 else "nan")
        if step == 9:
            told = "nothing"  # the trainer does not clip any more
        collector.before_step()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        if told != "nothing":
            collector.see_norm(norm if told == "norm" else norm.clamp(max=1e-3))
        collector.after_step()
    statistics = collector.end_epoch()
    assert statistics.nonfinite_steps == ((2, 1), (6, 1))
    assert len(own) == n_own  # of the seven steps that are not sampled, or just the two that are not finite
    assert collector.end_epoch().nonfinite_steps == ()


def test_a_norm_under_a_loss_scale_is_not_relied_on() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=4)
    for step in range(3):
        model.zero_grad()
        backward(model, seed=step)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        collector.before_step(2.0)
        collector.see_norm(norm / 2)
        collector.after_step()
        assert not collector._trusts_norm


def test_an_aborted_epoch_is_forgotten() -> None:
    model = Model()
    backward(model)
    collector = collector_of(model, every_n_steps=1)
    collector.start_epoch(4)
    collector.before_step()
    collector.after_step()
    collector.before_step()  # the step failed, and the trainer starts the epoch anew
    collector.start_epoch(4)
    collector.before_step()
    collector.after_step()
    statistics = collector.end_epoch()
    assert (statistics.epoch, statistics.n_steps) == (4, 1)
    assert grid_of(statistics, "gradients").steps.tolist() == [0]


def test_histograms_count_every_trainable_element() -> None:
    model = Model()
    backward(model)
    for kind, histograms in one_step(model).histograms.items():
        found = histograms.counts.sum((1, 2)) + histograms.zeros
        sizes = [sum(p.numel() for p in model.model[block].parameters()) for block in (0, 1, 3)]
        assert (kind, histograms.blocks.tolist(), found.tolist()) == (kind, [0, 1, 3], sizes)


def test_an_epoch_without_steps_or_gradients_is_empty() -> None:
    collector = collector_of(Model())
    assert collector.end_epoch().summary() == {}
    collector.before_step()
    collector.after_step()
    statistics = collector.end_epoch()
    assert (statistics.summary(), statistics.n_steps, statistics.histograms) == ({}, 1, {})


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ArgumentError, match="every_n_steps=0"):
        collector_of(Model(), every_n_steps=0)


def steps_of(
    model: Model, collector: StepCollector, n_steps: int, *, lr: float = 1e-3, poison: int | None = None
) -> list[dict[int, Tensor]]:
    """Take plain SGD steps; return the gradients of each, by block, and spoil those of the step `poison`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    gradients = []
    for step in range(n_steps):
        optimizer.zero_grad()
        backward(model, seed=step)
        if step == poison:
            assert model.model[1][0].bias.grad is not None
            model.model[1][0].bias.grad[0] = float("nan")
        gradients.append({b: torch.cat(block_tensors(model, b)) for b in (0, 1, 3) if block_tensors(model, b)})
        collector.before_step()
        if step != poison:
            optimizer.step()
        collector.after_step()
    return gradients


def weights_of(model: Model, block: int) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.model[block].parameters()])


def test_four_accumulated_batches_give_the_gradient_of_one_large_batch() -> None:
    whole, parts = Model().eval(), Model().eval()  # no dropout, frozen batch statistics
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    whole(x).square().sum().backward()
    for part in x.chunk(4):
        (parts(part).square().sum() * 2.0**16).backward()
    expected, found = one_step(whole), one_step(parts, scale=torch.tensor(2.0**16))
    gradients = {key: value for key, value in expected.summary().items() if key[0] == "gradients"}
    assert {key: found.summary()[key] for key in gradients} == pytest.approx(gradients, rel=1e-4, abs=1e-6)


def test_clipping_shows_in_the_update_and_not_in_the_gradient() -> None:
    model = Model().eval()
    backward(model, scale=100.0)
    expected = {block: float(torch.cat(block_tensors(model, block)).norm()) for block in (0, 1, 3)}
    collector = collector_of(model)
    collector.before_step()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0))
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    collector.after_step()
    summary = collector.end_epoch().summary()
    for block, gradient in expected.items():
        assert summary["gradients", "l2", block] == pytest.approx(gradient, rel=1e-5)
        assert summary["weights", "update_l2", block] == pytest.approx(0.01 * gradient * 10.0 / norm, rel=1e-4)
        assert summary["weights", "update_cosine", block] == pytest.approx(1.0, abs=1e-5)


def test_half_precision_gradients_are_unscaled_in_single_precision() -> None:
    parameter = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    parameter.grad = torch.tensor([60000.0, -60000.0, 60000.0, 0.0], dtype=torch.float16)
    collector = StepCollector([("model.0.w", parameter)], block_of=block_of, names=NAMES)
    collector.before_step(torch.tensor(2.0**16))
    collector.after_step()
    summary = collector.end_epoch().summary()
    largest = float(torch.tensor(60000.0).half()) / 2.0**16
    assert summary["gradients", "l1", 0] == pytest.approx(3 * largest)
    assert summary["gradients", "l2", 0] == pytest.approx(3**0.5 * largest)
    assert summary["global", "gradient_norm", NO_BLOCK] == pytest.approx(3**0.5 * largest)
    assert ("global", "nonfinite_block", NO_BLOCK) not in summary


def test_updates_of_plain_sgd_are_the_learning_rate_times_the_gradient_at_every_step() -> None:
    model = Model()
    gradients = steps_of(model, collector := collector_of(model, every_n_steps=1), 5, lr=0.05)
    grid = grid_of(collector.end_epoch(), "weights")
    expected = [[0.05 * float(step[block].norm()) for block in (0, 1, 3)] for step in gradients]
    assert grid.values["update_l2"] == pytest.approx(np.array(expected), rel=1e-4)
    assert grid.values["update_cosine"] == pytest.approx(np.ones((5, 3)), abs=1e-5)


def test_the_angle_of_an_update_is_that_between_the_weights() -> None:
    model = Model()
    before = weights_of(model, 1)
    backward(model)
    summary = one_step(model, lr=0.01).summary()
    after = weights_of(model, 1)
    angle = torch.acos(before @ after / before.norm() / after.norm())
    assert summary["weights", "angular_update", 1] == pytest.approx(float(angle), rel=1e-3)


def test_without_an_update_the_cosine_is_left_out() -> None:
    model = Model()
    backward(model)
    summary = one_step(model, lr=0.0).summary()
    assert ("weights", "update_cosine", 1) not in summary
    assert summary["weights", "update_ratio", 1] == 0.0


def test_a_cosine_that_is_undefined_at_one_step_is_averaged_over_the_others() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=1)
    for lr in (0.0, 1e-3):
        steps_of(model, collector, 1, lr=lr)
    assert collector.end_epoch().summary()["weights", "update_cosine", 0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("complete", [False, True])
def test_drift_is_from_the_weights_at_the_start_over_all_epochs(complete: bool) -> None:
    model = Model()
    first = weights_of(model, 3)
    collector = collector_of(model, every_n_steps=2, complete=complete)
    for n_steps in (3, 2):
        steps_of(model, collector, n_steps)
        last = weights_of(model, 3)
        statistics = collector.end_epoch()
        drift = next(grid for grid in statistics.grids if "drift" in grid.values)
        column = list(drift.blocks).index(3)
        expected = {
            "drift": float((last - first).norm() / first.norm()),
            "drift_cosine": float(last @ first / last.norm() / first.norm()),
        }
        if n_steps == 3:  # its last step was sampled
            assert {name: drift.values[name][-1, column] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert (drift.kind, drift.once, len(drift.steps)) == (
            "weights",
            not complete,
            (n_steps + 1) // 2 if complete else 1,
        )
        assert drift.steps[-1] == (n_steps - 1 if n_steps == 3 or not complete else 0)


def test_drift_of_a_resumed_training_is_from_its_beginning() -> None:
    model = Model()
    first = collector_of(model).initial_weights
    assert set(first) == {name for name, _ in model.named_parameters()}
    assert torch.equal(first["model.3.bias"], model.model[3].bias)
    steps_of(model, collector_of(model), 3)
    resumed = collector_of(model, reference={name: w for name, w in first.items() if name.startswith("model.3.")})
    backward(model)
    resumed.before_step()
    resumed.after_step()
    summary = resumed.end_epoch().summary()
    start = torch.cat([first["model.3.weight"].flatten(), first["model.3.bias"]]).double()
    now = weights_of(model, 3)
    assert summary["weights", "drift", 3] == pytest.approx(float((now - start).norm() / start.norm()), rel=1e-5)
    assert summary["weights", "drift", 0] == 0.0


def test_the_weights_at_the_start_are_kept_once() -> None:
    model = Model()
    collector = collector_of(model)
    first = {name: w.clone() for name, w in collector.initial_weights.items()}
    steps_of(model, collector, 2)
    kept = collector.initial_weights
    assert all(torch.equal(kept[name], w) for name, w in first.items())
    assert len({w.untyped_storage().data_ptr() for w in kept.values()}) == 1  # that of the measuring itself


def test_noise_and_signal_equal_numpy_and_leave_out_non_finite_steps() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=1)
    for _ in range(2):  # the second epoch starts anew
        gradients = steps_of(model, collector, 6, poison=3)
        statistics = collector.end_epoch()
        summary = statistics.summary()
        for block in (0, 1, 3):
            g = np.array([step[block].numpy() for t, step in enumerate(gradients) if t != 3])
            mean = g.mean(axis=0)
            noise = np.var(g, axis=0).sum()
            expected = {"noise": noise, "gsnr": mean @ mean / (noise / 5), "noise_scale": noise / (mean @ mean)}
            found = {name: summary["gradients", name, block] for name in expected}
            assert found == pytest.approx(expected, rel=1e-4)
    assert [grid.steps.tolist() for grid in statistics.grids if "gsnr" in grid.values] == [[5]]


def test_noise_needs_two_finite_steps() -> None:
    model = Model()
    steps_of(model, collector := collector_of(model, every_n_steps=1), 2, poison=0)
    assert not any(name in ("noise", "gsnr", "noise_scale") for _, name, _ in collector.end_epoch().summary())


def test_noise_after_unfreezing_is_that_of_the_steps_since_then() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=1)
    model.model[0].requires_grad_(False)
    steps_of(model, collector, 2)
    model.model[0].requires_grad_(True)
    gradients = steps_of(model, collector, 3)
    statistics = collector.end_epoch()
    for block in (0, 3):
        g = np.array([step[block].numpy() for step in gradients])
        assert statistics.summary()["gradients", "noise", block] == pytest.approx(np.var(g, axis=0).sum(), rel=1e-4)
    grid = grid_of(statistics, "weights")
    assert grid.measured[:, 0].tolist() == [False, False, True, True, True]


def test_freezing_and_unfreezing_leaves_the_updates_of_the_others_right() -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=1)
    for trains in (True, False, True):
        model.model[1].requires_grad_(trains)
        model.zero_grad()
        (gradient,) = steps_of(model, collector, 1) if trains else [{}]
        if not trains:
            backward(model)
            collector.before_step()
            torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3).step()
            collector.after_step()
    grid = grid_of(collector.end_epoch(), "weights")
    assert grid.measured.tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert grid.values["update_l2"][2].tolist() == pytest.approx(
        [1e-3 * float(gradient[b].norm()) for b in (0, 1, 3)], 1e-4
    )


@pytest.mark.parametrize("how", ["in place", "state dict", "new memory", "double precision"])
def test_weights_that_somebody_changes_between_steps_are_read_anew(how: str) -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=1)
    steps_of(model, collector, 2)
    with torch.no_grad():
        if how == "in place":
            model.model[1][0].weight.mul_(3.0)
        elif how == "state dict":
            model.load_state_dict({name: 3.0 * value for name, value in model.state_dict().items()})
        elif how == "new memory":
            model.model[1][0].weight.data = 3.0 * model.model[1][0].weight.data
        else:
            model.double()
    expected = float(weights_of(model, 1).norm())
    if how == "double precision":
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(5)).double()
        model.zero_grad()
        model(x).square().sum().backward()
        gradient = float(torch.cat(block_tensors(model, 1)).norm())
        collector.before_step()
        torch.optim.SGD(model.parameters(), lr=1e-3).step()
        collector.after_step()
    else:
        gradient = float(steps_of(model, collector, 1)[0][1].norm())
    grid = grid_of(collector.end_epoch(), "weights")
    exactly = 1e-12 if how == "double precision" else 1e-5
    assert grid.values["l2"][2, 1] == pytest.approx(expected, rel=exactly)
    assert grid.values["update_l2"][2, 1] == pytest.approx(1e-3 * gradient, rel=1e-4)


def test_a_parameter_without_a_gradient_at_one_step_is_not_counted_there() -> None:
    model = Model()
    backward(model)
    model.model[3].weight.grad = None
    bias = model.model[3].bias.grad
    assert bias is not None
    summary = one_step(model).summary()
    assert summary["gradients", "mean_abs", 3] == pytest.approx(float(bias.abs().mean()), rel=1e-5)
    model.model[3].bias.grad = None
    assert ("gradients", "l2", 3) not in one_step(model).summary()


def test_a_model_without_parameters_is_empty() -> None:
    collector = StepCollector([], block_of=block_of, names=NAMES, complete=True)
    collector.before_step()
    collector.after_step()
    assert collector.drain() is None
    statistics = collector.end_epoch()
    assert (statistics.grids, statistics.n_steps, statistics.frozen) == ((), 1, ())


def rows_of(*parts: EpochStatistics | None) -> list[tuple[object, ...]]:
    """Return every measured value with its place, in order."""
    return sorted(
        (grid.kind, name, int(step), int(block), str(values[t, b]))
        for part in parts
        if part is not None
        for grid in part.grids
        for name, values in grid.values.items()
        for t, step in enumerate(grid.steps)
        for b, block in enumerate(grid.blocks)
        if grid.measured[t, b]
    )


def test_a_step_that_is_not_finished_is_not_drained_yet() -> None:
    model = Model()
    collector = collector_of(model, steps_per_epoch=9, every_n_steps=2)
    steps_of(model, collector, 1)
    collector.drain()
    backward(model)
    assert model.model[3].bias.grad is not None
    model.model[3].bias.grad.fill_(float("nan"))
    collector.before_step()  # not sampled, but not finite
    assert collector.drain() is None
    collector.after_step()
    part = collector.drain()
    assert part is not None
    assert part.nonfinite_steps == ((1, 3),)


@pytest.mark.parametrize("complete", [False, True])
def test_drained_rows_and_what_is_measured_once_make_up_the_epoch(complete: bool) -> None:
    model = Model()
    collector = collector_of(model, every_n_steps=2, complete=complete)
    parts = [collector.drain()]
    for n_steps in (1, 4, 2):
        steps_of(model, collector, n_steps, poison=2 if n_steps == 4 else None)
        parts.append(collector.drain())
    assert parts[0] is None
    assert collector.drain() is None
    whole = collector.end_epoch()
    assert [part.nonfinite_steps for part in parts if part] == [(), ((3, 1),), ()]
    assert [sorted({step for _, _, step, _, _ in rows_of(part)}) for part in parts if part] == [[0], [2, 3, 4], [6]]
    rest = whole.epoch_only
    assert rows_of(*parts, rest) == rows_of(whole)
    assert {name for _, name, *_ in rows_of(rest)} >= {"gsnr"}
    assert ("drift" in {name for _, name, *_ in rows_of(rest)}) is not complete
    assert rest.histograms is whole.histograms
    assert collector.drain() is None  # of the epoch that is over


def test_a_complete_collection_has_every_step_and_its_histograms_add_up() -> None:
    model = Model()
    collector = collector_of(model, steps_per_epoch=100, complete=True)
    steps_of(model, collector, 5, poison=1)
    statistics = collector.end_epoch()
    assert grid_of(statistics, "gradients").steps.tolist() == [0, 1, 2, 3, 4]
    sizes = np.array([sum(p.numel() for p in model.model[block].parameters()) for block in (0, 1, 3)])
    for name, n_counted in {"gradients": 4, "weights": 1}.items():
        histograms = statistics.histograms[name]
        assert np.array_equal(histograms.counts.sum((1, 2)) + histograms.zeros, n_counted * sizes)


def test_the_gradient_histogram_is_of_the_first_finite_sampled_step() -> None:
    model = Model()
    gradients = steps_of(model, collector := collector_of(model, every_n_steps=1), 3, poison=0)
    histograms = collector.end_epoch().histograms["gradients"]
    assert int(histograms.counts[0].sum()) + int(histograms.zeros[0]) == gradients[1][0].numel()
    exponents = np.frexp(np.abs(gradients[1][0].numpy()))[1] - 1
    expected = np.bincount(exponents[gradients[1][0].numpy() != 0] + 40, minlength=64)
    assert np.array_equal(histograms.counts[0].sum(0), expected)


def test_the_default_samples_within_its_budget_and_an_interval_does_not_care() -> None:
    for options, expected in (({"budget": 0.0}, [0, 1, 2, 9]), ({"every_n_steps": 5}, [0, 5]), ({}, list(range(10)))):
        model, seconds = Model(), iter(range(10**6))
        clock = (lambda: 0.0) if not options else (lambda seconds=seconds: float(next(seconds)))
        collector = collector_of(model, steps_per_epoch=10, clock=clock, **options)
        steps_of(model, collector, 10)
        assert grid_of(collector.end_epoch(), "weights").steps.tolist() == expected


def test_a_longer_epoch_ends_later() -> None:
    model = Model()
    collector = collector_of(model, steps_per_epoch=4, budget=0.0)
    steps_of(model, collector, 4)
    collector.start_epoch(1, steps_per_epoch=8)
    steps_of(model, collector, 8)
    assert grid_of(collector.end_epoch(), "weights").steps.tolist() == [7]


def decay_sums(stretch: Stretch) -> tuple[Tensor]:
    return (stretch.reduce.dot(stretch.weights, stretch.gradient),)


def test_a_measure_can_be_added_without_touching_the_collector() -> None:
    measure = Measure(
        "weights",
        ("weights_dot_gradient",),
        decay_sums,
        lambda sums: {"decay_cosine": sums["weights_dot_gradient"] / (sums["after_l2"] * sums["gradient_l2"])},
    )
    model = Model()
    collector = collector_of(model, measures=[measure])
    (gradient,) = steps_of(model, collector, 1)
    weights = weights_of(model, 1)
    expected = weights @ gradient[1] / weights.norm() / gradient[1].norm()
    summary = collector.end_epoch().summary()
    assert summary["weights", "decay_cosine", 1] == pytest.approx(float(expected), rel=1e-4)
    assert ("gradients", "l2", 1) not in summary
