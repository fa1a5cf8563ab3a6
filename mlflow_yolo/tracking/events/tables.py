"""Tables as text, for artifacts that MLflow's UI shows as a table."""

import csv
import io
from collections.abc import Mapping


def per_class_table(per_class: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a CSV with one row per split and class.

    Args:
        per_class: Split to class name to value name to value; see `FinalValues.per_class`.

    Returns:
        Header `split,class,…` and the rows; empty text where there are none.
    """
    rows = [
        {"split": split, "class": name, **values}
        for split, classes in per_class.items()
        for name, values in classes.items()
    ]
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
