"""Images to detections by any open model: preprocess, infer, postprocess, each to be timed by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.detection.boxes import Bools
from mlflow_yolo.exceptions import ArgumentError, CheckpointError, ShapeError
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.runtime.masks import input_masks, original_masks
from mlflow_yolo.runtime.postprocess import Found, Values, find, read_final, to_original
from mlflow_yolo.runtime.preprocess import Frame, letterbox, normalise, resize_and_crop, to_batch
from mlflow_yolo.runtime.selection import CONF, IOU, MAX_DET, Selection
from mlflow_yolo.runtime.session import Images, Outputs, Session, open_session
from mlflow_yolo.variant import Variant


class Pipeline:
    """A model that is open, with what turns images into its input and its output into detections.

    Attributes:
        variant: What the model is; `imgsz` is the size that it is run at.
        session: The open model.
    """

    def __init__(self, variant: Variant, session: Session) -> None:
        self.variant = variant
        self.session = session

    def preprocess(self, images: Sequence[Pixels]) -> tuple[Images, list[Frame]]:
        """Return the model's input for images as `read_image` gives them, and where each lies in it.

        Args:
            images: Each (H, W, C), 8 bits, BGR, of any size.

        Returns:
            (N, C, height, width) float32, and N frames.

        Raises:
            ArgumentError: There is no image, or one has another number of channels than the model takes.
        """
        if not len(images):
            raise ArgumentError("images is empty: there is nothing to detect in. Pass one image or more.")
        for image in images:
            if image.ndim != 3 or image.shape[2] != self.variant.channels:
                raise ArgumentError(
                    f"an image has shape {image.shape}, but the model takes {self.variant.channels} channels. "
                    "Read it with read_image."
                )
        if self.variant.task == "classify":
            how = str(self.variant.transform.get("interpolation", "bilinear"))
            cropped = [resize_and_crop(image, self.variant.imgsz, interpolation=how) for image in images]
            frames = [Frame(image.shape[0], image.shape[1], self.variant.imgsz, 0, 0) for image in images]
            return normalise(to_batch(cropped), self.variant.transform), frames
        placed = [letterbox(image, self.variant.imgsz) for image in images]
        return to_batch([pixels for pixels, _ in placed]), [frame for _, frame in placed]

    def infer(self, batch: Images) -> Outputs:
        """Return the model's outputs for any number of images, each output (N, ...).

        A model of fixed batch size is run as often as needed, its last batch filled up with black.
        """
        size = self.session.batch or len(batch)
        parts = [self._run(batch[start : start + size], size) for start in range(0, len(batch), size)]
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def postprocess(
        self,
        outputs: Outputs,
        frames: Sequence[Frame],
        *,
        conf: float = CONF,
        iou: float = IOU,
        max_det: int = MAX_DET,
        per_class: Mapping[str | int, float] | None = None,
        multi_label: bool = False,
        agnostic: bool = False,
        clip: bool = True,
        masks: bool = True,
        retina_masks: bool = False,
    ) -> list[Detections]:
        """Return the detections of each image; of a classifier, the probabilities.

        Args:
            outputs: What `infer` returned.
            frames: What `preprocess` returned.
            conf: See `Selection`, as for the next five.
            iou: See `Selection`.
            max_det: See `Selection`.
            per_class: See `Selection`.
            multi_label: See `Selection`.
            agnostic: See `Selection`.
            clip: Move boxes into the image.
            masks: Make the masks of a segmentation model. As in Ultralytics' predict, a detection whose mask is empty
                is dropped then.
            retina_masks: Make them in the frame of the original image instead of the model's input.

        Raises:
            ArgumentError: A value is out of its range, or `per_class` names a class that is not there.
            CheckpointError: The outputs are not those of the task and class names that the file speaks of.
        """
        selection = Selection(conf, iou, max_det, per_class, multi_label, agnostic)
        thresholds = selection.thresholds(self.variant.names)
        if self.variant.task == "classify":
            return [self._classified(probabilities) for probabilities in outputs[0]]
        detections = []
        for index, frame in enumerate(frames):
            found = self._find(outputs[0][index], thresholds, selection)
            boxes = to_original(found.boxes, frame, clip=clip)
            drawn = None
            if masks and self.variant.task == "segment":
                drawn = self._draw(outputs, index, found, boxes, frame, original=retina_masks)
                seen = np.asarray(drawn.any(axis=(1, 2)))
                found, boxes, drawn = found.at(seen), boxes[seen], drawn[seen]
            detections.append(
                Detections(
                    boxes=boxes.astype(np.float64),
                    scores=found.scores.astype(np.float64),
                    classes=found.classes,
                    names=self.variant.names,
                    masks=drawn,
                )
            )
        return detections

    def __call__(self, images: Sequence[Pixels], **selection: Any) -> list[Detections]:
        """Return the detections of each image; see `preprocess` for the images and `postprocess` for the rest."""
        batch, frames = self.preprocess(images)
        return self.postprocess(self.infer(batch), frames, **selection)

    def warm_up(self, runs: int = 1) -> None:
        """Run the model on black images, so that the first real one finds memory and kernels ready.

        Raises:
            CheckpointError: The outputs are not those of the task and class names that the file speaks of.
        """
        black = np.zeros((*self.variant.imgsz, self.variant.channels), dtype=np.uint8)
        for _ in range(runs):
            self([black])

    def _run(self, batch: Images, size: int) -> Outputs:
        missing = size - len(batch)
        if not missing:
            return self.session.run(batch)
        black = np.zeros((missing, *batch.shape[1:]), dtype=batch.dtype)
        return tuple(output[: len(batch)] for output in self.session.run(np.concatenate([batch, black])))

    def _find(self, prediction: Values, thresholds: Values, selection: Selection) -> Found:
        try:
            if self.variant.end2end:
                return read_final(prediction, thresholds, max_det=selection.max_det)
            found = find(
                prediction,
                thresholds,
                iou=selection.iou,
                max_det=selection.max_det,
                multi_label=selection.multi_label,
                agnostic=selection.agnostic,
            )
        except ShapeError as error:
            raise CheckpointError(f"{self.variant.file}: {error}") from error
        if self.variant.task == "detect" and found.extra.shape[1]:
            raise self._misnamed(len(prediction) - 4)
        return found

    def _draw(
        self, outputs: Outputs, index: int, found: Found, boxes: Values, frame: Frame, *, original: bool
    ) -> Bools:
        """Return the masks of one image's detections, in the frame of the original image or of the model's input."""
        if len(outputs) < 2 or outputs[1].ndim != 4 or outputs[1].shape[1] != found.extra.shape[1]:
            n_prototypes = outputs[1].shape[1] if len(outputs) > 1 else 0
            raise CheckpointError(
                f"{self.variant.file} has {found.extra.shape[1]} mask values a box beside {len(self.variant.names)} "
                f"classes, but {n_prototypes} prototypes. Export it again."
            )
        if original:
            return original_masks(outputs[1][index], found.extra, boxes, (frame.height, frame.width))
        return input_masks(outputs[1][index], found.extra, found.boxes, self.variant.imgsz)

    def _classified(self, probabilities: Values) -> Detections:
        if probabilities.shape != (len(self.variant.names),):
            raise self._misnamed(probabilities.size)
        return Detections(
            boxes=np.zeros((0, 4)),
            scores=np.zeros(0),
            classes=np.zeros(0, dtype=np.int64),
            names=self.variant.names,
            probabilities=probabilities.astype(np.float64),
        )

    def _misnamed(self, n_classes: int) -> CheckpointError:
        n_names = len(self.variant.names)
        return CheckpointError(f"{self.variant.file} has {n_classes} classes, but {n_names} names. Export it again.")


def open_pipeline(
    path: str | Path, *, threads: int | None = None, imgsz: int | tuple[int, int] | None = None
) -> Pipeline:
    """Return the open model of a variant or of an export by Ultralytics.

    Args:
        path: See `describe`.
        threads: Threads that compute one image; None leaves it to the runtime.
        imgsz: Size to run it at, (height, width) or the side of a square, pixels; None for its own. Only a model of
            free size takes another.

    Raises:
        CheckpointError: The file is missing, damaged, or not what it says.
        ArgumentError: The model does not take `imgsz`, or `threads` is below 1.
    """
    file, variant = describe(Path(path))
    if imgsz is not None:
        variant = replace(variant, imgsz=_check_imgsz(imgsz, variant))
    return Pipeline(variant, open_session(file, variant, threads=threads))


def _check_imgsz(imgsz: int | tuple[int, int], variant: Variant) -> tuple[int, int]:
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if (height, width) == variant.imgsz:
        return variant.imgsz
    if not variant.dynamic:
        own = "x".join(map(str, variant.imgsz))
        raise ArgumentError(f"imgsz={height}x{width}, but {variant.file} is made for {own}. Export it at that size.")
    if min(height, width) < 1 or height % variant.stride or width % variant.stride:
        raise ArgumentError(f"imgsz={height}x{width} is no multiple of the stride. Use multiples of {variant.stride}.")
    return height, width
