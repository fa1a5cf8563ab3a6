import numpy as np
import pytest
import torch

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.outputs import BlockOutputs, channel_sums, variance_along

NAMES = ("mean", "std", "channel_variance", "intra_channel_variance")


def measured(*outputs: torch.Tensor) -> dict[str, float]:
    seen = BlockOutputs(1, n_positions=10_000)
    for output in outputs:
        seen.see(0, output)
    values = seen.result()[0]
    return {name: values[name] for name in NAMES}


def test_statistics_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]]])  # channel means 2 and 10, variances 1 and 0
    expected = {"mean": 6.0, "std": np.sqrt(16.5), "channel_variance": 16.0, "intra_channel_variance": 0.5}
    assert measured(maps) == pytest.approx(expected)


def test_half_precision_is_summed_in_single_precision() -> None:
    maps = torch.full((2, 3, 64, 64), 100.0, dtype=torch.float16)  # the sum, 409600, is beyond float16
    assert channel_sums(maps)[0].dtype == torch.float32
    assert measured(maps) == pytest.approx(dict(zip(NAMES, (100.0, 0.0, 0.0, 0.0), strict=True)), abs=1e-2)


def test_permuting_channels_or_images_or_splitting_the_batch_changes_nothing() -> None:
    maps = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    once = measured(maps)
    assert measured(maps.flip(0, 1)) == pytest.approx(once, rel=1e-5)
    assert measured(maps[:1], maps[1:]) == pytest.approx(once, rel=1e-5)


def test_vectors_and_sequences_are_measured_per_channel_too() -> None:
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    assert measured(vectors)["channel_variance"] == pytest.approx(vectors.double().numpy().mean(0).var(), rel=1e-4)
    assert measured(vectors[:, :, None])["std"] == pytest.approx(vectors.double().numpy().std(), rel=1e-4)


def test_the_rank_is_not_said_of_more_channels_than_positions() -> None:
    seen = BlockOutputs(2, n_positions=10_000)
    seen.see(0, torch.randn(1, 9, 3, 3))
    seen.see(1, torch.randn(2, 9, 3, 3))
    result = seen.result()
    assert "effective_rank" not in result[0]
    assert 1 < result[1]["effective_rank"] <= 9


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
def test_variance_along_an_axis_equals_numpy(dim: int) -> None:
    maps = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert variance_along(maps, dim) == pytest.approx(maps.double().numpy().var(axis=dim).mean(), rel=1e-5)


def test_variance_across_channels_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[5.0, 3.0]]]])
    assert variance_along(maps) == pytest.approx((4.0 + 0.0) / 2)
    assert variance_along(maps, 3) == pytest.approx((1.0 + 1.0) / 2)


def test_an_axis_that_does_not_exist_and_an_empty_tensor_are_refused() -> None:
    with pytest.raises(ShapeError, match="dim=4"):
        variance_along(torch.zeros(1, 2, 3, 4), 4)
    with pytest.raises(ShapeError, match=r"\(0, 2\)"):
        variance_along(torch.zeros(0, 2), 1)
