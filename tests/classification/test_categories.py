from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.classification.categories import categories, category_errors, category_matrix, read_categories
from mlflow_yolo.exceptions import ArgumentError, ShapeError

NAMES = ["cat", "oak", "dog", "elm"]
MATRIX = np.array([[6, 0, 3, 1], [0, 8, 0, 2], [1, 1, 8, 0], [0, 4, 0, 6]])


@pytest.mark.parametrize(
    "mapping",
    [
        {"animal": ["cat", "dog"], "tree": ["oak", "elm"]},
        {"cat": "animal", "oak": "tree", "dog": "animal", "elm": "tree"},
    ],
)
def test_both_forms_say_the_same(mapping: dict) -> None:
    found = categories(mapping, NAMES)
    assert found.names == ("animal", "tree")
    assert found.of_class.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("c.yaml", "animal: [cat, dog]\ntree:\n- oak\n- elm\n"),
        ("c.yml", "cat: animal\noak: tree\ndog: animal\nelm: tree\n"),
        ("c.json", '{"animal": ["cat", "dog"], "tree": ["oak", "elm"]}'),
        ("c.JSON", '{"cat": "animal", "oak": "tree", "dog": "animal", "elm": "tree"}'),
    ],
)
def test_files_of_both_kinds_are_read(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    found = read_categories(tmp_path / file, NAMES)
    assert (found.names, found.of_class.tolist()) == (("animal", "tree"), [0, 1, 0, 1])


def test_yaml_names_are_read_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("round: [0, 06, no]\nopen: [on, 1.50]\n")
    found = read_categories(tmp_path / "c.yaml", ["0", "06", "no", "on", "1.50"])
    assert found.of_class.tolist() == [0, 0, 0, 1, 1]


def test_errors_within_and_across_categories_by_hand() -> None:
    found = category_errors(MATRIX, categories({"animal": ["cat", "dog"], "tree": ["oak", "elm"]}, NAMES))
    assert (found.n_within, found.n_cross) == (10, 2)  # cat-dog 3 + 1, oak-elm 2 + 4; cat-elm 1, dog-oak 1
    assert found.within_share == pytest.approx(10 / 12)
    assert found.expected_share == pytest.approx(1 / 3)  # one of three other classes
    assert found.low < 10 / 12 < found.high
    table = found.table.set_index("category")
    assert table.loc["animal", ["n_classes", "n", "n_correct", "n_within", "n_cross"]].tolist() == [2, 20, 14, 4, 2]
    assert table.loc["tree", ["within_rate", "cross_rate"]].tolist() == [0.3, 0.0]


def test_the_expected_share_weighs_categories_by_their_errors() -> None:
    found = category_errors(
        np.array([[0, 3, 0], [0, 1, 0], [1, 0, 0]]), categories({"ab": ["a", "b"], "c": ["c"]}, ["a", "b", "c"])
    )
    # Three errors of a, which has one sibling among two others, and one of c, which has none.
    assert found.expected_share == pytest.approx((3 * 0.5 + 1 * 0) / 4)
    assert found.within_share == 0.75


def test_the_matrix_of_categories_keeps_true_and_predicted() -> None:
    groups = categories({"animal": ["cat", "dog"], "tree": ["oak", "elm"]}, NAMES)
    assert category_matrix(MATRIX, groups).tolist() == [[18, 2], [0, 20]]


def test_no_errors_and_no_images_have_no_share() -> None:
    groups = categories({"animal": ["cat", "dog"], "tree": ["oak", "elm"]}, NAMES)
    for matrix in (np.diag([3, 3, 3, 3]), np.zeros((4, 4), dtype=np.int64)):
        found = category_errors(matrix, groups)
        assert np.isnan([found.within_share, found.low, found.high, found.expected_share]).all()
    assert found.table["within_rate"].isna().all()


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"animal": ["cat", "dgo"], "tree": ["oak", "elm"]}, "'dgo'.*did you mean 'dog'"),
        ({"animal": ["cat", "dog", "zzz"], "tree": ["oak", "elm"]}, "'zzz'.*names of data.yaml"),
        ({"animal": ["cat", "dog"], "tree": ["oak", "elm", "cat"]}, "'cat'.*twice"),
        ({"animal": ["cat", "cat", "dog"], "tree": ["oak", "elm"]}, "'cat'.*twice"),
        ({"animal": ["cat", "dog"]}, "'oak', 'elm'"),
        ({}, "'cat', 'oak', 'dog' and 1 more"),
        ({"animal": ["cat", "dog"], "oak": "tree", "elm": "tree"}, "neither"),
        ({"animal": {"cat": 1}}, "neither"),
        ({"animal": None}, "neither"),
    ],
)
def test_categories_that_are_not_each_class_once_are_refused(mapping: dict, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        categories(mapping, NAMES)


@pytest.mark.parametrize("file", ["c.yaml", "c.json"])
def test_a_class_that_a_file_names_twice_is_seen(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text('{"cat": "a", "oak": "t", "dog": "a", "elm": "t", "cat": "t"}')
    with pytest.raises(ArgumentError, match=f"{file}.*'cat'.*twice"):
        read_categories(tmp_path / file, NAMES)


@pytest.mark.parametrize(
    ("file", "text"), [("c.yaml", "a: [b"), ("c.json", "{"), ("c.yaml", "- cat\n- dog\n"), ("c.json", "[1, 2]")]
)
def test_a_file_that_holds_no_categories_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ArgumentError, match=file):
        read_categories(tmp_path / file, NAMES)


def test_a_missing_file_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"nowhere\.yaml"):
        read_categories(tmp_path / "nowhere.yaml", NAMES)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ArgumentError, match="leave out 'cat'"):
        read_categories(tmp_path / "empty.yaml", NAMES)


def test_two_classes_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(ArgumentError, match="two classes named 'cat'"):
        categories({"animal": ["cat"]}, ["cat", "cat"])


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(5, 5\)"):
        category_errors(np.zeros((5, 5), dtype=np.int64), categories({"all": NAMES}, NAMES))
