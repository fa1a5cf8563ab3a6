import numpy as np
import pytest
import torch

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.redundancy import SecondMoments, effective_rank, gram_and_covariance, redundancy


def moments_of(*samples: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    seen = SecondMoments(samples[0])
    for sample in samples:
        seen.add(sample)
    return gram_and_covariance(seen.n_positions, *(part.double().numpy() for part in seen.parts()))


def random_maps(n_channels: int = 6, n_positions: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(n_channels, n_channels, generator=generator)
    return mixing @ torch.randn(n_channels, n_positions, generator=generator) + torch.arange(n_channels)[:, None]


def test_moments_equal_numpy_however_the_positions_are_split() -> None:
    maps = random_maps()
    gram, covariance = moments_of(maps[:, :100], maps[:, 100:101], maps[:, 101:])
    a = maps.double().numpy()
    np.testing.assert_allclose(gram, a @ a.T / a.shape[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(covariance, np.cov(a, bias=True), rtol=1e-4, atol=1e-4)


def test_the_variance_of_a_nearly_constant_channel_survives_float32() -> None:
    noise = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1)) * 1e-4
    _, covariance = moments_of((noise - 0.278).float(), (noise - 0.278).float())
    assert covariance[0, 0] == pytest.approx(1e-8, rel=0.1)  # naively 0.077 - 0.077 within 1e-8


def test_redundancy_is_the_mean_absolute_cosine_over_pairs() -> None:
    maps = random_maps().double()
    unit = maps / maps.norm(dim=1, keepdim=True)
    pairs = [abs(float(unit[i] @ unit[j])) for i in range(6) for j in range(6) if i != j]
    assert redundancy((maps @ maps.T).numpy()) == pytest.approx(np.mean(pairs))


def test_copies_are_wholly_redundant_and_orthogonal_channels_not_at_all() -> None:
    row = np.array([1.0, 2.0, -1.0])
    copies = np.outer([1.0, -3.0, 0.5], row)  # scale and sign do not matter
    assert redundancy(copies @ copies.T) == pytest.approx(1.0)
    assert redundancy(np.diag([1.0, 4.0, 9.0])) == 0.0


def test_channels_that_are_zero_everywhere_have_no_direction() -> None:
    gram = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert redundancy(gram) == pytest.approx(0.5)
    assert np.isnan(redundancy(np.diag([1.0, 0.0])))


def test_effective_rank_by_hand() -> None:
    assert effective_rank(np.eye(5) * 7) == pytest.approx(5.0)
    assert effective_rank(np.ones((4, 4))) == pytest.approx(1.0)
    assert effective_rank(np.diag([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)  # entropy 1.5 bit
    assert np.isnan(effective_rank(np.zeros((3, 3))))
    assert np.isnan(effective_rank(np.full((3, 3), np.nan)))


def test_scale_and_order_of_channels_do_not_matter() -> None:
    _, covariance = moments_of(random_maps())
    order = [3, 1, 5, 0, 2, 4]
    assert effective_rank(covariance[np.ix_(order, order)] * 9) == pytest.approx(effective_rank(covariance))


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        redundancy(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        effective_rank(np.zeros((2, 3)))
