"""Label files: where they lie, what their rows mean, and the first row that cannot be trained on.

The checks are those of Ultralytics 8.4 (`ultralytics.data.utils.verify_image_label`), which drops a bad file with a
log line and trains on; here the first bad row is named instead. Two are stricter: numbers must be finite, and every
point of a polygon must lie inside the image, not only its box.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 0.01
"""How far a normalised coordinate may lie outside [0, 1]: Ultralytics' own 1 %."""

_BOX_COLUMNS = 5
_OBB_COLUMNS = 9
_MIN_POLYGON_COLUMNS = 7


@dataclass(frozen=True)
class LabelRules:
    """What a row may hold.

    Attributes:
        n_classes: Class ids run from 0 to n_classes - 1.
        task: 'detect', 'segment', 'pose' or 'obb'; None accepts boxes and polygons, to find out which they are.
        kpt_shape: (keypoints, values per keypoint) of a pose data set, else None.
    """

    n_classes: int
    task: str | None
    kpt_shape: tuple[int, int] | None


@dataclass(frozen=True)
class LabelCheck:
    """What one label file holds.

    Attributes:
        sha256: Digest of the file's bytes.
        classes: Class id of every row, in file order; empty for an empty file or one with a problem.
        polygons: Whether the rows are polygons; None when there are no rows.
        problem: The first row that cannot be used as 'file:line: cause. remedy.'; empty when all can.
    """

    sha256: str
    classes: tuple[int, ...]
    polygons: bool | None
    problem: str


class _RowError(ValueError):
    """A row that breaks a rule; its text becomes LabelCheck.problem."""


def label_path(image: Path) -> Path:
    """Return where the labels of an image lie: the last `/images/` becomes `/labels/`, the suffix `.txt`."""
    old, new = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return Path(new.join(str(image).rsplit(old, 1)).rsplit(".", 1)[0] + ".txt")


def check_labels(path: Path, rules: LabelRules) -> LabelCheck:
    """Return the classes and the first problem of one label file; an empty file is an image without objects."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        problem = f"{path}: the label file cannot be read ({error.strerror}). Make it readable."
        return LabelCheck(sha256="", classes=(), polygons=None, problem=problem)
    except UnicodeDecodeError:
        return LabelCheck(sha256="", classes=(), polygons=None, problem=f"{path}: not a text file. Write it as UTF-8.")
    sha256 = hashlib.sha256(data).hexdigest()
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    classes: list[int] = []
    kinds: set[bool] = set()
    for number, row in rows:
        try:
            kinds.add(_is_polygon(row, rules))
            classes.append(_check_row(row, rules))
            if len(kinds) > 1:
                raise _RowError("boxes and polygons are mixed in one file. Write all rows in one way.")
        except _RowError as error:
            return LabelCheck(sha256=sha256, classes=(), polygons=None, problem=f"{path}:{number}: {error}")
    return LabelCheck(sha256=sha256, classes=tuple(classes), polygons=kinds.pop() if kinds else None, problem="")


def _is_polygon(row: Sequence[str], rules: LabelRules) -> bool:
    """Return whether a row is a polygon, from its column count.

    Raises:
        _RowError: The task does not know rows of this length.
    """
    n = len(row)
    if rules.task == "pose":
        if rules.kpt_shape is None:
            raise _RowError("pose labels need 'kpt_shape' in data.yaml, such as kpt_shape: [17, 3].")
        wanted = _BOX_COLUMNS + rules.kpt_shape[0] * rules.kpt_shape[1]
        if n != wanted:
            raise _RowError(f"{n} columns, but kpt_shape {list(rules.kpt_shape)} needs {wanted}. Correct one of them.")
        return False
    if rules.task == "obb":
        if n != _OBB_COLUMNS:
            raise _RowError(f"{n} columns, but an oriented box has 9: class x1 y1 x2 y2 x3 y3 x4 y4.")
        return True
    if n == _BOX_COLUMNS and rules.task != "segment":
        return False
    if n >= _MIN_POLYGON_COLUMNS and n % 2:
        return True
    if rules.task == "segment":
        raise _RowError(f"{n} columns, but a polygon has 7 or more, an odd number: class x1 y1 x2 y2 x3 y3 ...")
    raise _RowError(f"{n} columns, but a row has 5 (class x y width height) or, as a polygon, 7 or more (odd).")


def _check_row(row: Sequence[str], rules: LabelRules) -> int:
    """Return the class id of a row whose length is right.

    Raises:
        _RowError: A value is no number, the class does not exist, or a coordinate lies outside the image.
    """
    values = []
    for word in row:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise _RowError(f"{word!r} is not a number. Write class and coordinates as numbers.")
        values.append(value)
    class_id, coordinates = values[0], values[1:]
    if class_id % 1 or not 0 <= class_id < rules.n_classes:
        raise _RowError(
            f"class id {row[0]} is not in 0 to {rules.n_classes - 1} (nc={rules.n_classes}). "
            "Correct the label or the names in data.yaml."
        )
    remedy = "Normalise coordinates by image width and height."
    is_box = len(row) == _BOX_COLUMNS or rules.task == "pose"
    for position, value in enumerate(coordinates):
        if is_box and position in (2, 3) and value < 0:
            raise _RowError(f"{'width' if position == 2 else 'height'} {row[position + 1]} is negative. {remedy}")
        if _is_visibility(position, rules):
            continue
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise _RowError(f"coordinate {row[position + 1]} is outside [0, 1]. {remedy}")
    return int(class_id)


def _is_visibility(position: int, rules: LabelRules) -> bool:
    """Return whether a coordinate is really a keypoint's visibility flag (third of three values)."""
    if rules.task != "pose" or rules.kpt_shape is None or rules.kpt_shape[1] < 3:
        return False
    return position >= 4 and (position - 4) % rules.kpt_shape[1] == 2
