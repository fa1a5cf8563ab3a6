"""Numbers on their way into the journal: as they were when they were logged, in records of a bounded size."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_yolo.tracking.delivery.metric_values import METRIC_NONFINITE, PIECE, metric_records, snapshot


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what all records of one call hold together."""
    merged: dict[str, float] = {}
    for record in metric_records(snapshot(values), t=5, step=2):
        assert (record["type"], record["t"], record["step"]) == ("metrics", 5, 2)
        merged |= record["values"]
    return merged


def test_a_snapshot_does_not_follow_what_the_caller_changes() -> None:
    tensor, array, values = torch.tensor(1.0), np.array([2.0]), {"a": 3.0}
    taken = snapshot({"tensor": tensor, "array": array, **values})
    tensor += 1
    array += 1
    assert taken == {"tensor": 1.0, "array": 2.0, "a": 3.0}


def test_a_snapshot_leaves_the_callers_mapping_alone() -> None:
    values = {"a": torch.tensor(1.0)}
    snapshot(values)
    assert isinstance(values["a"], torch.Tensor)


@pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (PIECE, [PIECE]), (2 * PIECE + 1, [PIECE, PIECE, 1])])
def test_a_call_becomes_records_of_a_bounded_size(n: int, sizes: list[int]) -> None:
    records = list(metric_records({f"m{i}": float(i) for i in range(n)}, t=1, step=0))
    assert [len(record["values"]) for record in records] == sizes
    assert [value for record in records for value in record["values"].values()] == [float(i) for i in range(n)]


def test_keys_that_become_the_same_keep_one_value_also_across_records() -> None:
    values = {"a(B)": 1.0, **{f"m{i}": 0.0 for i in range(PIECE)}, "aB": 2.0}
    assert numbers(values)["aB"] == 2.0
    assert len(numbers(values)) == PIECE + 1


def test_what_is_no_number_is_left_out_and_what_is_not_finite_is_counted() -> None:
    found = numbers({"a": "x", "b": math.inf, "c": None, "d": torch.tensor([1.0, 2.0]), "e": np.float32(0.5), "f": "2"})
    assert found == {"b": math.inf, "e": 0.5, "f": 2.0, METRIC_NONFINITE: 1.0}
