from mlflow_yolo.registry.markdown import MOST_CHARACTERS, fit, safe, spaced_table


def test_signs_of_markdown_and_html_stay_signs() -> None:
    assert safe("a*b_[c]<img>`|~&\\") == "a\\*b\\_\\[c\\]&lt;img&gt;\\`\\|\\~&amp;\\\\"


def test_what_cannot_be_seen_is_left_out_and_what_is_long_is_cut() -> None:
    assert safe("a\nb\x00c") == "abc"
    assert len(safe("x" * 999)) == 200


def test_parts_that_do_not_fit_are_left_out_whole() -> None:
    assert fit(["a", "b"]) == "a\n\nb"
    assert fit(["a", "x" * MOST_CHARACTERS, "b"]) == "a\n\nb"
    assert fit(["x" * (MOST_CHARACTERS + 5)]) == "x" * MOST_CHARACTERS


def test_columns_of_a_table_do_not_touch() -> None:
    lines = spaced_table(["", "a"], [["x", 1.5], ["y", None]]).splitlines()
    space = 2 * "\N{NO-BREAK SPACE}"
    assert lines[2] == f"| x | {space}1.500 |"
    assert lines[3] == f"| y | {space}\N{EN DASH} |"
