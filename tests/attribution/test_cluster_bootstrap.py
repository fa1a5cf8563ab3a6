import tracemalloc

import numpy as np
import pytest

from mlflow_yolo.attribution.cluster_bootstrap import LEAST_CLUSTERS, cluster_interval
from mlflow_yolo.exceptions import ArgumentError, ShapeError


def mean(sums):
    return (sums[:, 0] / sums[:, 1])[:, None]


def with_ones(values):
    return np.stack([values, np.ones(len(values))], axis=1)


def clustered(rng, n_clusters, per_cluster):
    """Return images and values of mean 0.4: most of the spread is between images."""
    images = np.repeat(np.arange(n_clusters), per_cluster)
    return images, 0.4 + rng.normal(0, 0.2, n_clusters)[images] + rng.normal(0, 0.1, len(images))


def test_it_equals_drawing_images_and_averaging_their_cases():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 30, 140).astype(str)
    values = np.random.default_rng(1).random(140) + 0.02 * images.astype(int)
    naive = np.random.RandomState(7)
    names = np.unique(images)
    drawn = []
    for _ in range(8000):
        cases = np.concatenate([np.flatnonzero(images == name) for name in naive.choice(names, len(names))])
        drawn.append(values[cases].mean())
    (interval,) = cluster_interval(images, with_ones(values), mean, n_resamples=8000)
    # an end of the interval has a standard error of about sqrt(.025 * .975 / 8000) / density, .025 of its width
    width = np.ptp(np.percentile(drawn, [2.5, 97.5]))
    np.testing.assert_allclose(interval, np.percentile(drawn, [2.5, 97.5]), atol=0.06 * width)
    ignoring = cluster_interval(np.arange(140), with_ones(values), mean, n_resamples=8000)[0]
    assert np.ptp(ignoring) < 0.7 * width


def test_it_holds_the_truth_as_often_as_it_says_and_only_if_images_are_drawn_whole():
    rng = np.random.default_rng(2)
    held = np.zeros(2)
    for seed in range(300):
        images, values = clustered(rng, 40, 5)
        for i, clusters in enumerate([images, np.arange(len(images))]):
            low, high = cluster_interval(clusters, with_ones(values), mean, n_resamples=300, seed=seed)[0]
            held[i] += low <= 0.4 <= high
    # 300 draws of probability .94 lie above .89 but once in a thousand; cases as if independent hold it 2 times in 3
    assert 0.89 <= held[0] / 300 <= 0.985
    assert held[1] / 300 < 0.78


def test_many_images_give_the_normal_interval_without_an_array_of_all_draws():
    n, n_resamples = 20_000, 1000
    values = np.random.default_rng(3).random(n)
    tracemalloc.start()
    try:
        (interval,) = cluster_interval(np.arange(n), with_ones(values), mean, n_resamples=n_resamples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    error = values.std() / np.sqrt(n)
    np.testing.assert_allclose((interval - values.mean()) / error, [-1.96, 1.96], atol=0.35)
    assert peak < n * n_resamples * 8 / 2  # 160 MB for all weights at once


def test_order_of_cases_and_names_of_images_do_not_matter():
    images, values = clustered(np.random.default_rng(4), 25, 3)
    expected = cluster_interval(images, with_ones(values), mean)
    order = np.random.default_rng(5).permutation(len(images))
    named = np.array([f"{image:03d}.jpg" for image in images])
    np.testing.assert_allclose(cluster_interval(named[order], with_ones(values[order]), mean), expected, rtol=1e-12)
    other_seed = cluster_interval(images, with_ones(values), mean, seed=1)
    assert (other_seed != expected).all()


def test_a_constant_has_no_width():
    images = np.arange(12)
    np.testing.assert_allclose(cluster_interval(images, with_ones(np.full(12, 0.3)), mean), [[0.3, 0.3]])


def test_too_few_images_have_no_interval():
    few, values = clustered(np.random.default_rng(6), LEAST_CLUSTERS - 1, 50)
    assert np.isnan(cluster_interval(few, with_ones(values), mean)).all()
    enough, values = clustered(np.random.default_rng(6), LEAST_CLUSTERS, 1)
    assert np.isfinite(cluster_interval(enough, with_ones(values), mean)).all()
    two = cluster_interval(np.zeros(0), np.zeros((0, 2)), lambda sums: sums)
    np.testing.assert_array_equal(two, np.full((2, 2), np.nan))


def test_resamples_without_a_statistic_are_left_out_of_that_one_only():
    def first_where_drawn(sums):
        drawn = np.where(sums[:, 1] > 0, 7.0, np.nan)
        return np.stack([drawn, np.full(len(sums), np.nan), sums[:, 0]], axis=1)

    values = np.stack([np.ones(20), np.arange(20) == 0], axis=1).astype(float)  # one image of 20 has it
    found = cluster_interval(np.arange(20), values, first_where_drawn)
    np.testing.assert_array_equal(found, [[7, 7], [np.nan, np.nan], [20, 20]])


def test_input_that_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"\(4, 2\) for 3 cases"):
        cluster_interval(np.zeros(3), np.zeros((4, 2)), mean)
    with pytest.raises(ArgumentError, match="n_resamples=0"):
        cluster_interval(np.zeros(3), np.zeros((3, 2)), mean, n_resamples=0)
