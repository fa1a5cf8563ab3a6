"""Where the model looks on watched images: one forward pass a batch, and for detectors a backward pass a level."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.capture import at_rest
from mlflow_yolo.attribution.class_maps import LEAST_CELLS, watch_classifier
from mlflow_yolo.attribution.layers import Layers
from mlflow_yolo.attribution.localisation import Localisation, localise
from mlflow_yolo.attribution.maps import map_targets
from mlflow_yolo.attribution.masks import box_mask, polygon_mask
from mlflow_yolo.attribution.outputs import DetectionOutputs, Outputs
from mlflow_yolo.attribution.targets import ImageLogit
from mlflow_yolo.tracking.maps.objects import ClassesAt, best_anchors
from mlflow_yolo.tracking.maps.watched import Watched

BATCH = 4
METHOD = METHODS["layercam"]

Map = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ExplainedObjects:
    """What a detector sees of the objects of one image.

    Attributes:
        watched: The image.
        map: (h, w) >= 0, covers exactly the picture; arbitrary unit.
        scores: (N,) probability of each object's class at its best anchor.
    """

    watched: Watched
    map: Map
    scores: npt.NDArray[np.float32]

    def localisation(self) -> Localisation:
        """Return how well the map lies on the explained objects."""
        # Boxes and outlines are fractions of the picture, so the frame is one by one.
        if self.watched.outlines:
            mask = polygon_mask(self.watched.outlines, size=(1, 1), grid=self.map.shape)
        else:
            mask = box_mask(self.watched.boxes, size=(1, 1), grid=self.map.shape)
        return localise(self.map, mask)


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """What a classifier sees in one image.

    Attributes:
        watched: The image.
        predicted: The class it takes it for.
        maps: (h, w) of the true and of the predicted class, covering the picture.
        is_signed: Whether the maps are in logits, with what speaks against a class below 0.
        probabilities: Of the true and of the predicted class.
    """

    watched: Watched
    predicted: int
    maps: tuple[Map, Map]
    is_signed: bool
    probabilities: tuple[float, float]


def explain_objects(
    network: nn.Module, layers: Layers, images: Sequence[Watched], device: Any
) -> Iterator[ExplainedObjects]:
    """Yield the maps of the labelled objects of images.

    Args:
        network: A detection, segmentation, pose or rotated-box model; left as it was.
        layers: Its blocks.
        images: Of whatever sizes; those of one size that follow one another go through the model together.
        device: Where the model is.

    Raises:
        ArgumentError: A model without class logits for its anchors.
    """
    for batch in _batches(images):
        scores: list[Tensor] = []

        def choose(outputs: Outputs, decoded: Any, of: Sequence[Watched] = batch, seen: list[Tensor] = scores) -> Any:
            targets = [_target(outputs, i, watched, device) for i, watched in enumerate(of)]
            assert isinstance(outputs, DetectionOutputs)
            seen += [outputs.logits[i, at.classes, at.anchors].detach().sigmoid() for i, at in enumerate(targets)]
            return [[target] for target in targets]

        inputs = torch.stack([watched.input.tensor(device) for watched in batch])
        found = map_targets(network, inputs, choose, method=METHOD, layers=layers, strict=False)
        for watched, (one,), score in zip(batch, found, scores, strict=True):
            values = watched.input.frame.cut(one.values.numpy())
            yield ExplainedObjects(watched, values, score.float().cpu().numpy())


def _target(outputs: Outputs, image: int, watched: Watched, device: Any) -> ClassesAt:
    boxes = torch.from_numpy(watched.input_boxes.astype(np.float32)).to(device)
    return best_anchors(outputs, image, boxes, torch.from_numpy(watched.classes).to(device))


def explain_images(
    network: nn.Module, layers: Layers, images: Sequence[Watched], device: Any
) -> Iterator[ExplainedImage]:
    """Yield the maps of the true and the predicted class of images.

    Exact contributions to the logits, without a gradient; where the last grid has too few cells to show anything,
    LayerCAM at the deepest block that has enough.

    Args:
        network: A classifier; left as it was.
        layers: Its blocks.
        images: All of one size.
        device: Where the model is.
    """
    for batch in _batches(images):
        inputs = torch.stack([watched.input.tensor(device) for watched in batch])
        true = torch.tensor([int(watched.classes[0]) for watched in batch], device=device)
        with torch.inference_mode(False), torch.no_grad(), at_rest(network), watch_classifier(network) as seen:
            probabilities, logits = network(inputs)
        classes = torch.stack((true, logits.argmax(1)), dim=1)
        maps, is_signed = seen.maps(classes).float().cpu(), True
        if maps.shape[2] * maps.shape[3] < LEAST_CELLS:
            maps, is_signed = _layer_cams(network, layers, inputs, classes), False
        shares = probabilities.gather(1, classes).float().cpu().tolist()
        for i, watched in enumerate(batch):
            pair = (maps[i, 0].numpy(), maps[i, 1].numpy())
            yield ExplainedImage(watched, int(classes[i, 1]), pair, is_signed, (shares[i][0], shares[i][1]))


def _layer_cams(network: nn.Module, layers: Layers, inputs: Tensor, classes: Tensor) -> Tensor:
    """Return (B, 2, h, w) of the two classes of each image."""
    block = layers.deepest_with(LEAST_CELLS, (int(inputs.shape[2]), int(inputs.shape[3])))
    targets = [[ImageLogit(c) for c in pair] for pair in classes.tolist()]
    found = map_targets(
        network, inputs, lambda outputs, decoded: targets, method=METHOD, layers=layers, blocks=[block], strict=False
    )
    return torch.stack([torch.stack([one.values for one in of]) for of in found])


def _batches(images: Sequence[Watched]) -> Iterator[list[Watched]]:
    """Yield images of one size, at most four at a time."""
    ordered = sorted(images, key=lambda watched: tuple(watched.input.pixels.shape))
    for _, group in groupby(ordered, key=lambda watched: tuple(watched.input.pixels.shape)):
        same = list(group)
        yield from (same[i : i + BATCH] for i in range(0, len(same), BATCH))
