"""A deployable file that takes an image and returns what is in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Source, read_image
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.runtime.selection import CONF, IOU, MAX_DET, Selection


class Detector:
    """A variant that takes images and returns detections, with neither torch nor Ultralytics.

        detector = Detector("out/int8-onnx", threads=1)
        found = detector("street.jpg")
        found.to_frame()

    Letterbox, suppression and masks are Ultralytics' own, so that the same file gives the same detections as
    `YOLO(file).predict(image)`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        per_class: Mapping[str | int, float] | None = None,
        threads: int | None = None,
        retina_masks: bool = False,
    ) -> None:
        """Open a model and run it once on a black image.

        Args:
            path: A variant's folder, its `variant.json` or its file, or an .onnx file or `*_openvino_model` folder
                that Ultralytics exported.
            conf: Score that a detection is above; None for the variant's operating point, or .25. Given, it holds for
                all classes: the operating point's own scores for single classes are left out.
            iou: Largest overlap of two detections of one class; None for the operating point, or .7.
            max_det: Largest number of detections an image; None for the operating point, or 300.
            per_class: Scores for single classes, by name or id, instead of `conf`; None for the operating point's.
            threads: Threads that compute one image; None leaves it to the runtime.
            retina_masks: Make masks in the frame of the original image instead of the model's input.

        Raises:
            CheckpointError: The file is missing, damaged, changed, or not what it says.
            ArgumentError: A value is out of its range, or `per_class` names a class that is not there.
        """
        self._pipeline = open_pipeline(path, threads=threads)
        point = self._pipeline.variant.operating_point
        if per_class is None and conf is None:
            per_class = point.get("per_class")
        self._selection = Selection(
            conf=_first(conf, point.get("conf"), CONF),
            iou=_first(iou, point.get("iou"), IOU),
            max_det=int(_first(max_det, point.get("max_det"), MAX_DET)),
            per_class=per_class,
        )
        self._selection.thresholds(self.names)
        self._retina_masks = retina_masks
        self._pipeline.warm_up()

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by id."""
        return self._pipeline.variant.names

    @property
    def task(self) -> str:
        """`detect`, `segment` or `classify`."""
        return self._pipeline.variant.task

    @overload
    def __call__(self, images: Source) -> Detections: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Detections]: ...

    def __call__(self, images: Source | list[Any] | tuple[Any, ...]) -> Detections | list[Detections]:
        """Return what is in an image, or for a list or tuple of images a list of as many.

        Args:
            images: A path, an image file's bytes, an array or a PIL image (see `read_image`), or a list of them, which
                is run as one batch where the model takes one.

        Raises:
            ArgumentError: An image cannot be read, has other channels than the model takes, or the list is empty.
        """
        sources = images if isinstance(images, list | tuple) else [images]
        pixels = [read_image(image, channels=self._pipeline.variant.channels) for image in sources]
        found = self._pipeline(
            pixels,
            conf=self._selection.conf,
            iou=self._selection.iou,
            max_det=self._selection.max_det,
            per_class=self._selection.per_class,
            retina_masks=self._retina_masks,
        )
        return found if isinstance(images, list | tuple) else found[0]


def _first(*values: float | None) -> float:
    """Return the first value that is given."""
    return next(value for value in values if value is not None)
