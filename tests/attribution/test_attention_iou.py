import numpy as np
import pytest

from mlflow_yolo.attribution.attention_iou import (
    attention_iou,
    centre_baseline,
    centre_gaussian,
    effective_fraction,
    lift,
    pairwise,
    uniform_baseline,
)
from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError


def by_the_equation(p, q):
    """Return A(P, Q) of (B, H, W) maps as the paper writes it."""
    p, q = (x / x.sum(axis=(1, 2), keepdims=True) for x in (p, q))
    return (p * q).sum(axis=(1, 2)) / (((p + q) / 2) ** 2).sum(axis=(1, 2))


def rectangles(rng, n, shape):
    """Return n binary masks of random rectangles, none empty."""
    masks = np.zeros((n, *shape))
    for mask in masks:
        (y1, x1), (y2, x2) = np.sort([rng.integers(0, shape), rng.integers(0, shape)], axis=0)
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    return masks


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((5, 6, 9)).astype(np.float32)


def test_a_map_equals_itself_and_shares_nothing_with_a_disjoint_one(maps):
    np.testing.assert_allclose(attention_iou(maps, maps), 1.0, rtol=1e-12)
    left, right = maps.copy(), maps.copy()
    left[:, :, 4:], right[:, :, :4] = 0, 0
    np.testing.assert_array_equal(attention_iou(left, right), 0.0)


def test_it_is_symmetric_and_does_not_depend_on_scale(maps):
    others = maps[::-1]
    expected = attention_iou(maps, others)
    np.testing.assert_allclose(attention_iou(others, maps), expected, rtol=1e-12)
    for scale in (1e-30, 255.0, 1e30):
        np.testing.assert_allclose(attention_iou(maps * np.float32(scale), others), expected, rtol=1e-5)
    extreme = maps.astype(np.float64)
    np.testing.assert_allclose(attention_iou(extreme * 1.7e308, extreme[::-1] * 1e-300), expected, rtol=1e-12)


def test_binary_masks_score_4i_over_1_plus_3i():
    rng = np.random.default_rng(1)
    p, q = rectangles(rng, 200, (12, 17)), rectangles(rng, 200, (12, 17))
    iou = (p * q).sum(axis=(1, 2)) / np.maximum(p, q).sum(axis=(1, 2))
    assert len(np.unique(iou)) > 50
    np.testing.assert_allclose(attention_iou(p, q), 4 * iou / (1 + 3 * iou), atol=1e-12)


def test_a_fifth_of_overlap_scores_a_half():
    p, q = np.array([[[1, 1, 1, 0, 0]]]), np.array([[[0, 0, 1, 1, 1]]])
    assert attention_iou(p, q)[0] == pytest.approx(0.5)


def test_it_equals_the_equation_of_the_paper(maps):
    others = np.random.default_rng(2).random(maps.shape).astype(np.float32) ** 4
    np.testing.assert_allclose(attention_iou(maps, others), by_the_equation(maps, others), atol=1e-6)


def test_all_pairs_at_once_equal_one_pair_at_a_time():
    many = np.random.default_rng(3).random((4, 7, 5, 6)) ** 3
    found = pairwise(many)
    assert found.shape == (4, 7, 7)
    for image in range(4):
        for i in range(7):
            expected = by_the_equation(np.repeat(many[image, i : i + 1], 7, axis=0), many[image])
            np.testing.assert_allclose(found[image, i], expected, atol=1e-12)
    np.testing.assert_allclose(pairwise(many[2]), found[2], atol=1e-12)


def test_empty_and_broken_maps_are_nan_and_no_zeros(maps):
    p, q = maps.copy(), maps[::-1].copy()
    p[0], q[1], p[2, 0, 0], q[3, 1, 1] = 0, 0, np.nan, np.inf
    found = attention_iou(p, q)
    np.testing.assert_array_equal(np.isnan(found), [True, True, True, True, False])
    square = pairwise(p)
    np.testing.assert_array_equal(np.isnan(square).all(axis=1), [True, False, True, False, False])
    assert square[1, 1] == pytest.approx(1.0)
    np.testing.assert_array_equal(np.isnan(effective_fraction(p)), [True, False, True, False, False])
    assert attention_iou(np.zeros((0, 3, 3)), np.zeros((0, 3, 3))).shape == (0,)


def test_the_more_a_map_lies_on_the_background_the_lower_it_scores():
    mask = np.zeros((1, 10, 10))
    mask[:, 2:5, 3:7] = 1
    background = 1 - mask
    scores = [attention_iou((1 - t) * mask / 12 + t * background / 88, mask)[0] for t in np.linspace(0, 1, 11)]
    assert scores[0] == pytest.approx(1.0)
    assert scores[-1] == 0.0
    assert (np.diff(scores) < 0).all()


def test_a_uniform_map_scores_the_uniform_baseline_of_binary_and_of_partial_masks():
    rng = np.random.default_rng(4)
    binary, partial = rectangles(rng, 50, (8, 8)), rng.random((50, 8, 8)) ** 6
    for masks in (binary, partial):
        expected = by_the_equation(np.ones_like(masks), masks)
        np.testing.assert_allclose(uniform_baseline(effective_fraction(masks)), expected, atol=1e-12)
    np.testing.assert_allclose(effective_fraction(binary), binary.mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(uniform_baseline([0, 0.05, 0.2, 0.85, 1]), [0, 0.173913, 0.5, 0.957746, 1], atol=1e-6)


def test_an_object_within_one_cell_has_the_baseline_of_the_cell():
    mask = np.zeros((1, 4, 5))
    mask[0, 1, 2] = 0.01
    assert effective_fraction(mask)[0] == pytest.approx(1 / 20)


def test_the_centre_baseline_of_gaussians_has_a_closed_form():
    # Far from the border sum P^2 of a Gaussian of sigma s (fractions of the sides) is 1 / (4 pi s^2 n_cells), and the
    # inner product of two that share their middle 1 / (2 pi (s^2 + t^2) n_cells).
    s, t = 0.05, 0.1
    wide = centre_gaussian((120, 200), sigma=t)
    assert effective_fraction(wide) == pytest.approx(4 * np.pi * t**2, rel=1e-4)
    p, q, shared = 1 / (4 * np.pi * s**2), 1 / (4 * np.pi * t**2), 1 / (2 * np.pi * (s**2 + t**2))
    assert centre_baseline(wide[None], sigma=s)[0] == pytest.approx(4 * shared / (p + q + 2 * shared), rel=1e-4)


def test_the_centre_baseline_is_symmetric_and_prefers_the_middle():
    gaussian = centre_gaussian((5, 8))
    np.testing.assert_allclose(gaussian, gaussian[::-1, ::-1])
    masks = np.zeros((3, 9, 9))
    masks[0, 3:6, 3:6], masks[1, :3, :3] = 1, 1
    middle, corner, empty = centre_baseline(masks)
    uniform = uniform_baseline(1 / 9)
    assert corner < uniform < middle
    assert np.isnan(empty)


def test_lift_is_0_at_the_baseline_and_1_at_the_best():
    np.testing.assert_allclose(lift([0.5, 1.0, 0.25, 0.9], [0.5, 0.5, 0.5, 1.0]), [0, 1, -0.5, np.nan])
    assert lift(0.6, 0.2) == pytest.approx(0.5)


def test_published_scores_of_a_background_lie_below_chance():
    # Serianni et al., Waterbirds: a background of about .85 of the image scores .507 to .823, a uniform map .958.
    published = np.array([0.507, 0.823])
    assert (lift(published, uniform_baseline(0.85)) < 0).all()


def test_input_that_cannot_be_scored_is_named(maps):
    with pytest.raises(ShapeError, match=r"\(5, 6, 9\).*\(4, 6, 9\)"):
        attention_iou(maps, maps[:4])
    with pytest.raises(ShapeError, match=r"\(6, 9\)"):
        attention_iou(maps[0], maps[0])
    with pytest.raises(ShapeError, match=r"\(6, 9\)"):
        pairwise(maps[0])
    with pytest.raises(ShapeError, match=r"\(6, 9\)"):
        centre_baseline(maps[0])
    with pytest.raises(ShapeError, match=r"\(2, 0, 3\)"):
        effective_fraction(np.zeros((2, 0, 3)))
    with pytest.raises(InputError, match=r"-0\.5"):
        attention_iou(maps, np.where(maps > 0.9, -0.5, maps))
    with pytest.raises(InputError, match=r"1\.5"):
        uniform_baseline([0.5, 1.5])
    with pytest.raises(ArgumentError, match="sigma=0"):
        centre_gaussian((3, 3), sigma=0)
