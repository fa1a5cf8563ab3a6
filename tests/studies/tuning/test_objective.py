import math

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.objective import (
    COSTS,
    Constraint,
    Goal,
    known_metrics,
    needs_costs,
    parse_constraints,
    parse_objective,
)

KNOWN = known_metrics("detect", ["car", "bus"], has_test=True, replayed={"conf": (0.1, 0.9)})


def test_accuracy_is_to_be_high_and_costs_low() -> None:
    assert parse_objective("final/mAP50-95, latency_p95_ms,size_mb", KNOWN) == (
        Goal("final/mAP50-95", "maximize"),
        Goal("latency_p95_ms", "minimize"),
        Goal("size_mb", "minimize"),
    )
    assert parse_objective("overfit_gap", KNOWN)[0].direction == "minimize"
    assert parse_objective("op/f1", KNOWN)[0].direction == "maximize"


def test_the_other_way_can_be_asked_for() -> None:
    assert parse_objective("final/recall:min", KNOWN) == (Goal("final/recall", "minimize"),)
    assert parse_objective("op/conf:max,train_s:max", KNOWN)[1] == Goal("train_s", "maximize")


def test_constraints_have_a_sign_and_a_bound() -> None:
    assert parse_constraints("latency_p95_ms<=20, final/recall >= 0.5", KNOWN) == (
        Constraint("latency_p95_ms", "<=", 20.0),
        Constraint("final/recall", ">=", 0.5),
    )
    assert parse_constraints("", KNOWN) == ()
    assert str(parse_constraints("size_mb<=6", KNOWN)[0]) == "size_mb<=6"


def test_a_metric_can_be_bounded_on_both_sides() -> None:
    assert len(parse_constraints("op/conf>=0.1,op/conf<=0.9", KNOWN)) == 2


def test_a_violation_is_counted_in_bounds() -> None:
    latency, recall = Constraint("latency_p95_ms", "<=", 20.0), Constraint("final/recall", ">=", 0.5)
    assert latency.violation({"latency_p95_ms": 25.0}) == 0.25
    assert latency.violation({"latency_p95_ms": 20.0}) == 0.0
    assert latency.violation({"latency_p95_ms": 15.0}) == -0.25
    assert recall.violation({"final/recall": 0.4}) == pytest.approx(0.2)
    assert recall.violation({"final/recall": 0.6}) == pytest.approx(-0.2)


def test_a_bound_of_zero_or_below_zero_keeps_its_side() -> None:
    assert Constraint("overfit_gap", "<=", 0.0).violation({"overfit_gap": 0.1}) == pytest.approx(0.1)
    assert Constraint("overfit_gap", "<=", -0.5).violation({"overfit_gap": 0.0}) == 1.0
    assert Constraint("overfit_gap", ">=", -0.5).violation({"overfit_gap": 0.0}) == -1.0


@pytest.mark.parametrize("values", [{}, {"size_mb": math.nan}, {"size_mb": math.inf}])
def test_what_was_not_measured_does_not_keep_a_bound(values: dict[str, float]) -> None:
    assert Constraint("size_mb", "<=", 6.0).violation(values) == 1.0
    assert Constraint("size_mb", ">=", 6.0).violation(values) == 1.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("final/mAP50", ""),
        ("final/map50-95", "Did you mean final/mAP50-95"),
        ("mAP50-95", "Did you mean final/mAP50-95"),
        ("latency_ms", "Did you mean latency_p"),
        ("final/AP50-95/cat", "Did you mean final/AP50-95/car"),
        ("xyzzy", "never logged"),
        ("", "names no metric"),
        ("size_mb,size_mb:max", "size_mb twice"),
        ("size_mb:lowest", "lowest"),
    ],
)
def test_an_objective_that_is_never_logged_is_refused_and_the_nearest_named(text: str, named: str) -> None:
    if not named:
        assert parse_objective(text, KNOWN)
        return
    with pytest.raises(ArgumentError, match=named) as error:
        parse_objective(text, KNOWN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency_p95<=20", "Did you mean latency_p95_ms"),
        ("size_mb<6", "size_mb<=20"),
        ("size_mb=6", "size_mb<=20"),
        ("size_mb", "no bound"),
        ("<=6", "no bound"),
        ("size_mb<=", "''"),
        ("size_mb<=six", "six"),
        ("size_mb<=nan", "nan"),
        ("size_mb<=6,size_mb<=7", "size_mb<= twice"),
    ],
)
def test_a_constraint_that_cannot_be_checked_is_refused(text: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as error:
        parse_constraints(text, KNOWN)
    assert "\n" not in str(error.value)


def test_metrics_follow_task_split_and_classes() -> None:
    assert {"final/mAP50-95", "test/mAP50", "final/AP50-95/car", "test/AP50-95/bus", "op/f1", *COSTS} <= set(KNOWN)
    assert "final/mask/mAP50-95" not in KNOWN
    assert "final/mask/mAP50-95" in known_metrics("segment", ["a"], has_test=False)
    assert not [name for name in known_metrics("detect", ["a"], has_test=False) if name.startswith(("test/", "op/"))]


def test_a_classifier_has_its_own_metrics() -> None:
    found = known_metrics("classify", ["a", "b"], has_test=True, replayed={"conf": (0.1, 0.9)})
    assert {"final/top1", "test/top5", "overfit_gap"} <= set(found)
    assert not [name for name in found if "mAP" in name or "AP50" in name or name.startswith("op/")]


def test_many_classes_have_no_metric_each() -> None:
    names = [f"c{i}" for i in range(100)]
    assert not [name for name in known_metrics("detect", names, has_test=True) if "/AP50-95/" in name]
    fifteen = known_metrics("detect", names[:15], has_test=True)
    assert "final/AP50-95/c3" in fifteen
    assert "test/AP50-95/c3" not in fifteen


def test_costs_are_measured_where_a_goal_or_a_constraint_asks() -> None:
    accuracy, size = Goal("final/mAP50-95", "maximize"), Goal("size_mb", "minimize")
    assert not needs_costs([accuracy])
    assert needs_costs([accuracy, size])
    assert needs_costs([accuracy], [Constraint("latency_p95_ms", "<=", 20.0)])
    assert not needs_costs([accuracy], [Constraint("final/recall", ">=", 0.5)])
