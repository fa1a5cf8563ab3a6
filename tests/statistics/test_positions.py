import pytest
import torch

from mlflow_yolo.statistics.positions import sample_positions

MAPS = torch.arange(2 * 3 * 12 * 20, dtype=torch.float32).reshape(2, 3, 12, 20)


def test_small_maps_are_taken_whole() -> None:
    sample = sample_positions(MAPS, MAPS.numel())
    torch.testing.assert_close(sample, MAPS.transpose(0, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_maps_are_thinned_evenly_in_both_directions_and_every_image_and_channel_is_seen(
    layout: torch.memory_format,
) -> None:
    sample = sample_positions(MAPS.contiguous(memory_format=layout), MAPS.numel() // 16)
    torch.testing.assert_close(sample, MAPS.transpose(0, 1)[..., ::4, ::4])


def test_over_the_passes_every_position_is_seen() -> None:
    seen = {float(v) for turn in range(16) for v in sample_positions(MAPS, MAPS.numel() // 16, turn=turn).flatten()}
    assert seen == set(range(MAPS.numel()))


def test_at_least_one_position_of_each_image_and_channel_is_taken() -> None:
    assert sample_positions(MAPS, 1).shape == (3, 2, 1, 1)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 9), (2, 3, 2, 8, 8)])
def test_vectors_sequences_and_volumes_are_sampled_too(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample_positions(maps, maps.numel()), maps.transpose(0, 1))
    assert sample_positions(maps, 12).flatten(1).shape[0] == 3


def test_a_slice_of_a_larger_tensor_is_read_from_its_own_place() -> None:
    part = MAPS[1:, 1:, 4:, 3:]
    torch.testing.assert_close(sample_positions(part, part.numel()), part.transpose(0, 1))


def test_the_sample_is_a_copy_even_of_a_single_image() -> None:
    maps = torch.zeros(1, 3, 2, 2)
    sample = sample_positions(maps, 100)
    maps += 1
    assert not sample.any()


def test_the_type_is_kept_and_no_gradient_is_recorded() -> None:
    sample = sample_positions(MAPS.half().requires_grad_(True), 30)
    assert sample.dtype == torch.float16
    assert not sample.requires_grad
