"""The maps of one batch of pictures of one size: from the question to what the user gets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mlflow_yolo.attribution.cam import METHODS, Method
from mlflow_yolo.attribution.capture import Pass, forward
from mlflow_yolo.attribution.class_maps import LEAST_CELLS, watch_classifier
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.layers import Layers
from mlflow_yolo.attribution.localisation import localise
from mlflow_yolo.attribution.maps import TargetMap, map_targets
from mlflow_yolo.attribution.outputs import DetectionOutputs, Outputs
from mlflow_yolo.attribution.targets import ImageLogit
from mlflow_yolo.detection.boxes import clip
from mlflow_yolo.explanation.choices import OF_DETECTOR, Choice, Scene, of_classifier, of_user
from mlflow_yolo.explanation.detections import Detections, suppressed
from mlflow_yolo.explanation.inputs import network_input, read_images
from mlflow_yolo.explanation.map import Map
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.question import Question

EXACT = Method("cam", METHODS["hirescam"].make, is_signed=True)
"""The closed form of a classifier's maps; named here, made by `class_maps`."""

Choices = list[list[Choice]]


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one input size.

    Attributes:
        indices: Their positions among all pictures.
        names: Their names.
        frames: Where each lies in its input.
        tensor: (B, channels, h, w) on the network's device.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    frames: tuple[Frame, ...]
    tensor: Tensor


def batches(
    model: ExplainedModel, pictures: Sequence[Path | npt.NDArray[Any] | Image.Image], *, imgsz: int | None, size: int
) -> Iterator[Batch]:
    """Yield the pictures in their order, neighbours of one input size together, at most `size` at once."""
    waiting: list[tuple[int, str, Frame, Tensor]] = []
    for index, (name, picture) in enumerate(read_images(pictures, channels=model.channels)):
        tensor, frame = network_input(picture, model, imgsz, square=False)
        if waiting and (len(waiting) == size or waiting[0][3].shape != tensor.shape):
            yield _stacked(model, waiting)
            waiting = []
        waiting.append((index, name, frame, tensor))
    if waiting:
        yield _stacked(model, waiting)


def maps_of(model: ExplainedModel, question: Question, batch: Batch) -> list[list[Map]]:
    """Return the maps of every picture of a batch, in the order of its targets.

    Raises:
        ArgumentError: A target that the model does not have, or without a gradient at the blocks asked for.
    """
    if model.task == "classify" and not (question.method or question.blocks or question.own):
        made = _exact(model, question, batch)
        if made is not None:
            return made
    chosen: Choices = []

    def choose(outputs: Outputs, decoded: Any) -> list[list[Any]]:
        chosen.extend(_choices(model, question, batch, Pass(outputs, decoded, {})))
        return [[choice.target for choice in of_image] for of_image in chosen]

    method = question.method_of_detector()
    found = map_targets(
        model.network,
        batch.tensor,
        choose,
        method=method,
        layers=fine_enough(model.layers, batch.tensor.shape[-2:]),
        blocks=question.blocks,
        strict=bool(question.blocks),
    )
    return _maps(model, batch, chosen, found, method)


def fine_enough(layers: Layers, size: Sequence[int]) -> Layers:
    """Return the layers with another default for levels whose map would have fewer than 16 cells.

    Args:
        layers: The model's blocks.
        size: (height, width) of the input, pixels.

    Returns:
        The coarsest of the other levels' defaults that has enough, else the deepest block that has.
    """
    height, width = int(size[0]), int(size[1])
    cells = {
        block: -(-height // layers.strides[block]) * -(-width // layers.strides[block]) for block in layers.by_level
    }
    is_fine = {block: n >= LEAST_CELLS for block, n in cells.items()}
    fine = [block for block in layers.by_level if is_fine[block]]
    instead = fine[-1] if fine else layers.deepest_with(LEAST_CELLS, (height, width))
    return replace(layers, by_level=tuple(block if is_fine[block] else instead for block in layers.by_level))


def _choices(model: ExplainedModel, question: Question, batch: Batch, run: Pass) -> Choices:
    if question.word == "own":
        return [[of_user(target) for target in question.own[index]] for index in batch.indices]
    if not isinstance(run.outputs, DetectionOutputs):
        return _of_classifier(model, question, batch, run.outputs.logits)
    found = suppressed(model, run, question.conf, question.iou, question.max_det)
    scenes = [_scene(model, question, batch, run.outputs, row, of_image) for row, of_image in enumerate(found)]
    return [OF_DETECTOR[question.word](scene) for scene in scenes]


def _scene(
    model: ExplainedModel, question: Question, batch: Batch, outputs: DetectionOutputs, row: int, found: Detections
) -> Scene:
    boxes = np.zeros((0, 4)) if question.boxes is None else question.boxes[batch.indices[row]]
    true = np.zeros(0, dtype=np.int64) if question.true is None else question.true[batch.indices[row]]
    return Scene(outputs, row, found, model.names, question.classes, batch.frames[row].to_input(boxes), true)


def _of_classifier(model: ExplainedModel, question: Question, batch: Batch, logits: Tensor) -> Choices:
    probabilities = logits.detach().softmax(1).double().cpu().numpy()
    true = [None if question.true is None else int(question.true[index][0]) for index in batch.indices]
    return [
        of_classifier(question.word, of_image, model.names, question.classes, wanted)
        for of_image, wanted in zip(probabilities, true, strict=True)
    ]


def _exact(model: ExplainedModel, question: Question, batch: Batch) -> list[list[Map]] | None:
    """Return the maps in closed form, or None where the last grid is too coarse to show anything."""
    block = model.layers.by_level[-1]
    if fine_enough(model.layers, batch.tensor.shape[-2:]).by_level[-1] != block:
        return None
    with (
        watch_classifier(model.network) as features,
        forward(model.network, batch.tensor, [block], needs_gradient=False) as run,
    ):
        logits = run.outputs.logits
        chosen = _of_classifier(model, question, batch, logits)
        every = features.maps().float()
    found = []
    for row, of_image in enumerate(chosen):
        maps = [_exact_map(choice, every[row], logits[row], len(model.layers.strides) - 1) for choice in of_image]
        found.append(maps)
    return _maps(model, batch, chosen, found, EXACT)


def _exact_map(choice: Choice, every: Tensor, logits: Tensor, block: int) -> TargetMap:
    target = choice.target
    assert isinstance(target, ImageLogit)
    values, score = every[target.class_id], logits[target.class_id]
    if target.against is not None:
        values, score = values - every[target.against], score - logits[target.against]
    return TargetMap(target, values.cpu(), (block,), float(score))


def _maps(
    model: ExplainedModel, batch: Batch, chosen: Choices, found: Sequence[Sequence[TargetMap]], method: Method
) -> list[list[Map]]:
    return [
        [_map(model, name, frame, choice, made, method) for choice, made in zip(choices, maps, strict=True)]
        for name, frame, choices, maps in zip(batch.names, batch.frames, chosen, found, strict=True)
    ]


def _map(model: ExplainedModel, name: str, frame: Frame, choice: Choice, made: TargetMap, method: Method) -> Map:
    height, width = frame.original
    values = frame.cut(made.values.numpy())
    grid = (values.shape[0], values.shape[1])
    box = None if choice.box is None else clip(frame.to_original(choice.box[None]), width=width, height=height)[0]
    return Map(
        image=name,
        values=values,
        target=choice.words,
        class_id=choice.class_id,
        class_name="" if choice.class_id is None else model.names[choice.class_id],
        score=made.score,
        conf=choice.conf if choice.is_detected else float(torch.tensor(made.score, dtype=torch.float64).sigmoid()),
        box=box,
        method=method.name,
        blocks=made.blocks,
        unit=choice.unit if method.is_signed else "relative",
        signed=method.is_signed,
        is_detected=choice.is_detected,
        localisation=localise(np.maximum(values, 0), choice.region.coverage(frame, grid)) if choice.region else None,
    )


def _stacked(model: ExplainedModel, waiting: Sequence[tuple[int, str, Frame, Tensor]]) -> Batch:
    indices, names, frames, tensors = zip(*waiting, strict=True)
    return Batch(indices, names, frames, torch.stack(tensors).to(model.device))
