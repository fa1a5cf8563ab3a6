from functools import partial

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.dimensions import Dimension, number, numbers, words


def floats(text: str) -> Dimension:
    return numbers("x", text, partial(number, "x", kind="float", example="x=0:1"), kind="float", example="x=0:1")


def whole(text: str, *, step: float | None = None) -> Dimension:
    read = partial(number, "n", kind="int", example="n=1:5")
    return numbers("n", text, read, kind="int", step=step, example="n=1:5")


def test_two_numbers_are_a_range() -> None:
    assert floats("0:0.6").distribution() == FloatDistribution(0.0, 0.6)
    assert whole("0:11").distribution() == IntDistribution(0, 11)


def test_log_spreads_the_logarithm() -> None:
    assert floats("1e-4:1e-1:log").distribution() == FloatDistribution(1e-4, 1e-1, log=True)
    assert whole("1:64:log").distribution() == IntDistribution(1, 64, log=True)


def test_a_third_number_is_the_step() -> None:
    assert floats("0:1:0.25").distribution() == FloatDistribution(0.0, 1.0, step=0.25)
    assert whole("8:32:8").distribution() == IntDistribution(8, 32, step=8)


def test_a_range_ends_where_its_last_step_ends() -> None:
    assert floats("0:1:0.3").high == 0.9
    assert whole("3:11:4").values == (3, 7, 11)
    assert whole("3:10:4").values == (3, 7)


def test_steps_are_decimal() -> None:
    assert floats("0:0.5:0.1").values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def test_values_joined_by_plus_are_choices() -> None:
    assert floats("1e-3+1e-2").distribution() == CategoricalDistribution((1e-3, 1e-2))
    assert whole("0+3+10").choices == (0, 3, 10)
    assert words("optimizer", "SGD+AdamW", str).choices == ("SGD", "AdamW")


def test_the_plus_of_an_exponent_joins_nothing() -> None:
    assert floats("1e+3").low == 1000.0
    assert floats("1e+2+1E+3").choices == (100.0, 1000.0)


def test_choices_of_whole_numbers_are_integers() -> None:
    assert [type(value) for value in whole("0+3").choices] == [int, int]


@pytest.mark.parametrize("one", [floats("0.5"), floats("0.5:0.5"), words("w", "SGD", str), whole("3")])
def test_one_value_is_fixed(one: Dimension) -> None:
    assert one.is_fixed
    assert one.distribution().single()
    assert len(one.values or ()) == 1


def test_a_float_range_has_no_end_of_values() -> None:
    assert floats("0:1").values is None


def test_it_contains_its_ends_and_nothing_beyond() -> None:
    some = floats("0.1:0.5")
    assert [some.contains(value) for value in (0.1, 0.3, 0.5, 0.0999, 0.5001)] == [True, True, True, False, False]


def test_it_contains_only_its_steps() -> None:
    assert floats("0:0.5:0.1").contains(0.1 + 0.1 + 0.1)  # 0.30000000000000004
    assert not floats("0:0.5:0.1").contains(0.25)
    assert whole("8:32:8").contains(24)
    assert not whole("8:32:8").contains(20)
    assert not whole("0:5").contains(2.5)


def test_a_choice_contains_values_of_the_same_type_only() -> None:
    assert words("cos_lr", "true", lambda word: True).contains(True)
    assert not words("cos_lr", "true", lambda word: True).contains(1)
    assert not whole("0:1").contains(True)
    assert not whole("0:5").contains("3")


@pytest.mark.parametrize(
    ("dimension", "value", "nearest"),
    [
        (floats("0.1:0.5"), 0.7, 0.5),
        (floats("0.1:0.5"), 0.2, 0.2),
        (floats("0:1:0.25"), 0.4, 0.5),
        (whole("3:11:4"), 5, 3),
        (whole("3:11:4"), 100, 11),
        (whole("3+7"), 6, 7),
        (words("optimizer", "SGD+AdamW", str), "Adam", "SGD"),
        (words("optimizer", "SGD+AdamW", str), "AdamW", "AdamW"),
        (floats("0.1:0.5"), "auto", 0.1),
    ],
)
def test_the_nearest_value_lies_in_it(dimension: Dimension, value: object, nearest: object) -> None:
    found = dimension.nearest(value)
    assert (found, type(found)) == (nearest, type(nearest))
    assert dimension.contains(found)


@pytest.mark.parametrize(
    "text",
    ["x=0.1:0.5", "x=0.0001:0.1:log", "x=0:1:0.25", "x=0.001+0.01", "x=0.5", "x=-10:10:5", "x=0.123456789012345"],
)
def test_its_text_reads_as_itself(text: str) -> None:
    dimension = floats(text.partition("=")[2])
    assert dimension.text == text
    assert floats(dimension.text.partition("=")[2]) == dimension


def test_json_tells_whole_numbers_from_others() -> None:
    assert whole("8:32:8").to_json() == {"name": "n", "kind": "int", "low": 8, "high": 32, "log": False, "step": 8}
    assert words("w", "a+b", str).to_json() == {"name": "w", "kind": "choice", "choices": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0.5:0.1", "empty range.*0.1:0.5"),
        ("0:1:log", "0 has no logarithm"),
        ("-1:1:log", "-1 has no logarithm"),
        ("0:0.1:0.2", "step of 0.2"),
        ("0:1:0", "step of 0"),
        ("0:1:-1", "step of -1"),
        ("0:1:logg", "logg"),
        ("0:1:2:3", "0:1:2:3"),
        (":1", ":1"),
        ("0:", "0:"),
        ("a:1", "x=a"),
        ("nan", "x=nan"),
        ("0:inf", "x=inf"),
        ("1_0:20", "x=1_0"),
        ("", "x="),
        ("0.1+", "x="),
        ("0.1+0.2+0.1", "0.1 twice"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(text: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as error:
        floats(text)
    assert "\n" not in str(error.value)


def test_a_fraction_is_no_whole_number() -> None:
    with pytest.raises(ArgumentError, match=r"n=1\.5 is not a whole number"):
        whole("1.5:3")
    with pytest.raises(ArgumentError, match=r"0\.5"):
        whole("1:3:0.5")


def test_steps_of_their_own_and_a_logarithm_do_not_go_together() -> None:
    with pytest.raises(ArgumentError, match="32 apart"):
        whole("320:640:log", step=32)


def test_an_empty_or_doubled_word_is_named() -> None:
    with pytest.raises(ArgumentError, match="empty value"):
        words("optimizer", "SGD+", str)
    with pytest.raises(ArgumentError, match="SGD twice"):
        words("optimizer", "SGD+AdamW+SGD", str)
