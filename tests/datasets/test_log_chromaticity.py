"""Log-chromaticity: known values and invariance to shading."""

import math

import numpy as np
import pytest

from mlflow_yolo.datasets.log_chromaticity import (
    LOG_RANGE,
    encode_log_ratios,
    encode_srgb,
    linearize_srgb,
    log_chromaticity,
    log_ratios,
)
from mlflow_yolo.exceptions import ShapeError


def test_log_ratios_of_a_known_colour() -> None:
    ratios = log_ratios(np.array([[0.8, 0.2, 0.1]]), epsilon=0.0)
    np.testing.assert_allclose(ratios, [[math.log(4), math.log(0.5)]], rtol=1e-14)


def test_shading_cancels_exactly() -> None:
    rng = np.random.default_rng(0)
    scene = rng.uniform(0.05, 1, (8, 8, 3))
    shading = rng.uniform(0.01, 1, (8, 8, 1))
    np.testing.assert_allclose(log_ratios(scene * shading, epsilon=0.0), log_ratios(scene, epsilon=0.0), atol=1e-12)


def test_coloured_light_moves_every_surface_by_the_same_vector() -> None:
    scene = np.random.default_rng(1).uniform(0.05, 1, (5, 5, 3))
    light = np.array([0.5, 0.4, 0.8])
    moved = log_ratios(scene * light, epsilon=0.0) - log_ratios(scene, epsilon=0.0)
    np.testing.assert_allclose(moved, np.broadcast_to([math.log(1.25), math.log(2)], moved.shape), atol=1e-12)


def test_epsilon_makes_black_grey() -> None:
    assert log_ratios(np.zeros(3)).tolist() == [0.0, 0.0]


def test_srgb_of_known_values() -> None:
    np.testing.assert_allclose(linearize_srgb(np.array([0, 255, 128], np.uint8)), [0, 1, 0.2158605], atol=1e-7)
    assert linearize_srgb(np.array([65535], np.uint16))[0] == 1.0


def test_srgb_encoding_inverts_linearization() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(encode_srgb(linearize_srgb(values)), values)


def test_encoding_is_linear_between_the_clipped_ends() -> None:
    encoded = encode_log_ratios(np.array([[0.0, 0.0], [LOG_RANGE, -LOG_RANGE], [9.0, -9.0], [LOG_RANGE / 2, 0.0]]))
    assert encoded.tolist() == [[128, 128, 128], [255, 1, 128], [255, 1, 128], [192, 128, 160]]


def test_grey_image_is_neutral_in_8_and_16_bits() -> None:
    grey = np.repeat(np.arange(0, 250, 25, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert (log_chromaticity(grey) == 128).all()
    assert (log_chromaticity(grey.astype(np.uint16) * 257) == 128).all()


def test_half_the_light_changes_an_8_bit_image_by_a_few_levels_at_most() -> None:
    """What is left of the invariance after rounding to 8 bits and epsilon: 5 levels of 255."""
    linear = np.random.default_rng(2).uniform(0.3, 0.9, (32, 32, 3))
    light, shade = (log_chromaticity(encode_srgb(linear * factor)).astype(int) for factor in (1.0, 0.5))
    assert np.abs(light - shade).max() <= 5
    assert np.ptp(light) > 80


def test_empty_image_gives_an_empty_image() -> None:
    assert log_chromaticity(np.zeros((0, 4, 3), np.uint8)).shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), np.uint8), "(4, 4)"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
    ],
)
def test_other_arrays_are_refused_by_name(image: np.ndarray, value: str) -> None:
    with pytest.raises(ShapeError) as caught:
        log_chromaticity(image)
    assert value in str(caught.value)
