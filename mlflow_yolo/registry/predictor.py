"""What `mlflow.pyfunc` runs: a table of images in, a table of detections in plain types out."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_yolo.exceptions import ArgumentError, InputError
from mlflow_yolo.registry.inputs import cells_of, is_served, read_cell
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.runtime.outlines import mask_outlines
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.runtime.selection import CONF, IOU, MAX_DET, Selection

if TYPE_CHECKING:
    import pandas as pd

BOX_COLUMNS = ("x1", "y1", "x2", "y2")
POLYGONS = "polygons"
PARAMS = ("conf", "iou", "max_det")

_BATCH = 8


class Predictor:
    """An open model with the `predict` that MLflow calls."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Open a variant and run it once on a black image.

        Args:
            folder: The variant's folder.
            threads: Threads that compute one image; None leaves it to the runtime.

        Raises:
            CheckpointError: The file is damaged, changed, or not what it says.
        """
        self._pipeline = open_pipeline(folder, threads=threads)
        self._selection({})
        self._pipeline.warm_up()
        # MLflow's scoring server calls from many threads; OpenVINO's request serves one at a time.
        self._turn = threading.Lock()

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Return one row a detection, or for a classifier one a class and image, the surest first.

        Args:
            data: See `inputs.cells_of`, its cells `inputs.read_cell`. (Through `mlflow.pyfunc` a DataFrame, a Series
                called `image`, or a list of `{"image": …}`: MLflow makes a table of whatever it is given before it
                calls the model, which a bare array or list does not survive.)
            params: `conf`, `iou`, `max_det`; what is absent or None is the operating point's. `conf` holds for all
                classes, as in `Detector`.

        Returns:
            `image`: the row, from 0, that the image came from; `class_id`; `name`; `score`; but for a classifier `x1`,
            `y1`, `x2`, `y2` in pixels of the original image; for a segmentation model `polygons`, as
            `runtime.outlines.mask_outlines` gives them. No rows where nothing is found.

        Raises:
            ArgumentError: An image cannot be read (the row is named) or a value is out of its range. While MLflow
                serves the model: MlflowException with the same sentence, which its server hands on.
        """
        try:
            return self._predict(data, dict(params or {}))
        except InputError as error:
            if not is_served():
                raise
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _predict(self, data: Any, params: Mapping[str, Any]) -> "pd.DataFrame":
        selection, served, cells = self._selection(params), is_served(), cells_of(data)
        found: list[Detections] = []
        sizes: list[tuple[int, int]] = []
        for start in range(0, len(cells), _BATCH):
            pixels = [self._read(index, cells[index], served) for index in _range(start, len(cells))]
            with self._turn:
                found += self._pipeline(
                    pixels,
                    conf=selection.conf,
                    iou=selection.iou,
                    max_det=selection.max_det,
                    per_class=selection.per_class,
                )
            sizes += [(image.shape[0], image.shape[1]) for image in pixels]
        return to_table(found, sizes, task=self._pipeline.variant.task)

    def _read(self, index: int, cell: Any, served: bool) -> Pixels:
        try:
            return read_cell(cell, served=served, channels=self._pipeline.variant.channels)
        except ArgumentError as error:
            raise ArgumentError(f"row {index}: {error}") from error

    def _selection(self, params: Mapping[str, Any]) -> Selection:
        """Return which detections are wanted, by the rules of `Detector`."""
        if unknown := sorted(set(params) - set(PARAMS)):
            raise ArgumentError(f"params names {', '.join(unknown)}. Use {', '.join(PARAMS)}.")
        given = {name: value for name, value in params.items() if value is not None}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ArgumentError(f"{name}={value!r} is no number. Use one, or leave it out.")
        point = self._pipeline.variant.operating_point
        defaults = {"conf": CONF, "iou": IOU, "max_det": MAX_DET}
        chosen = defaults | {name: point[name] for name in PARAMS if point.get(name) is not None} | given
        selection = Selection(
            conf=float(chosen["conf"]),
            iou=float(chosen["iou"]),
            max_det=int(chosen["max_det"]),
            per_class=None if "conf" in given else point.get("per_class"),
        )
        selection.thresholds(self._pipeline.variant.names)
        return selection


def to_table(found: Sequence[Detections], sizes: Sequence[tuple[int, int]], *, task: str) -> "pd.DataFrame":
    """Return detections of several images as one table; its columns are the same where nothing is found.

    Args:
        found: What is in each image.
        sizes: (height, width) of each original image, pixels.
        task: The model's.
    """
    import pandas as pd

    types = {"image": "int64", "class_id": "int64", "name": "object", "score": "float64"}
    if task != "classify":
        types |= dict.fromkeys(BOX_COLUMNS, "float64")
    if task == "segment":
        types[POLYGONS] = "object"
    tables = [_table(index, one, size) for index, (one, size) in enumerate(zip(found, sizes, strict=True))]
    whole = pd.concat(tables, ignore_index=True) if any(len(one) for one in tables) else pd.DataFrame(columns=[*types])
    return whole[[*types]].astype(types)


def _table(index: int, found: Detections, size: tuple[int, int]) -> "pd.DataFrame":
    frame = found.to_frame()
    frame.insert(0, "image", index)
    if found.masks is not None:
        frame[POLYGONS] = [[ring.tolist() for ring in rings] for rings in mask_outlines(found.masks, size)]
    return frame


def _range(start: int, end: int) -> range:
    return range(start, min(start + _BATCH, end))
