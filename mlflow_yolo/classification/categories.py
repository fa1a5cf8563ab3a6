"""Errors within a category and across categories, where the user says which classes belong together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mlflow_yolo.classification.predictions import Ints
from mlflow_yolo.classification.wilson import wilson_interval
from mlflow_yolo.exceptions import ArgumentError, ShapeError

Pairs = list[tuple[str, Any]]


@dataclass(frozen=True, eq=False)
class Categories:
    """Which category each class belongs to.

    Attributes:
        names: Category names, in the order in which they are given.
        of_class: (C,) index of each class's category.
    """

    names: tuple[str, ...]
    of_class: Ints


@dataclass(frozen=True)
class CategoryErrors:
    """How many errors stay within the true category.

    Attributes:
        n_within: Errors whose predicted class is of the true class's category.
        n_cross: Errors whose predicted class is of another.
        within_share: n_within of all errors; NaN without errors.
        low: Lower end of its 95 % Wilson interval; NaN without errors.
        high: Upper end.
        expected_share: The share there would be if every error fell on any other class alike; NaN without errors.
        table: Per category `category`, `n_classes`, `n`, `n_correct`, `n_within`, `n_cross`, and of its n the
            `within_rate` and `cross_rate` (NaN for no images).
    """

    n_within: int
    n_cross: int
    within_share: float
    low: float
    high: float
    expected_share: float
    table: pd.DataFrame


def read_categories(path: Path, class_names: Sequence[str]) -> Categories:
    """Return the categories of a YAML or JSON file.

    Args:
        path: A file that holds `category: [class, ...]` or `class: category`. Names are read as they are written: `1`,
            `no` and `on` are text.
        class_names: Names of the dataset's classes.

    Raises:
        ArgumentError: The file cannot be read, or its categories are not each class once.
    """
    try:
        text = path.read_text(encoding="utf-8")
        pairs = json.loads(text, object_pairs_hook=list) if path.suffix.lower() == ".json" else _yaml_pairs(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        first_line = str(error).splitlines()[0]
        raise ArgumentError(f"{path} cannot be read as categories ({first_line}): pass a YAML or JSON file.") from error
    try:
        return _categories(pairs, class_names)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error


def categories(mapping: Mapping[str, str | Sequence[str]], class_names: Sequence[str]) -> Categories:
    """Return the categories of a mapping, checked against the classes.

    Args:
        mapping: Category to its class names, or class name to its category.
        class_names: Names of the dataset's classes.

    Raises:
        ArgumentError: The mapping mixes both forms, a class is unknown, in two categories or in none.
    """
    return _categories(list(mapping.items()), class_names)


def category_errors(matrix: Ints, groups: Categories) -> CategoryErrors:
    """Return the errors within and across categories.

    Args:
        matrix: (C, C) counts [true, predicted].
        groups: The category of each class.

    Raises:
        ShapeError: The matrix is not (C, C).
    """
    of_class, n_classes = groups.of_class, len(groups.of_class)
    by_category = category_matrix(matrix, groups)
    sizes = np.bincount(of_class, minlength=len(groups.names))
    right = np.bincount(of_class, weights=matrix.diagonal(), minlength=len(sizes)).astype(np.int64)
    n, within = by_category.sum(axis=1), by_category.diagonal() - right
    cross = n - right - within
    n_errors = int((within + cross).sum())
    low, high = wilson_interval(within.sum(), n_errors)
    others = (sizes - 1) / max(n_classes - 1, 1)
    table = pd.DataFrame(
        {
            "category": list(groups.names),
            "n_classes": sizes,
            "n": n,
            "n_correct": right,
            "n_within": within,
            "n_cross": cross,
            "within_rate": np.divide(within, n, out=np.full(len(n), np.nan), where=n > 0),
            "cross_rate": np.divide(cross, n, out=np.full(len(n), np.nan), where=n > 0),
        }
    )
    return CategoryErrors(
        n_within=int(within.sum()),
        n_cross=int(cross.sum()),
        within_share=float(within.sum() / n_errors) if n_errors else float("nan"),
        low=float(low),
        high=float(high),
        expected_share=float((within + cross) @ others / n_errors) if n_errors else float("nan"),
        table=table,
    )


def category_matrix(matrix: Ints, groups: Categories) -> Ints:
    """Return the confusion matrix of the K categories, (K, K) counts [true, predicted].

    Raises:
        ShapeError: The matrix is not (C, C).
    """
    n_classes, n_groups = len(groups.of_class), len(groups.names)
    if matrix.shape != (n_classes, n_classes):
        raise ShapeError(f"the confusion matrix has shape {matrix.shape}. Pass ({n_classes}, {n_classes}).")
    result = np.zeros((n_groups, n_groups), dtype=np.int64)
    np.add.at(result, (groups.of_class[:, None], groups.of_class[None, :]), matrix)
    return result


def _yaml_pairs(text: str) -> Any:
    """Return the file as its writer typed it: scalars as text, and a key that stands twice twice."""

    def plain(node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return [(plain(key), plain(value)) for key, value in node.value]
        return [plain(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else node.value

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return [] if node is None else plain(node) if isinstance(node, yaml.MappingNode) else node.value


def _categories(pairs: Any, class_names: Sequence[str]) -> Categories:
    members = _members(pairs)
    _check(members, class_names)
    names = tuple(dict.fromkeys(category for category, _ in members))
    category_of = {class_name: names.index(category) for category, class_name in members}
    return Categories(names, np.array([category_of[name] for name in class_names], dtype=np.int64))


def _members(pairs: Any) -> list[tuple[str, str]]:
    """Return (category, class) for every class named, from either form."""
    is_mapping = isinstance(pairs, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
    if is_mapping and all(_is_list(value) for _, value in pairs):
        return [(str(category), str(name)) for category, listed in pairs for name in listed]
    if is_mapping and all(_is_name(value) for _, value in pairs):
        return [(str(category), str(name)) for name, category in pairs]
    raise ArgumentError(
        "the categories are neither `category: [class, ...]` nor `class: category`: use one throughout."
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_name(item) for item in value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _check(members: Sequence[tuple[str, str]], class_names: Sequence[str]) -> None:
    listed = [name for _, name in members]
    if twice := _twice(class_names):
        raise ArgumentError(f"the dataset has two classes named {twice!r}: give each class its own name.")
    known = set(class_names)
    for name in listed:
        if name not in known:
            close = get_close_matches(name, class_names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "use the names of data.yaml."
            raise ArgumentError(f"the categories name the class {name!r}, which the dataset does not have: {hint}")
    if twice := _twice(listed):
        raise ArgumentError(f"the class {twice!r} stands in the categories twice: name it once.")
    if missing := [name for name in class_names if name not in set(listed)]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        shown = ", ".join(map(repr, missing[:3]))
        raise ArgumentError(f"the categories leave out {shown}{more}: give every class a category.")


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
