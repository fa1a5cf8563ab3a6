"""What a trial's values are, by hand."""

from typing import Any

import pytest

from mlflow_yolo.studies.tuning.trial import mean_values, values_of


def result_of(**more: Any) -> dict[str, Any]:
    per_class = {"a": {"AP50-95": 0.2, "AP50": 0.5}, "b/c": {"AP50-95": 0.4, "AP50": 0.6}}
    return {
        "final": {"mAP50-95": 0.3, "AP-small": 0.1},
        "measured": {"val": {"values": {"mAP50-95": 0.31}, "per_class": per_class}},
        "overfit_gap": 0.05,
        "train_s": 12.0,
        "bn_total": 3,
        "parameters_trainable": 900_000,
        "parameters_frozen": 100_000,
        **more,
    }


def test_values_are_called_as_the_run_logs_them() -> None:
    assert values_of(result_of()) == {
        "final/mAP50-95": 0.3,
        "final/AP-small": 0.1,
        "final/AP50-95/a": 0.2,
        "final/AP50-95/b_c": 0.4,
        "overfit_gap": 0.05,
        "train_s": 12.0,
        "parameters_m": 1.0,
    }


def test_values_on_test_are_among_them_where_there_is_a_test_split() -> None:
    measured = result_of()["measured"] | {"test": {"values": {"mAP50-95": 0.2}, "per_class": {"a": {"AP50-95": 0.25}}}}

    found = values_of(result_of(measured=measured))

    assert (found["test/mAP50-95"], found["test/AP50-95/a"], found["final/mAP50-95"]) == (0.2, 0.25, 0.3)


def test_test_values_of_many_classes_are_left_to_the_table_as_in_the_run() -> None:
    many = {str(i): {"AP50-95": 0.1} for i in range(11)}
    measured = result_of()["measured"] | {"test": {"values": {"mAP50-95": 0.2}, "per_class": many}}

    assert "test/AP50-95/0" not in values_of(result_of(measured=measured))


def test_means_are_over_the_values_that_every_seed_has() -> None:
    assert mean_values([{"x": 1.0, "epochs_to_90": 3}, {"x": 2.0}]) == {"x": 1.5}
    assert mean_values([{"x": 1.0}]) == {"x": 1.0}
    assert mean_values([]) == {}


def test_a_mean_with_a_value_that_is_no_number_is_none() -> None:
    (value,) = mean_values([{"x": 1.0}, {"x": float("nan")}]).values()

    assert value == pytest.approx(float("nan"), nan_ok=True)
