from typing import Any

import pytest

from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variants.pruning_order import PruningOrder, order_pruning


def order(method: str = "structured", **given: Any) -> PruningOrder:
    values = {"ratio": 0.3, "parts": "", "importance": "l2", "round_to": 8, "steps": 1, "seed": 0}
    return order_pruning(method, **{**values, **given})


def test_words_become_settings() -> None:
    found = order(parts="backbone=0.4, neck=0,", importance="l1", round_to=4, steps=2, seed=5)
    assert found.settings == PruningSettings(0.3, {"backbone": 0.4, "neck": 0.0}, "l1", 4, 2, 5)
    assert found.question["parts"] == {"backbone": 0.4, "neck": 0.0}
    assert (found.question["method"], found.question["ratio"], found.question["steps"]) == ("structured", 0.3, 2)


def test_other_methods_take_no_settings() -> None:
    assert order("unstructured", ratio=0.5).question == {"method": "unstructured", "ratio": 0.5}
    assert order("dead", threshold=0.01).question["threshold"] == 0.01


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["structured", "unstructured"])
def test_ratios_that_leave_nothing_or_all_are_refused(method: str, ratio: float) -> None:
    with pytest.raises(ArgumentError, match=f"ratio={ratio:g}"):
        order(method, ratio=ratio)


@pytest.mark.parametrize("word", ["backbone=x", "backbone", "=", "backbone="])
def test_a_part_needs_a_ratio(word: str) -> None:
    with pytest.raises(ArgumentError, match=f"parts={word}"):
        order(parts=word)
