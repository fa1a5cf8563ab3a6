import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.statistics.collector import StepCollector, sampling_interval
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.measure import Source
from mlflow_yolo.statistics.vectors import Floats

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
        values |= {"max_abs": g.abs().max(), "variance": g.var(correction=0)}
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
    collector = collector_of(model, every_n_steps=100)
    for step in range(8):
        backward(model)
        if step == 5:
            assert model.model[3].bias.grad is not None
            model.model[3].bias.grad.fill_(float("inf"))
        collector.before_step()
        collector.after_step()
        model.zero_grad()
    statistics = collector.end_epoch()
    assert statistics.nonfinite_steps == ((5, 3),)
    assert grid_of(statistics, "gradients").steps.tolist() == [0, 1, 2]
    assert grid_of(statistics, "global").steps.tolist() == [0, 1, 2, 5]


def sampled_steps(collector: StepCollector, model: nn.Module, n_steps: int) -> list[int]:
    for _ in range(n_steps):
        collector.before_step()
        collector.after_step()
    return [int(step) for step in grid_of(collector.end_epoch(), "weights").steps]


def test_the_first_three_steps_of_a_training_and_the_last_of_an_epoch_are_sampled() -> None:
    model = Model()
    backward(model)
    collector = collector_of(model, steps_per_epoch=10, every_n_steps=4)
    assert sampled_steps(collector, model, 10) == [0, 1, 2, 4, 8, 9]
    assert sampled_steps(collector, model, 10) == [0, 4, 8, 9]


def test_an_epoch_has_about_twenty_samples() -> None:
    assert [sampling_interval(n) for n in (0, 1, 19, 20, 59, 400)] == [1, 1, 1, 1, 2, 20]


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


class Drift:
    """A measure with a memory, as a later module would add it: distance from the first weights seen."""

    kind = "drift"
    sources: tuple[Source, ...] = ("weights",)

    def __init__(self) -> None:
        self.first: dict[int, Tensor] = {}

    def reduce(self, source: Source, block: int, vector: Tensor) -> Tensor:
        first = self.first.setdefault(block, vector.clone())
        return torch.stack([torch.linalg.vector_norm(vector - first)])

    def statistics(self, sums: dict[Source, Floats], n_elements: Floats) -> dict[str, Floats]:
        return {"l2": sums["weights"][..., 0]}


def test_a_measure_can_be_added_without_touching_the_collector() -> None:
    model = Model()
    collector = collector_of(model, measures=[Drift()])
    for _ in range(2):
        backward(model)
        collector.before_step()
        with torch.no_grad():
            model.model[3].bias.add_(torch.tensor([3.0, 4.0]))
        collector.after_step()
    grid = grid_of(collector.end_epoch(), "drift")
    assert grid.values["l2"].tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, pytest.approx(5.0)]]
