import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mlflow_yolo.attribution.deletion import deletion_insertion, random_map
from mlflow_yolo.exceptions import ArgumentError, ShapeError

HEIGHT, WIDTH = 24, 16
REGION = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
REGION[: HEIGHT // 2, : WIDTH // 2] = True  # a quarter of the pixels
FALLING = torch.linspace(1, 0.5, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
ORACLE = FALLING + 10 * REGION
"""Marks the region first, no two pixels alike."""


@pytest.fixture
def image():
    """Return a chequerboard of 0 and 1: the mean fill makes every replaced pixel 0.5."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return ((rows + columns) % 2).float().expand(1, 3, HEIGHT, WIDTH)


def share_of_region_left(images):
    return ((images[:, 0] - 0.5).abs() > 0.25)[:, REGION].double().mean(1)


@pytest.mark.parametrize("batch", [1, 5, 8, 100])
def test_areas_of_a_map_that_marks_just_what_counts(image, batch):
    # deletion: 1, 2/3, 1/3, 0, 0, ... at twelfths; the trapezoid of a fall within a quarter is 1/8, exactly
    found = deletion_insertion(image, ORACLE, share_of_region_left, fill="mean", batch=batch)
    assert found == (pytest.approx(1 / 8), pytest.approx(7 / 8))


def test_areas_of_a_map_that_marks_everything_else(image):
    found = deletion_insertion(image, FALLING - 10 * REGION, share_of_region_left, fill="mean")
    assert found == (pytest.approx(7 / 8), pytest.approx(1 / 8))


def test_a_coarse_map_with_ties_is_not_helped_by_raster_order(image):
    # the region lies at the top left: raster order among equals would delete it first, with an area of about .25
    found = deletion_insertion(image, torch.ones(3, 2), share_of_region_left, fill="mean")
    assert found == (pytest.approx(0.5, abs=0.06), pytest.approx(0.5, abs=0.06))
    others = {deletion_insertion(image, torch.ones(3, 2), share_of_region_left, fill="mean", seed=s) for s in range(5)}
    assert found in others
    assert len(others) > 1


def test_random_maps_neither_help_nor_harm_on_average(image):
    maps = [random_map((6, 4), seed) for seed in range(60)]
    areas = [deletion_insertion(image, map, share_of_region_left, fill="mean") for map in maps]
    np.testing.assert_allclose(np.mean(areas, axis=0), 0.5, atol=0.05)
    assert torch.equal(random_map((6, 4), 3), maps[3])
    assert maps[3].shape == (6, 4)


def test_a_map_on_a_coarse_grid_is_brought_to_the_image_bilinearly(image):
    seen = []

    def keep(images):
        seen.append(images)
        return images.mean((1, 2, 3))

    deletion_insertion(image, np.array([[1.0, 0.0]]), keep, steps=4, fill="mean", batch=8)
    deleted = (seen[0][:, 0] - 0.5).abs() < 0.25
    # along 16 columns the values are 1 in the outer four, then fall by 1/8 a column to 0 in the last four
    for step, n_columns in enumerate((0, 4, 8, 12)):
        assert deleted[step, :, :n_columns].all()
        assert not deleted[step, :, n_columns:].any()


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-30, 2.0**100, 2.0**1000])
def test_scale_and_kind_of_the_map_do_not_matter(image, scale):
    map = random_map((4, 4), 0)
    expected = deletion_insertion(image, map, share_of_region_left, fill="mean")
    assert deletion_insertion(image, map.double().numpy() * scale, share_of_region_left, fill="mean") == expected


def test_arrays_that_are_read_only_flipped_or_whole_numbers_are_taken(image):
    whole = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    flipped, constant = whole[::-1, ::-1], np.broadcast_to(np.float16(0.5), (3, 3))
    expected = deletion_insertion(image, FALLING, share_of_region_left, fill="mean")
    assert deletion_insertion(image, flipped, share_of_region_left, fill="mean") == expected
    assert deletion_insertion(image, constant, share_of_region_left, fill="mean").deletion > 0.4


def test_signed_maps_go_by_value(image):
    shifted = deletion_insertion(image, ORACLE - 11, share_of_region_left, fill="mean")
    assert shifted == (pytest.approx(1 / 8), pytest.approx(7 / 8))


def test_the_images_shown_are_2_steps_from_all_to_nothing_and_back(image):
    seen = []

    def mean_colour(images):
        seen.extend(images)
        return images.mean((1, 2, 3))

    deletion_insertion(image, ORACLE, mean_colour, steps=7, fill="mean", batch=3)
    n_left = [int(((one[0] - 0.5).abs() > 0.25).sum()) for one in seen]
    n = HEIGHT * WIDTH
    deleted = [n - n * k // 7 for k in range(8)]
    assert n_left == deleted + [n * k // 7 for k in range(1, 7)]


def test_the_score_at_both_ends_counts_by_a_half(image):
    # a score that only the whole image has: deletion (1 / 2) / 4, insertion the same
    whole = deletion_insertion(
        image, ORACLE, lambda x: ((x[:, 0] - 0.5).abs() > 0.25).flatten(1).all(1).float(), steps=4, fill="mean"
    )
    assert whole == (pytest.approx(1 / 8), pytest.approx(1 / 8))


@pytest.mark.parametrize("shape", [(1, 3, 40, 24), (1, 1, 20, 60), (1, 4, 30, 30)])
def test_blur_equals_scipy_for_any_number_of_channels(shape):
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    seen = []

    def keep(images):
        seen.extend(images)
        return images.mean((1, 2, 3))

    deletion_insertion(picture, torch.eye(4), keep, steps=2)
    sigma = 0.1 * max(shape[2:])
    for channel, blurred in zip(picture[0], seen[2], strict=True):
        expected = ndimage.gaussian_filter(channel.numpy(), sigma, mode="nearest", radius=int(3 * sigma + 0.5))
        np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)


def test_a_model_can_be_differentiated_afterwards_and_the_input_is_unchanged(image):
    before, modes = image.clone(), []
    weight = torch.ones(3, requires_grad=True)

    def predict(images):
        modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return (images.mean((2, 3)) * weight).sum(1)

    deletion_insertion(image, ORACLE, predict)
    assert set(modes) == {(False, False)}
    assert torch.equal(image, before)
    assert weight.grad is None


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_map_that_orders_nothing_gives_nan_without_a_forward_pass(image, value):
    def never(images):
        raise AssertionError("the model was called")

    assert all(math.isnan(area) for area in deletion_insertion(image, torch.full((4, 4), value), never))


def test_input_that_cannot_be_measured_is_named(image):
    with pytest.raises(ShapeError, match=r"\(2, 3, 24, 16\)"):
        deletion_insertion(image.repeat(2, 1, 1, 1), ORACLE, share_of_region_left)
    with pytest.raises(ShapeError, match=r"\(1, 24, 16\)"):
        deletion_insertion(image, ORACLE[None], share_of_region_left)
    with pytest.raises(ShapeError, match=r"\(8, 3\) for 8 images"):
        deletion_insertion(image, ORACLE, lambda x: x.mean((2, 3)))
    with pytest.raises(ArgumentError, match="steps=0"):
        deletion_insertion(image, ORACLE, share_of_region_left, steps=0)
    with pytest.raises(ArgumentError, match="'black'"):
        deletion_insertion(image, ORACLE, share_of_region_left, fill="black")
