import numpy as np
import pytest
from scipy import stats

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.rank_correlation import RankCorrelation, rank_correlation


def test_three_things_in_the_same_order_are_one_order_of_six() -> None:
    assert rank_correlation([1.0, 5.0, 9.0], [0.1, 0.2, 0.7]) == RankCorrelation(pytest.approx(1.0), 1 / 6, 3, True)
    assert rank_correlation([1.0, 5.0, 9.0], [0.7, 0.2, 0.1]) == RankCorrelation(pytest.approx(-1.0), 1.0, 3, True)


@pytest.mark.parametrize("seed", range(4))
def test_rho_and_p_are_those_of_scipy_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 4, 6).astype(float), generator.integers(0, 5, 6).astype(float)
    expected = stats.permutation_test(
        (first,),
        lambda x: stats.spearmanr(x, second).statistic,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )

    found = rank_correlation(first.tolist(), second.tolist())
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_many_things_draw_their_orders_and_come_near_the_t_distribution() -> None:
    generator = np.random.default_rng(1)
    first = generator.standard_normal(20)
    second = first + generator.standard_normal(20) * 2
    expected = stats.spearmanr(first, second, alternative="greater")

    found = rank_correlation(first.tolist(), second.tolist())
    assert not found.exact
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    assert found == rank_correlation(first.tolist(), second.tolist())


def test_only_the_order_matters() -> None:
    first, second = [0.0, 3.0, 1.0, 9.0], [0.2, 0.1, 0.3, 0.8]
    assert rank_correlation(first, second) == rank_correlation([np.exp(x) for x in first], [y**3 for y in second])


def test_fewer_than_three_things_or_equals_have_no_correlation() -> None:
    for first, second in (([], []), ([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])):
        assert rank_correlation(first, second) == RankCorrelation(None, None, len(first))


def test_pairs_that_are_none_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 and 3"):
        rank_correlation([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match="finite"):
        rank_correlation([1.0, 2.0, float("nan")], [1.0, 2.0, 3.0])
