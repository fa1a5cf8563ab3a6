import numpy as np
import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.selection import Selection

NAMES = ("cat", "dog", "7")


def test_every_class_has_the_common_threshold_unless_it_has_its_own() -> None:
    thresholds = Selection(conf=0.3, per_class={"dog": 0.6, 0: 0.1}).thresholds(NAMES)
    assert thresholds == pytest.approx(np.array([0.1, 0.6, 0.3]))


def test_a_number_is_an_id_and_a_word_is_a_name_even_if_it_looks_like_a_number() -> None:
    assert Selection(conf=0.3, per_class={"7": 0.6}).thresholds(NAMES).tolist() == pytest.approx([0.3, 0.3, 0.6])
    with pytest.raises(ArgumentError, match="class 7"):
        Selection(per_class={7: 0.6}).thresholds(NAMES)


@pytest.mark.parametrize("word", ["horse", 3, -1])
def test_a_class_that_is_not_there_is_named_with_those_that_are(word: str | int) -> None:
    with pytest.raises(ArgumentError, match=f"{word}.*cat, dog, 7"):
        Selection(per_class={word: 0.5}).thresholds(NAMES)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"conf": 1.2}, "conf=1.2"),
        ({"iou": -0.1}, "iou=-0.1"),
        ({"max_det": 0}, "max_det=0"),
        ({"per_class": {"cat": 2}}, "cat=2"),
        ({"conf": float("nan")}, "conf=nan"),
    ],
)
def test_a_value_out_of_range_is_named(values: dict, name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        Selection(**values)
