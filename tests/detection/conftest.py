"""Random images with detections that are partly right, for comparison with independent implementations."""

from collections.abc import Callable

import numpy as np
import pytest

from mlflow_yolo.detection.samples import Sample


def _random_boxes(rng: np.random.Generator, n: int, *, whole: bool) -> np.ndarray:
    corner = rng.uniform(0, 400, (n, 2))
    size = np.exp(rng.uniform(np.log(8), np.log(220), (n, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1)
    return np.round(boxes) if whole else boxes


def _random_sample(
    rng: np.random.Generator, name: str, *, n_classes: int, n_objects: int, n_detections: int, whole: bool
) -> Sample:
    gt_boxes = _random_boxes(rng, n_objects, whole=whole)
    gt_classes = rng.integers(0, n_classes, n_objects)
    boxes = _random_boxes(rng, n_detections, whole=whole)
    classes = rng.integers(0, n_classes, n_detections)
    if n_objects:
        # Two in three are a moved copy of an object, most of them with its class.
        source = rng.integers(0, n_objects, n_detections)
        size = np.tile(gt_boxes[:, 2:] - gt_boxes[:, :2], 2)[source]
        moved = gt_boxes[source] + rng.normal(0, 0.08, (n_detections, 4)) * size
        near = rng.random(n_detections) < 2 / 3
        boxes[near] = (np.round(moved) if whole else moved)[near]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.where(near & (rng.random(n_detections) < 0.8), gt_classes[source], classes)
    return Sample(name, 640, 640, gt_boxes, gt_classes, boxes, rng.random(n_detections), classes)


@pytest.fixture
def random_samples() -> Callable[..., list[Sample]]:
    """Return a function that makes images; every fifth has no object, every seventh no detection."""

    def make(
        seed: int, n_images: int, *, n_classes: int = 3, n_objects: int = 6, n_detections: int = 20, whole: bool = False
    ) -> list[Sample]:
        rng = np.random.default_rng(seed)
        return [
            _random_sample(
                rng,
                f"{index}.jpg",
                n_classes=n_classes,
                n_objects=0 if index % 5 == 4 else int(rng.integers(1, n_objects + 1)),
                n_detections=0 if index % 7 == 6 else n_detections,
                whole=whole,
            )
            for index in range(n_images)
        ]

    return make


@pytest.fixture
def one_image() -> Callable[..., Sample]:
    """Return a function that makes an image from lists: objects [(box, class)], detections [(box, score, class)]."""

    def make(objects: list, detections: list, image: str = "a.jpg") -> Sample:
        return Sample(
            image=image,
            height=500,
            width=500,
            gt_boxes=np.array([box for box, _ in objects], dtype=float).reshape(-1, 4),
            gt_classes=np.array([class_id for _, class_id in objects], dtype=np.int64),
            boxes=np.array([box for box, _, _ in detections], dtype=float).reshape(-1, 4),
            scores=np.array([score for _, score, _ in detections], dtype=float),
            classes=np.array([class_id for _, _, class_id in detections], dtype=np.int64),
        )

    return make
