"""Which validation images a training is watched on.

They are chosen from the labels alone. A choice by what the model gets wrong would be another one in every run, and the
same place in the image grid would compare different pictures; so the hardest image is the one whose labels say so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo import keys
from mlflow_yolo.detection.boxes import iou

MOST_IMAGES = 12
EXTREMES = ("hardest", "median", "easiest")


@dataclass(frozen=True, eq=False)
class Labels:
    """The labelled objects of one image.

    Attributes:
        name: The image's file; tells images apart and orders those that are equally hard.
        classes: (N,) class ids; of a classifier's image its one class.
        boxes: (N, 4) xyxy, fractions of the image; (0, 4) for a classifier.
        outlines: For each object the polygon (K, 2) around it, fractions of the image; empty with boxes only.
    """

    name: str
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    outlines: tuple[npt.NDArray[Any], ...] = field(default=())


@dataclass(frozen=True)
class Chosen:
    """One image that is watched.

    Attributes:
        key: Its name in the image grid, the same in every run on the same data: `cam/04-RBC`.
        title: Why it was chosen, in a word: `hardest`, or the class.
        image: Its position in the dataset.
        class_id: The class whose objects are explained; None for all of them.
    """

    key: str
    title: str
    image: int
    class_id: int | None


def difficulty(labels: Labels) -> float:
    """Return how hard an image is by its labels: many, small and overlapping objects make it hard.

    Each object counts 1 - sqrt(area), and up to twice that by its largest IoU with another one; the counts are summed.

    Returns:
        At least 0, and below 2 for each object; 0.0 without boxes.

    Source: ours.
    """
    boxes = labels.boxes
    if not len(boxes):
        return 0.0
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, 1.0)
    overlaps = iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0.0)
    return float(((1 - np.sqrt(sides.prod(1))) * (1 + overlaps.max(1))).sum())


def choose_images(labels: Sequence[Labels], names: Mapping[int, str]) -> list[Chosen]:
    """Return the images to watch: the hardest, the median and the easiest, then one for each class; at most 12.

    Of more classes than there is room for, those with the most objects. A class is shown on the image of median
    difficulty among those that hold it and show nothing else yet; without any such image, among all that hold it. A
    classifier's images have no difficulty: they are chosen by class only, in the middle by file.

    Args:
        labels: Of every image of the split, in the dataset's order, which has no influence.
        names: Class names by id.

    Returns:
        In the order of their keys; empty where nothing is labelled.
    """
    difficulties = {i: difficulty(of) for i, of in enumerate(labels) if len(of.classes)}
    order = sorted(difficulties, key=lambda i: (difficulties[i], labels[i].name))
    chosen = _extremes([i for i in order if len(labels[i].boxes)])
    counts = Counter(int(c) for i in order for c in labels[i].classes)
    ranked = sorted(counts, key=lambda c: (-counts[c], c))[: MOST_IMAGES - len(chosen)]
    holding = {c: [i for i in order if c in labels[i].classes] for c in ranked}
    taken = {one.image for one in chosen}
    of_class = {}
    for c in sorted(ranked, key=lambda c: (len(holding[c]), c)):  # the rarest first: it has the least to choose from
        of_class[c] = _middle([i for i in holding[c] if i not in taken] or holding[c])
        taken.add(of_class[c])
    for number, c in enumerate(sorted(of_class), start=len(EXTREMES) + 1 if chosen else 1):
        name = str(names.get(c, c))
        chosen.append(Chosen(f"cam/{number:02}-{keys.segment(name)}", name, of_class[c], c))
    return chosen


def _extremes(order: Sequence[int]) -> list[Chosen]:
    """Return the last, the middle and the first of the images, each image once."""
    if not order:
        return []
    images = dict(zip(EXTREMES, (order[-1], _middle(order), order[0]), strict=True))
    first = {image: title for title, image in reversed(images.items())}
    return [
        Chosen(f"cam/{number:02}-{title}", title, image, None)
        for number, (title, image) in enumerate(images.items(), start=1)
        if first[image] == title
    ]


def _middle(order: Sequence[int]) -> int:
    return order[(len(order) - 1) // 2]
