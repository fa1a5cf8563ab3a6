"""Every metric, param, tag, artifact and image name, built in one place.

MLflow accepts letters, digits, `_ - . space /` (and `:` off Windows) in keys and rejects a whole batch over one bad
name, so everything that is logged passes through here. Metrics keep the spelling that Ultralytics' own MLflow callback
gives them (`metrics/mAP50(B)` becomes `metrics/mAP50B`).
"""

import re
import uuid
from collections.abc import Iterable, Mapping

MAX_METRIC_KEYS = 150
"""Metric keys one run may carry: MLflow's UI draws one card per key."""

MAX_CLASSES_AS_METRICS = 20
"""Above this many classes, per-class values go to `per_class.csv` only."""

MAX_CLASSES_ON_TEST = 10
"""The same for the test split, so that a segmentation model of 20 classes stays within `MAX_METRIC_KEYS`."""

TAG_UID = "mlflow_yolo.uid"
TAG_STATE = "mlflow_yolo.state"
TAG_STATISTICS = "mlflow_yolo.statistics"
TAG_CONTINUES = "mlflow_yolo.continues"
TAG_STUDY = "mlflow_yolo.study"
TAG_HISTORY = "mlflow_yolo.history"
TAG_VERSION = "mlflow_yolo.version"
TAG_NAME = "mlflow.runName"
TAG_PARENT = "mlflow.parentRunId"
TAG_NOTE = "mlflow.note.content"

_FORBIDDEN = re.compile(r"[^\w\-. /]")
_REPEATED_SLASH = re.compile(r"/{2,}")


def sanitise(name: str) -> str:
    """Return `name` as a key MLflow accepts: parentheses dropped, other foreign characters replaced by `_`.

    Args:
        name: Any text, for example `metrics/mAP50(B)` or a class name.

    Returns:
        At most 250 characters of letters, digits, `_ - . space /`; `_` for an empty name.
    """
    key = _FORBIDDEN.sub("_", name.replace("(", "").replace(")", ""))
    parts = [part for part in _REPEATED_SLASH.sub("/", key).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:250] or "_"


def segment(name: str) -> str:
    """Return `name` as one path segment of a key: sanitised, with `/` replaced (class and file names hold them)."""
    return sanitise(name.replace("/", "_"))


def class_segments(names: Iterable[str]) -> list[str]:
    """Return one unique key segment per class name, in order; names that collide get their index appended."""
    segments = [segment(name) for name in names]
    return [s if segments.count(s) == 1 else f"{s}_{i}" for i, s in enumerate(segments)]


def metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Return `values` under sanitised keys, as plain floats."""
    return {sanitise(name): float(value) for name, value in values.items()}


def block_metric(name: str, block: str) -> str:
    """Return the metric key of one block's statistic: `stats/gradient_l2/04-C3k2`.

    MLflow's UI sorts its sections by name and cuts card titles after some 30 characters: one short prefix puts the many
    cards of the blocks behind `final` and `metrics`, which a reader looks for first, and leaves the block readable.
    """
    return f"{model_metric(name)}/{segment(block)}"


def model_metric(name: str) -> str:
    """Return the metric key of a statistic of the whole model: `stats/gradient_norm`."""
    return f"stats/{name}"


def image_file(key: str, *, step: int, timestamp_ms: int, uid: str) -> str:
    """Return the artifact path under which MLflow's UI finds an image of its grid.

    The name follows `MlflowClient.log_image(key=, step=)`, but its unique part is derived from `uid`, `key` and `step`,
    so that sending an image twice overwrites it instead of doubling it.
    """
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{uid}/{key}/{step}")
    return f"images/{sanitise(key).replace('/', '~')}+step+{step}+timestamp+{timestamp_ms}+{unique}.png"
