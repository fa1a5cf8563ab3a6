"""Tests of the ranges that calibration gives, on a graph whose tensors are known."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from mlflow_yolo.compression.quantization.observers import METHODS, observe
from mlflow_yolo.compression.quantization.static import prepared
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.variant import read_variant

Images = npt.NDArray[np.float32]
Batches = Callable[[], Iterator[Images]]


@pytest.fixture
def model(scaled_folder: Path) -> Iterator[Path]:
    """Return the file of images -> a = 2 images -> b = max(a, 0) -> output0 = 3 b."""
    with prepared(scaled_folder, read_variant(scaled_folder)) as file:
        yield file


def test_minmax_is_the_smallest_and_the_largest_value_over_all_images(model: Path, noise: Batches) -> None:
    values = np.concatenate(list(noise()))
    ranges = observe(model, noise, method="minmax")
    assert ranges["images"] == pytest.approx((values.min(), values.max()))
    assert ranges["a"] == pytest.approx((2 * values.min(), 2 * values.max()))
    assert ranges["b"] == pytest.approx((0, 2 * values.max()))
    assert ranges["output0"] == pytest.approx((0, 6 * values.max()))


def test_symmetric_ranges_lie_around_zero(model: Path, noise: Batches) -> None:
    for method in ("minmax", "mse"):
        low, high = observe(model, noise, method=method, symmetric=True)["a"]
        assert low == -high < 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_every_tensor_within_its_extremes(model: Path, noise: Batches, method: str) -> None:
    extremes = observe(model, noise, method="minmax")
    ranges = observe(model, noise, method=method)
    assert ranges.keys() == extremes.keys() == {"images", "a", "b", "output0"}
    for name, (low, high) in ranges.items():
        assert low < high
        assert low >= min(extremes[name][0], 0) - 1e-6
        assert high <= extremes[name][1] + 1e-6


def test_percentile_and_mse_leave_an_outlier_out(model: Path) -> None:
    def inputs() -> Iterator[Images]:
        random = np.random.default_rng(0)
        for index in range(30):
            values = random.uniform(0, 1, (4096, 1, 4, 4)).astype(np.float32)
            if index == 20:
                values[0, 0, 0, 0] = 30
            yield values

    # One of about 246 000 drawn values is below the share of 5e-6 that percentile cuts on each side.
    assert observe(model, inputs, method="minmax")["images"][1] == 30
    assert observe(model, inputs, method="percentile")["images"][1] < 2
    assert observe(model, inputs, method="mse")["images"][1] < 15


def test_the_order_of_the_images_does_not_matter(model: Path, noise: Batches) -> None:
    forward = observe(model, noise, method="mse")
    backward = observe(model, lambda: reversed(list(noise())), method="mse")
    for name in forward:
        assert forward[name] == pytest.approx(backward[name])


def test_progress_is_told(model: Path, noise: Batches) -> None:
    told: list[int] = []
    observe(model, noise, method="minmax", progress=told.append)
    assert told == [1, 2, 3]


def test_an_unknown_method_and_no_images_are_refused(model: Path, noise: Batches) -> None:
    with pytest.raises(ArgumentError, match="method=guess"):
        observe(model, noise, method="guess")
    for method in METHODS:
        with pytest.raises(ArgumentError, match="no images"):
            observe(model, lambda: iter(()), method=method)


def test_a_tensor_that_is_not_finite_is_named(model: Path) -> None:
    with pytest.raises(WorkError, match=r"tensor .* is not finite"):
        observe(model, lambda: iter([np.full((1, 1, 4, 4), np.inf, np.float32)]), method="minmax")


def test_nothing_is_printed_and_the_log_is_left_alone(
    model: Path, noise: Batches, capfd: pytest.CaptureFixture[str]
) -> None:
    import logging

    handlers = list(logging.getLogger().handlers)
    observe(model, noise, method="percentile")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert onnx.load(str(model)).graph.output[0].name == "output0"
