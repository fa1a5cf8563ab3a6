import numpy as np
import pytest
import torch

from mlflow_yolo.statistics.outputs import AXES, BlockOutputs, axis_variances, channel_sums

NAMES = ("mean", "std", "channel_variance", "intra_channel_variance")


def measured_all(*outputs: torch.Tensor) -> dict[str, float]:
    seen = BlockOutputs(1, n_positions=10_000)
    for output in outputs:
        seen.see(0, output)
    return seen.result()[0]


def measured(*outputs: torch.Tensor) -> dict[str, float]:
    values = measured_all(*outputs)
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


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (8, 5)])
def test_variances_along_each_axis_equal_torch(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 7.0
    expected = [float(maps.double().var(dim=axis).mean()) for axis in range(len(shape))]
    assert axis_variances(maps).tolist() == pytest.approx(expected, rel=1e-5)


def test_variance_along_channels_and_columns_by_hand_and_none_along_an_axis_of_length_one() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[5.0, 3.0]]]])
    assert axis_variances(maps).tolist() == pytest.approx([np.nan, (8 + 0) / 2, np.nan, (2 + 2) / 2], nan_ok=True)


def test_variances_along_axes_weigh_by_elements_and_have_names() -> None:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(n, 4, 6, 6, generator=generator) * n for n in (2, 3, 1)]
    seen = BlockOutputs(1, n_positions=100, along_axes=True)
    for batch in batches:
        seen.see(0, batch)
    expected = {}
    for axis, name in enumerate(AXES):
        used = [batch.double() for batch in batches if batch.shape[axis] > 1]
        variances = [float(batch.var(dim=axis).mean()) for batch in used]
        expected[name] = np.average(variances, weights=[batch.numel() for batch in used])
    found = seen.result()[0]
    assert {name: found[name] for name in AXES} == pytest.approx(expected, rel=1e-5)


def test_of_large_outputs_some_images_are_enough_for_the_variances_along_axes() -> None:
    maps = torch.randn(40, 8, 32, 32, generator=torch.Generator().manual_seed(2))
    seen = BlockOutputs(1, n_positions=100, along_axes=True)
    seen.see(0, maps)
    expected = {name: float(maps[:4].double().var(dim=axis).mean()) for axis, name in enumerate(AXES)}
    found = seen.result()[0]
    assert {name: found[name] for name in AXES} == pytest.approx(expected, rel=1e-5)


def test_an_axis_of_length_one_has_no_variance_and_measuring_them_is_a_choice() -> None:
    seen = BlockOutputs(2, n_positions=100, along_axes=True)
    seen.see(0, torch.randn(1, 4, 6, 6))
    assert set(AXES) - set(seen.result()[0]) == {"variance_images"}
    assert not set(AXES) & set(measured_all(torch.randn(2, 4, 6, 6)))
