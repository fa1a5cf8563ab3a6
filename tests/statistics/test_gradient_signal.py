import math

import numpy as np
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.gradient_signal import GradientSignal


def signal_of(weights: dict[int, list[list[float]]], batches: list[dict[int, list[list[float] | None]]]) -> dict:
    """Return what hand-made gradients say: of every batch, one list per parameter of every block."""
    blocks = {index: [nn.Parameter(torch.tensor(w)) for w in parameters] for index, parameters in weights.items()}
    signal = GradientSignal(blocks)
    for batch in batches:
        for index, parameters in blocks.items():
            for parameter, gradient in zip(parameters, batch[index], strict=True):
                parameter.grad = None if gradient is None else torch.tensor(gradient)
        signal.add()
    return signal.blocks()


def test_relative_norm_and_signal_to_noise_by_hand() -> None:
    # Mean gradient (3, 4), norm 5; weights of norm 10. Squares 9 + 25, 9 + 9: their mean is 26, less 25 is noise 1.
    found = signal_of({0: [[6.0, 8.0]]}, [{0: [[3.0, 5.0]]}, {0: [[3.0, 3.0]]}])[0]

    assert found.relative == pytest.approx(0.5)
    assert found.gsnr == pytest.approx(25.0 / (1.0 / 2))


def test_all_parameters_of_a_block_count_as_one_vector() -> None:
    one = signal_of({3: [[6.0, 8.0]]}, [{3: [[3.0, 5.0]]}, {3: [[3.0, 3.0]]}])[3]
    two = signal_of({3: [[8.0], [6.0]]}, [{3: [[5.0], [3.0]]}, {3: [[3.0], [3.0]]}])[3]

    assert (two.relative, two.gsnr) == pytest.approx((one.relative, one.gsnr))


def test_noise_alone_has_a_signal_to_noise_near_one() -> None:
    """T / (T - 1) is expected: the noise is counted about the mean of the same T gradients."""
    generator = np.random.default_rng(0)
    batches = [{0: [generator.standard_normal(20_000).astype(np.float32).tolist()]} for _ in range(8)]

    assert signal_of({0: [[1.0] * 20_000]}, batches)[0].gsnr == pytest.approx(8 / 7, abs=0.03)


def test_the_scale_of_a_blocks_gradient_does_not_change_its_signal_to_noise() -> None:
    small = signal_of({0: [[1.0, 1.0]]}, [{0: [[1e-4, 3e-4]]}, {0: [[2e-4, -1e-4]]}])[0]
    large = signal_of({0: [[1.0, 1.0]]}, [{0: [[1.0, 3.0]]}, {0: [[2.0, -1.0]]}])[0]

    assert small.gsnr == pytest.approx(large.gsnr, rel=1e-4)
    assert small.relative == pytest.approx(large.relative * 1e-4, rel=1e-4)


def test_the_order_of_the_batches_does_not_matter() -> None:
    batches = [{0: [[1.0, 3.0]]}, {0: [[2.0, -1.0]]}, {0: [[0.5, 0.0]]}]

    assert signal_of({0: [[1.0, 1.0]]}, batches)[0] == signal_of({0: [[1.0, 1.0]]}, batches[::-1])[0]


def test_a_parameter_without_a_gradient_counts_as_zero() -> None:
    found = signal_of({0: [[3.0], [4.0]]}, [{0: [[2.0], None]}, {0: [[4.0], [4.0]]}])[0]

    assert found.relative == pytest.approx(math.hypot(3.0, 2.0) / 5.0)
    assert found.gsnr == pytest.approx(13.0 / ((4.0 + 16.0 + 16.0) / 2 - 13.0) * 2)


def test_one_batch_has_no_noise_and_zero_weights_no_scale() -> None:
    found = signal_of({0: [[0.0, 0.0]], 1: [[3.0, 4.0]]}, [{0: [[1.0, 0.0]], 1: [[0.0, 5.0]]}])

    assert math.isnan(found[0].gsnr)
    assert math.isnan(found[1].gsnr)
    assert (found[0].relative, found[1].relative) == (math.inf, pytest.approx(1.0))


def test_blocks_without_parameters_and_a_signal_without_batches_are_empty() -> None:
    assert GradientSignal({0: [nn.Parameter(torch.ones(1))]}).blocks() == {}
    assert set(signal_of({0: [], 1: [[1.0]]}, [{0: [], 1: [[1.0]]}])) == {1}


def test_the_gradients_are_left_as_they_are() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    parameter.grad = torch.tensor([0.5, 0.25])
    signal = GradientSignal({0: [parameter]})
    signal.add()
    signal.add()

    assert parameter.grad.tolist() == [0.5, 0.25]
    assert signal.blocks()[0].relative == pytest.approx(math.hypot(0.5, 0.25) / math.sqrt(5.0))
