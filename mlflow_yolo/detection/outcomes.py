"""What became of every detection and of every object of a split at one confidence.

Within an image the detections choose in the order of their scores: each takes the free object of its class that it
overlaps most. What stays without an object is an error, and TIDE's rules say of which kind; the first that holds names
it:

1. LOC: it overlaps an object of its class, but too little.
2. CLS: it lies on an object of another class.
3. DUPE: it lies on an object of its class that a better detection has taken.
4. BKG: it overlaps nothing.
5. BOTH: what remains: wrong class and too little overlap.

An object is missed where no detection found it and none of kind CLS or LOC would, if it were corrected.

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors (ECCV 2020), section 2.2. The
order of the rules, and of ties, is that of tidecv 1.0.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mlflow_yolo.detection.boxes import Bools, Floats, Ints, areas
from mlflow_yolo.detection.pairs import Pairs, overlapping_pairs
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError


class Kind(IntEnum):
    """What a detection is."""

    RIGHT = 0
    CLS = 1
    LOC = 2
    BOTH = 3
    DUPE = 4
    BKG = 5


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Detections sorted by image, then by falling score (ties: their order in the sample); objects by image.

    Attributes:
        image: (N,) index of the image.
        row: (N,) index of the detection in its sample.
        class_id: (N,) predicted class.
        conf: (N,) confidence.
        area: (N,) square pixels.
        kind: (N,) a `Kind`.
        object: (N,) index among the M objects: the one found, misnamed, missed by a margin, taken, or for BOTH the one
            that it overlaps most; -1 for BKG.
        iou: (N,) overlap with that object; 0 for BKG.
        gt_image: (M,) index of the image.
        gt_row: (M,) index of the object in its sample.
        gt_class: (M,) true class.
        gt_area: (M,) square pixels.
        found: (M,) a detection of its class has it.
        rescuer: (M,) of an object that was not found, the highest scoring detection of kind CLS or LOC on it, else -1.
    """

    image: Ints
    row: Ints
    class_id: Ints
    conf: Floats
    area: Floats
    kind: Ints
    object: Ints
    iou: Floats
    gt_image: Ints
    gt_row: Ints
    gt_class: Ints
    gt_area: Floats
    found: Bools
    rescuer: Ints

    @property
    def right(self) -> Bools:
        """(N,) whether each detection is right."""
        return np.asarray(self.kind == Kind.RIGHT)

    @property
    def missed(self) -> Bools:
        """(M,) whether each object was neither found nor the object of a CLS or LOC error."""
        return ~self.found & (self.rescuer < 0)


def find_outcomes(
    samples: Sequence[Sample],
    *,
    n_classes: int,
    conf: float = 0.0,
    t_foreground: float = 0.5,
    t_background: float = 0.1,
    max_det: int | None = None,
) -> Outcomes:
    """Return what became of the detections with at least `conf`, and of all objects.

    Args:
        samples: The images; a detection whose score is nan does not count.
        n_classes: Number of classes.
        conf: Detections below this score are left out.
        t_foreground: IoU from which a detection has found an object.
        t_background: IoU up to which it overlaps nothing.
        max_det: Detections per image that count, the highest scoring ones of all classes together; None for all.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1, or not 0 < t_background < t_foreground <= 1.
    """
    if not 0 < t_background < t_foreground <= 1:
        raise ArgumentError(
            f"t_background={t_background} and t_foreground={t_foreground} leave no room between them: "
            "use 0 < t_background < t_foreground <= 1, such as 0.1 and 0.5."
        )
    image, row = _places([len(s.scores) for s in samples])
    score, class_id = _joined([s.scores for s in samples]), _classes([s.classes for s in samples], n_classes)
    order = _ranked(image, score, conf, max_det)
    image, row, class_id, score = image[order], row[order], class_id[order], score[order]
    boxes = _boxes([s.boxes for s in samples])[order]
    gt_image, gt_row = _places([len(s.gt_boxes) for s in samples])
    gt_class, gt_boxes = _classes([s.gt_classes for s in samples], n_classes), _boxes([s.gt_boxes for s in samples])

    pairs = overlapping_pairs(boxes, image, gt_boxes, gt_image, least=t_background)
    same = class_id[pairs.detection] == gt_class[pairs.object]
    taken = match_in_turn(pairs.only(same & (pairs.iou >= t_foreground)), len(image), len(gt_image))
    found = np.zeros(len(gt_image), dtype=np.bool_)
    found[taken[taken >= 0]] = True
    kind, of_object, overlap = _kinds(pairs, same, taken, t_foreground, t_background)
    return Outcomes(
        image=image,
        row=row,
        class_id=class_id,
        conf=score,
        area=areas(boxes),
        kind=kind,
        object=of_object,
        iou=overlap,
        gt_image=gt_image,
        gt_row=gt_row,
        gt_class=gt_class,
        gt_area=areas(gt_boxes),
        found=found,
        rescuer=_rescuers(kind, of_object, found),
    )


def match_in_turn(pairs: Pairs, n_detections: int, n_objects: int) -> Ints:
    """Return the object (N,) that each detection takes, or -1: the first detections choose first, the best overlap.

    Args:
        pairs: The pairs that may match.
        n_detections: N.
        n_objects: Objects; each is taken at most once.
    """
    # Plain lists: one pass over the few pairs that overlap is faster than the turns of numpy.
    taken, free = [-1] * n_detections, [True] * n_objects
    for detection, gt in zip(pairs.detection.tolist(), pairs.object.tolist(), strict=True):
        if free[gt] and taken[detection] < 0:
            taken[detection], free[gt] = gt, False
    return np.array(taken, dtype=np.int64)


def _kinds(
    pairs: Pairs, same: Bools, taken: Ints, t_foreground: float, t_background: float
) -> tuple[Ints, Ints, Floats]:
    """Return kind, object and IoU (N,) of each detection; `same` (P,) marks the pairs of one class."""
    n = len(taken)
    own, own_iou = pairs.only(same).best(n)
    other, other_iou = pairs.only(~same).best(n)
    nearest, nearest_iou = pairs.best(n)
    taken_iou = pairs.only(taken[pairs.detection] == pairs.object).best(n)[1]
    rules = [
        (Kind.RIGHT, taken >= 0, taken, taken_iou),
        # Pairs below t_background are not there, so that without any the overlap is 0.
        (Kind.LOC, (own_iou >= t_background) & (own_iou <= t_foreground), own, own_iou),
        (Kind.CLS, other_iou >= t_foreground, other, other_iou),
        # All objects of its class that it lies on are taken, else it had taken one.
        (Kind.DUPE, own_iou > t_foreground, own, own_iou),
        (Kind.BKG, nearest_iou <= t_background, np.full(n, -1), np.zeros(n)),
        (Kind.BOTH, np.ones(n, dtype=np.bool_), nearest, nearest_iou),
    ]
    conditions = [holds for _, holds, _, _ in rules]
    kind = np.select(conditions, [np.full(n, int(kind)) for kind, _, _, _ in rules])
    of_object = np.select(conditions, [objects for _, _, objects, _ in rules])
    return kind, of_object, np.select(conditions, [overlap for _, _, _, overlap in rules])


def _rescuers(kind: Ints, of_object: Ints, found: Bools) -> Ints:
    """Return (M,) the first detection that would find each object if its error were corrected, or -1."""
    candidates = np.flatnonzero((kind == Kind.CLS) | (kind == Kind.LOC))
    candidates = candidates[~found[of_object[candidates]]]
    objects, first = np.unique(of_object[candidates], return_index=True)
    rescuer = np.full(len(found), -1, dtype=np.int64)
    rescuer[objects] = candidates[first]
    return rescuer


def _ranked(image: Ints, score: Floats, conf: float, max_det: int | None) -> Ints:
    """Return the detections that count, by image and falling score."""
    kept = np.flatnonzero(score >= conf)
    order = kept[np.lexsort((-score[kept], image[kept]))]
    if max_det is None:
        return np.asarray(order)
    rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    return np.asarray(order[rank < max_det])


def _places(lengths: Sequence[int]) -> tuple[Ints, Ints]:
    """Return the image and the row in it of every box of all images."""
    image = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    starts = np.cumsum([0, *lengths])[:-1]
    return image, np.arange(len(image)) - np.repeat(starts, lengths)


def _classes(classes: Sequence[Ints], n_classes: int) -> Ints:
    joined = np.concatenate([np.zeros(0, dtype=np.int64), *classes]).astype(np.int64)
    wrong = joined[(joined < 0) | (joined >= n_classes)]
    if len(wrong):
        raise ArgumentError(f"class {wrong[0]} does not exist with n_classes={n_classes}: use 0 to {n_classes - 1}.")
    return joined


def _joined(scores: Sequence[Floats]) -> Floats:
    return np.concatenate([np.zeros(0), *scores])


def _boxes(boxes: Sequence[Floats]) -> Floats:
    return np.concatenate([np.zeros((0, 4)), *boxes])
