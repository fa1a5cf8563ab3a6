import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.table import Table, cell_text, markdown_table, sort_key, text_table

COLUMNS = ["freeze", "mAP", "verdict"]
ROWS = [[0, 0.61234, "baseline"], [10, None, "worse"]]


def test_text_table_aligns_numbers_right_and_text_left() -> None:
    assert text_table(COLUMNS, ROWS).splitlines() == [
        "freeze    mAP  verdict",
        "──────  ─────  ────────",
        "     0  0.612  baseline",
        "    10      \N{EN DASH}  worse",
    ]


def test_wide_and_combining_characters_keep_columns_straight() -> None:
    lines = text_table(["name", "n"], [["漢字", 1], ["e\u0301", 2]]).splitlines()
    assert lines[2:] == ["漢字  1", "e\u0301     2"]


def test_markdown_table_marks_numbers_and_escapes_what_would_not_stay_text() -> None:
    assert markdown_table(["class", "F1"], [["a|b <script>*\n", 0.5], ["`c`", 1e-5]]).splitlines() == [
        "| class | F1 |",
        "| :--- | ---: |",
        r"| a\|b &lt;script&gt;\*  | 0.500 |",
        r"| \`c\` | 1e-05 |",
    ]


def test_no_rows_leave_the_names() -> None:
    assert text_table(["a", "bc"], []) == "a  bc\n─  ──"
    assert markdown_table(["a"], []) == "| a |\n| :--- |"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"), (float("nan"), "\N{EN DASH}"), (np.float32(0.5), "0.500"),
        (np.int64(7), "7"), (True, "True"), ("x", "x"),
        (0.0, "0.000"), (1234567.0, "1.23e+06"), (float("inf"), "inf"), (-0.0004, "-0.0004"),
    ],
)  # fmt: skip
def test_cells_are_written_with_three_decimals_where_that_says_something(value: object, text: str) -> None:
    assert cell_text(value) == text


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["0.590 to 0.634", "+0.012", "\N{MINUS SIGN}0.1", "<.001", "1,234", "5 %", "[0.1, 0.2]"], True),
        (["baseline", "+0.012"], True),
        (["3x", "no difference"], False),
        (["", None], False),
        ([True, False], False),
    ],
)
def test_a_column_is_numeric_when_half_of_its_values_are(cells: list[object], numeric: bool) -> None:
    assert Table(["x"], [[cell] for cell in cells]).numeric() == [numeric]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (0.25, "0.25"), (3, "3.0"), ("1,234 s", "1234"), ("\N{MINUS SIGN}0.5 to 1", "-0.5"), ("<.001", ".001"),
        ("abc", ""), (None, ""), (float("nan"), ""),
    ],
)  # fmt: skip
def test_cells_are_sorted_by_the_number_they_begin_with(value: object, key: str) -> None:
    assert sort_key(value) == key


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match="row 1 has 1 cells for 2"):
        text_table(["a", "b"], [[1, 2], [3]])
