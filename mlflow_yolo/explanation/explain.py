"""Maps of what a model predicts in images: which pixels speak for a detection, a class, a side of a box or a mask."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.explanation.answers import batches, maps_of
from mlflow_yolo.explanation.exported import explain_export, exported_file, fetch_export
from mlflow_yolo.explanation.inputs import Picture, list_images
from mlflow_yolo.explanation.map import Map
from mlflow_yolo.explanation.network import open_model, predicting_with
from mlflow_yolo.explanation.question import Class, Objects, read_question
from mlflow_yolo.registry.address import is_model_uri

if TYPE_CHECKING:
    from ultralytics import YOLO

_LOG = logging.getLogger(__name__)


def explain(
    model: "str | Path | YOLO | nn.Module",
    images: Picture | Sequence[Picture],
    *,
    target: str | Sequence[Sequence[Target]] = "auto",
    method: str | None = None,
    block: int | Sequence[int] | None = None,
    classes: Class | Sequence[Class] | None = None,
    objects: Sequence[Objects] | Sequence[Class] | None = None,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    imgsz: int | None = None,
    branch: str = "auto",
    batch: int = 4,
    device: str = "auto",
    trust: bool = False,
) -> list[Map]:
    """Return maps of where in the images what the model predicts comes from.

    The detections are those of Ultralytics' `model.predict` with the same conf, iou, max_det and imgsz; of a
    segmentation model also those with an empty mask, which `predict` leaves out.

    Args:
        model: `digits`, a .pt path or name; or an Ultralytics `YOLO` or its network, which is left as it is. Of an
            .onnx file by Ultralytics, a variant's folder with one, or a registered version of it
            (`models:/cells@champion-cpu`), only `method="eigencam"` is possible: one map of
            every picture, which would be the same for every target.
        images: A path, folder, pattern, array (H, W) or (H, W, channels) uint8 in RGB order, PIL image, or a list.
        target: What is explained in each image:
            `detections`: the class of every detection (the default of a detector);
            `classes`: every class found, all its detections together; with `classes` those, found or not;
            `boxes`: the left, top, right and bottom side of every detection; `masks`: its mask;
            `contrast`: of every object taken for another class the true class, the predicted one and the difference,
            in logits on one scale; `missed`: the true class where an object was missed; both need `objects`;
            `predicted`: the class of the whole image (the default of a classifier; with `classes` those).
            Or for every image a list of targets from `mlflow_yolo.attribution.targets`, in pixels of its input.
        method: `layercam`, `hirescam`, `gradcam`, `gradcam++`, `xgradcam`, `eigencam` or `eigengradcam`. None for
            layercam; for hirescam with `contrast`; for the exact map of a classifier.
        block: The block or blocks to make the map at, negative from the end. None for the backbone's stage of the
            detection's level, or of a classifier its last one; where that has fewer than 16 cells, a finer one.
        classes: Classes to explain, ids or names; None for all.
        objects: For every image what is there: boxes and classes; of a classifier the true class.
        conf: Least confidence of a detection.
        iou: Overlap above which suppression drops the less confident of two boxes.
        max_det: Most detections an image.
        imgsz: Longer side of the network input, pixels; None for the size the model was trained with.
        branch: Of an end-to-end model `one2many` or `one2one`; `auto` for the one that `predict` uses.
        batch: Images at once; only those of one input size go together.
        device: Where a path is loaded to; `auto` for the first GPU if there is one.
        trust: Load a .pt file even when it names foreign classes.

    Returns:
        Maps in the order of the images, in each of falling confidence. An image in which nothing is detected has none,
        which is logged.

    Raises:
        CheckpointError: The model cannot be loaded, or is an export and so has no gradients for this method.
        ArgumentError: An image, target, method, block, class or branch that does not exist, or one that this model
            has no gradient for; the message names one that works.
    """
    if isinstance(model, str) and is_model_uri(model):
        model = fetch_export(model, method)
    export = exported_file(model)
    if export is not None:
        asked = {"target": None if target == "auto" else target, "classes": classes, "objects": objects}
        return explain_export(
            export, list_images(images), method=method, asked=asked, block=block, imgsz=imgsz, batch=batch
        )
    opened = open_model(model, device=device, trust=trust)
    pictures = list_images(images)
    question = read_question(
        opened,
        len(pictures),
        target=target,
        method=method,
        block=block,
        classes=classes,
        objects=objects,
        conf=conf,
        iou=iou,
        max_det=max_det,
    )
    maps: list[Map] = []
    with predicting_with(opened, branch) as ready:
        for inputs in batches(ready, pictures, imgsz=imgsz, size=max(1, batch)):
            for name, of_image in zip(inputs.names, maps_of(ready, question, inputs), strict=True):
                if not of_image:
                    _LOG.warning("%s: nothing to explain for target=%s at conf=%g.", name, question.word, conf)
                maps += of_image
    return maps
