"""The benchmark of a study's own cost: it runs its parts for real, small; no time is judged."""

from pathlib import Path

import pytest

from benchmarks.study_overhead import Cost, no_op_study, parallel_study, tenths


@pytest.mark.slow
def test_every_trial_of_the_study_that_does_nothing_has_its_cost(tmp_path: Path) -> None:
    costs = no_op_study(tmp_path, 3)

    assert len(costs) == 3
    assert all(cost.blocked_s > 0 and cost.worker_s > 0 and cost.threads_s >= 0 for cost in costs)
    assert len(list(tmp_path.glob("no-op/study/trial-*/attempt-1/result.json"))) == 3


@pytest.mark.slow
def test_the_computing_trials_are_all_done(tmp_path: Path) -> None:
    assert parallel_study(tmp_path / "two", 3, workers=2, n_blocks=1) > 0
    assert len(list(tmp_path.glob("two/study/trial-*/attempt-1/result.json"))) == 3


def test_tenths_keep_the_order_and_lose_no_trial() -> None:
    costs = [Cost(blocked_s=float(number)) for number in range(20)]

    assert [part[0].blocked_s for part in tenths(costs)] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [cost for part in tenths(costs) for cost in part] == costs
