import numpy as np
import pytest
import torch

from mlflow_yolo.statistics.epoch import NO_BLOCK
from mlflow_yolo.statistics.global_norm import (
    FINITE,
    global_grids,
    global_sums,
    gradient_norms,
    is_finite,
    nonfinite_steps,
)


def test_norm_over_all_tensors_by_hand() -> None:
    norms = gradient_norms([torch.tensor([[2.0, -4.0]]), torch.tensor([4.0])])
    assert global_sums(norms, torch.tensor([0, 1]), 2.0, n_images=64).tolist() == [6.0, FINITE, 2.0, 64.0]


def test_order_of_tensors_does_not_matter() -> None:
    tensors = [torch.randn(5, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    once = global_sums(gradient_norms(tensors), torch.arange(4), 1.0)
    again = global_sums(gradient_norms(tensors[::-1]), torch.arange(4), 1.0)
    assert again.tolist() == pytest.approx(once.tolist(), rel=1e-6)


def test_the_deepest_non_finite_block_is_named_and_none_outside_blocks_is_missed() -> None:
    bad = float("nan")
    assert global_sums(torch.tensor([bad, bad, 1.0]), torch.tensor([3, 7, 9]), 1.0)[1] == 7
    assert global_sums(torch.tensor([bad, 1.0]), torch.tensor([NO_BLOCK, 9]), 1.0)[1] == NO_BLOCK


def test_half_precision_gradients_whose_norm_is_beyond_float16_are_finite() -> None:
    norms = gradient_norms([torch.full((4,), 60000.0, dtype=torch.float16)])
    assert norms.tolist() == [pytest.approx(120000.0, rel=1e-3)]


def test_the_scale_is_copied_as_it_is_now() -> None:
    scale = torch.tensor([8.0])
    sums = global_sums(torch.ones(1), torch.zeros(1, dtype=torch.int64), scale)
    scale.mul_(2)
    assert sums.tolist() == [1.0, FINITE, 8.0, 0.0]


def test_finite_is_known_at_once_on_the_host() -> None:
    blocks = torch.tensor([0])
    assert is_finite(global_sums(torch.ones(1), blocks, 1.0)) is True
    assert is_finite(global_sums(torch.full((1,), float("inf")), blocks, 1.0)) is False


def test_non_finite_steps_have_a_block_and_do_not_count() -> None:
    steps, sums = np.array([0, 4]), np.array([[20.0, FINITE, 1.0, 8.0], [np.nan, 5.0, 1.0, 0.0]])
    values, per_image, bad = global_grids(steps, sums, max_norm=10.0)
    assert nonfinite_steps(steps, sums) == ((4, 5),)
    assert values.counted.tolist() == [True, False]
    assert values.values["clip_coefficient"][0, 0] == pytest.approx(0.5, rel=1e-6)
    assert per_image.measured.tolist() == [[True], [False]]
    assert per_image.values["gradient_norm_per_image"][0, 0] == 2.5
    assert bad.measured.tolist() == [[False], [True]]
    assert bad.values["nonfinite_block"][1, 0] == 5.0


def test_no_steps_give_empty_grids() -> None:
    grids = global_grids(np.zeros(0, dtype=np.int64), np.zeros((0, 4)), max_norm=10.0)
    assert all(not grid.measured.any() for grid in grids)
